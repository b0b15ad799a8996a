"""Settings of a training run. A recipe file holds them under the same names in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from aspire_guard.errors import InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.files import describe_validation_error
from aspire_trainers.correctness import is_refusal


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def load(cls, recipe: str | Path | None = None, **overrides: Any) -> Self:
        """Load the settings of a recipe, or the defaults if there is no recipe.

        Args:
            recipe: a TOML file.
            overrides: settings that replace the recipe's, unless they are None.

        Raises:
            InputError: the recipe is missing, is not TOML, or names an unknown setting.
        """
        values = {} if recipe is None else _read_recipe(Path(recipe))
        values |= {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            source = recipe or "options"
            found = describe_validation_error(error, "the settings")
            raise InputError(f"{source}: expected valid settings, found {found}; fix it") from error


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    # tomllib reads arrays within arrays by recursion.
    except (OSError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())
        raise InputError(
            f"{path}: expected a recipe in TOML, found: {found}; fix it or its path"
        ) from error


class FitConfig(_Config):
    """The kind of an adapter, and its optimisation.

    Attributes:
        method: a soft prompt, or a LoRA.
        text: a soft prompt starts from the token embeddings of this text. A LoRA reads the text itself.
        length: embeddings in the soft prompt. A LoRA ignores it.
        rank: rank of the LoRA. A soft prompt ignores it.
        target_modules: modules that the LoRA changes: "all-linear", or by default the projections that PEFT chooses,
            and all plain linear layers if PEFT has no choice for the model.
        learning_rate: peak of AdamW's rate, after a linear warm-up and before a cosine decay to zero.
        epochs: passes over the training records.
        batch_size: questions in a step.
        validate_every: steps between two validations.
        patience: validations without improvement before training stops.
        checkpoint_every: steps between two checkpoints.
        token_budget: tokens whose gradient is computed at once, padding included. A larger batch is split into several
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
    """Settings of stage 1, which trains θp. With the method "none" the stage is skipped.

    Attributes:
        refusal: the answer that θp learns for a question without a reference, and a right answer to it for θs. Without
            a refusal θp learns only from questions with a reference, and θs alone must recognise the others.
    """

    method: Literal["soft_prompt", "lora", "none"] = "soft_prompt"  # type: ignore[assignment]
    refusal: str | None = None
    learning_rate: float = Field(default=0.01, gt=0)
    text: str = "Answer the question with a few words copied from the passage, and nothing else."

    @field_validator("refusal")
    @classmethod
    def _check_refusal(cls, refusal: str | None) -> str | None:
        if refusal is None or (refusal.strip() and is_refusal(refusal)):
            return refusal
        raise ValueError(
            f"expected words that count as declining, such as 'unanswerable', found {refusal!r}"
        )


