"""What a training run is made of; a recipe file holds the same names in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from aspire_guard.errors import InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.files import describe_validation_error
from aspire_trainers.correctness import is_refusal


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FitConfig(_Config):
    """What one adapter is made of, and its optimisation.

    Attributes:
        method: a soft prompt, or a LoRA on the modules that PEFT takes for the model's architecture.
        text: a soft prompt starts from its token embeddings; a LoRA reads it as it stands.
        length: embeddings in the soft prompt; a LoRA has no use for it.
        rank: of the LoRA; a soft prompt has no use for it.
        target_modules: what the LoRA changes: "all-linear", or by default the projections that PEFT takes for a model.
        learning_rate: peak of AdamW's rate, after a linear warm-up and before a cosine decay to zero.
        epochs: passes over the training records.
        batch_size: questions a step.
        validate_every: steps between two validations.
        patience: validations without improvement before training stops.
        checkpoint_every: steps between two checkpoints.
        token_budget: tokens whose gradient is computed at once, padding included. A batch of more is taken in several
            passes, whose gradients add up: memory is bounded, and the step is the same.
    """

    method: Literal["soft_prompt", "lora"]
    text: str = Field(min_length=1)
    length: int = Field(default=20, ge=1)
    rank: int = Field(default=8, ge=1)
    target_modules: Literal["all-linear"] | None = None
    learning_rate: float = Field(gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    validate_every: int = Field(default=40, ge=1)
    patience: int = Field(default=3, ge=1)
    checkpoint_every: int = Field(default=10, ge=1)
    token_budget: int = Field(default=2048, ge=1)


class TaskTuningConfig(FitConfig):
    """Stage 1: θp; with the method "none" the model answers as it is, and the stage is left out.

    Attributes:
        refusal: what θp learns to answer where there is no reference, and what θs sees there as a right answer; without
            it θp learns from the questions with a reference alone, and it is left to θs to see which have no answer.
    """

    method: Literal["soft_prompt", "lora", "none"] = "soft_prompt"  # type: ignore[assignment]
    refusal: str | None = None
    learning_rate: float = Field(default=0.01, gt=0)
    text: str = "Answer the question with a few words copied from the passage, and nothing else."

    @field_validator("refusal")
    @classmethod
    def _declines(cls, refusal: str | None) -> str | None:
        if refusal is None or (refusal.strip() and is_refusal(refusal)):
            return refusal
        raise ValueError(
            f"expected words that count as declining, such as 'unanswerable', found {refusal!r}"
        )


class SelfEvaluationConfig(FitConfig):
    """Stage 3: θs.

    Attributes:
        answers: the most answers of one question that a step sees, right and wrong ones in turn.
        references: whether the first reference of a question counts among its right answers, as in the paper. Without,
            θs learns from the model's own answers alone, and can't tell a right answer by a style the model lacks.
        weighting: "balanced": the right and the wrong answers of a question weigh the same, as in the paper;
            "best_answer": the first of the sampled answers (the best beam, the first draw, the first given answer)
            weighs as much as all others together, right or wrong, so that θs also learns which questions are mostly
            answered wrongly.
        distractors: so many references of other questions about the passage count among a question's wrong answers.
            With `references`, θs sees answers of one style that are right or wrong by the question alone.
        states_gib: memory of a process for the states of `[θp ; x ; ŷ]`, kept from epoch to epoch, in GiB; those that
            find no room are computed again.
        persuasion: share of these answers that a step sees once more with an addition that says nothing, under the
            label that the answer has; wrong ones also with an addition that argues for them. θs learns that arguing
            does not make an answer right.
        correct: z_c, the word for right, one token of the model; where left out that of `init_from`, or " correct".
        wrong: z_w, the word for wrong; where left out that of `init_from`, or " wrong".
        from_scratch: θs is made anew, of what stands here, where `init_from` names an evaluator; θp starts as its own.
    """

    method: Literal["soft_prompt", "lora"] = "lora"
    text: str = "?"
    learning_rate: float = Field(default=0.002, gt=0)
    epochs: int = Field(default=3, ge=1)
    references: bool = True
    weighting: Literal["balanced", "best_answer"] = "balanced"
    distractors: int = Field(default=0, ge=0)
    states_gib: float = Field(default=4.0, ge=0)
    token_budget: int = Field(default=8192, ge=1)
    answers: int = Field(default=4, ge=2)
    persuasion: float = Field(default=0.0, ge=0, le=1)
    correct: str | None = Field(default=None, min_length=1)
    wrong: str | None = Field(default=None, min_length=1)
    from_scratch: bool = False


class SamplingConfig(_Config):
    """Stage 2.

    Attributes:
        method: beams, as in the paper, or draws from the model's distribution.
        k: beams or draws a question; the paper takes 10.
        temperature: of draws; beams have no use for it.
        folds: with two or more, cross-fitting: the passages are parted into so many folds, and a fold's questions are
            answered under a θp that was fitted on the other folds, so that it errs as on questions it has not seen.
        max_new_tokens: the longest answer, in tokens.
        batch_size: questions decoded together.
        threshold: γ̂: the least F1 of a training answer that counts as right, where the rule has a threshold.
    """

    method: Literal["beam", "multinomial"] = "beam"
    k: int = Field(default=5, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    folds: int = Field(default=1, ge=1)
    max_new_tokens: int = Field(default=24, ge=1)
    batch_size: int = Field(default=8, ge=1)
    threshold: float = Field(default=0.9, gt=0, le=1)


class TrainingConfig(_Config):
    """A whole run.

    Attributes:
        model: the base model: `smollm2-135m`, a local folder or a hub id; where left out, that of `init_from`.
        init_from: an evaluator whose θp and θs training goes on from: a folder, or `starter`. They stay what they are
            made of, whatever `task` and `self_evaluation` say of that; with the task method "none" θp stays as it is,
            and with `from_scratch` θs is a new one.
        seed: of the order of the records and of every random choice.
        limit: use at most so many records of each training dataset, out of contexts drawn at random.
        validation_share: of the training contexts, set aside to stop early, to choose α and to calibrate.
        correctness: which answers count as right.
        alpha: α of the selection score; where left out, it is chosen on the validation records.
        target_accuracy: the threshold is the lowest that reaches it on the validation records.
        num_beams: beams that decode an answer when the evaluator is used.
        dtype: of the frozen weights and their states in the three stages. "bfloat16" halves the memory, and is
            faster on a GPU or a processor that computes in it and slower on others. θp and θs are float32
            always, and so is the evaluator that is calibrated and saved.
        licences: of the training data, for the evaluator's card.
    """

    model: str = "smollm2-135m"
    init_from: str | None = None
    seed: int = 0
    limit: int | None = Field(default=None, ge=1)
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    correctness: CorrectnessRule = CorrectnessRule()
    alpha: float | None = Field(default=None, ge=0, le=1)
    target_accuracy: float = Field(default=0.8, gt=0, le=1)
    num_beams: int = Field(default=3, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    licences: dict[str, str] = {}
    task: TaskTuningConfig = TaskTuningConfig()
    sampling: SamplingConfig = SamplingConfig()
    self_evaluation: SelfEvaluationConfig = SelfEvaluationConfig()

    @classmethod
    def load(cls, recipe: Path | None = None, **overrides: Any) -> TrainingConfig:
        """The settings of a recipe, or the defaults; `overrides` that are not None win over them.

        Raises:
            InputError: the recipe is missing, is not TOML, or names an unknown setting.
        """
        try:
            values = {} if recipe is None else tomllib.loads(recipe.read_text(encoding="utf-8"))
            values |= {name: value for name, value in overrides.items() if value is not None}
            return cls.model_validate(values)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(
                f"{recipe}: expected a recipe in TOML, found: {error}; fix it or its path"
            ) from error
        except ValidationError as error:
            source = recipe or "options"
            found = describe_validation_error(error, "the settings")
            raise InputError(f"{source}: expected valid settings, found {found}; fix it") from error