class SelfEvaluationConfig(FitConfig):
    """Settings of stage 3, which trains θs.

    Attributes:
        answers: the largest number of answers to one question in a step, right and wrong ones in turn.
        references: whether the first reference of a question counts among its right answers, as in the paper. Without
            references θs learns from the model's own answers alone, and can't recognise a right answer by a style that
            the model lacks.
        weighting: "balanced": the right and the wrong answers to a question weigh the same, as in the paper.
            "best_answer": the first of the sampled answers (the best beam, the first draw, the chain's first answer)
            weighs as much as all the others together, right or wrong, so that θs also learns which questions are mostly
            answered wrongly.
        distractors: references of other questions about the same passage that are added to a question's wrong answers.
            With `references`, θs sees answers in one style that only the question makes right or wrong.
        states_gib: memory of a process for the states of `[θp ; x ; ŷ]`, kept from epoch to epoch, in GiB. States
            beyond it are computed again.
        persuasion: share of the answers that a step shows a second time with an addition that says nothing, under the
            same label. Wrong answers are also shown with an addition that argues for them. θs learns that arguing does
            not make an answer right.
        correct: z_c, the word for right, one token of the model. By default the word of `init_from`, or " correct".
        wrong: z_w, the word for wrong. By default the word of `init_from`, or " wrong".
        from_scratch: make a new θs from these settings although `init_from` names an evaluator. θp still continues from
            that evaluator's θp.
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
    """Settings of stage 2, which samples answers.

    Attributes:
        method: beams, as in the paper, or draws from the model's distribution.
        k: beams or draws per question. The paper uses 10.
        temperature: temperature of the draws. Beams ignore it.
        folds: number of parts for cross-fitting. With two or more, the passages are split into this many folds, and the
            questions of each fold are answered under a θp that was fitted on the other folds, so that it makes the
            mistakes that it makes on questions it has not seen.
        max_new_tokens: the longest answer, in tokens.
        batch_size: questions decoded together.
        threshold: γ̂, the least F1 of a training answer that counts as right, if the rule has a threshold.
    """

    method: Literal["beam", "multinomial"] = "beam"
    k: int = Field(default=5, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    folds: int = Field(default=1, ge=1)
    max_new_tokens: int = Field(default=24, ge=1)
    batch_size: int = Field(default=8, ge=1)
    threshold: float = Field(default=0.9, gt=0, le=1)


class TrainingConfig(_Config):
    """Settings of a whole run.

    Attributes:
        model: the base model: `smollm2-135m`, a local folder or a hub id. By default the base model of `init_from`.
        init_from: the evaluator whose θp and θs are trained further: a folder, or `starter`. The two keep their kind,
            whatever `task` and `self_evaluation` say about it. With the task method "none" θp does not change, and with
            `from_scratch` θs is a new one.
        seed: seed of the order of the records and of every random choice.
        limit: the largest number of records from each training dataset, out of contexts drawn at random.
        validation_share: share of the training contexts that is held out to stop early, to choose α and to calibrate.
        correctness: the rule by which answers count as right.
        alpha: α of the selection score. By default it is chosen on the validation records.
        target_accuracy: accuracy on the validation records. The threshold is the lowest that reaches it.
        num_beams: beams that decode an answer when the evaluator is used.
        dtype: precision of the frozen weights and their states in the three stages. "bfloat16" halves the memory. It is
            faster on a GPU or a processor that computes in it, and slower on others. θp and θs are always float32, and
            so is the evaluator that is calibrated and saved.
        licences: licences of the training data, for the evaluator's card.
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


class JudgeConfig(FitConfig):
    """Settings of the training of a judge, a θs that reaches over the prompt and the answer.

    A step reads `batch_size` parts. A part is a passage with some of the answers about it, at most `token_budget`
    tokens.

    Attributes:
        text: the words after each sentence that the judgement follows.
        model: the base model: `smollm2-135m`, a local folder or a hub id.
        seed: seed of the order of the answers and of the first weights.
        limit: draw whole groups of each file until there are this many answers, or None for all answers.
        validation_share: share of the groups of answers that is held out to keep the best weights, and to fit the
            selection rule and the confidence.
        first_layer: the first layer that the LoRA changes, in all its linear modules. The layers before it need no
            gradient. 0 changes all layers, in the modules of `target_modules`.
        likelihood_weight: weight of the likelihood of the right answers in the loss, beside the judgement. Learning to
            answer from a passage is learning to read it.
        target_accuracy: the wanted share of right answers among the released ones.
        dtype: precision of the frozen weights during training; see `TrainingConfig`.
        correct: z_c, the word for right, one token of the model.
        wrong: z_w, the word for wrong.
        attribution: the sources and licences of the answers, for the evaluator's card.
    """

    method: Literal["lora"] = "lora"
    text: str = "\nThis is"
    rank: int = Field(default=16, ge=1)
    target_modules: Literal["all-linear"] | None = "all-linear"
    learning_rate: float = Field(default=8e-4, gt=0)
    batch_size: int = Field(default=4, ge=1)
    validate_every: int = Field(default=100, ge=1)
    patience: int = Field(default=5, ge=1)
    token_budget: int = Field(default=700, ge=1)
    model: str = "smollm2-135m"
    seed: int = 0
    limit: int | None = Field(default=None, ge=1)
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    first_layer: int = Field(default=0, ge=0)
    likelihood_weight: float = Field(default=0.3, ge=0)
    target_accuracy: float = Field(default=0.9, gt=0, le=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    correct: str = Field(default=" correct", min_length=1)
    wrong: str = Field(default=" wrong", min_length=1)
    attribution: str = ""
