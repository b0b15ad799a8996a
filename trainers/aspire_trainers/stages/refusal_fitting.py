"""The fit of the probe for refusals, and its results on languages and phrases that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from aspire_guard.evaluators.refusal_probe import RefusalProbe
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_trainers.data.declining_answers import DecliningAnswer
from aspire_trainers.run.progress import Progress

# The share of right answers among the hard ones here that may be taken for refusals.
MOST_FALSE_ALARMS = 0.02
# The layers in which a refusal shows best, as shares of the depth.
_DEPTHS = (16 / 30, 18 / 30, 20 / 30, 22 / 30)
# The strength of the regularisation (scikit-learn's C).
_INVERSE_PENALTY = 0.003
_PHRASE_FOLDS = 5
_ANSWERS_PER_PART = 16

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutResult:
    """The results on answers that a probe was not fitted on.

    Attributes:
        name: the answers.
        n: their number.
        auroc: the probability that a refusal has a higher score than an answer.
        recall: the share of the refusals that are told, in [0, 1].
        false_alarms: the share of the other answers that are taken for refusals, in [0, 1].
    """

    name: str
    n: int
    auroc: float
    recall: float
    false_alarms: float


@torch.inference_mode()
def read_values(evaluator: SelfEvaluator, answers: Sequence[DecliningAnswer]) -> dict[int, Array]:
    """Read answers without a context, and return their mean values in each layer of the probe.

    Returns:
        An array by layer, `(answers, kv_heads * head_dim)`.
    """
    reader = evaluator.with_plain_answers().aspire.reader
    layers = reader.lm.model.config.num_hidden_layers
    chosen = sorted({min(round(depth * layers), layers - 1) for depth in _DEPTHS})
    # Answers of similar length are read together, which saves padding.
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].question + answers[i].answer))
    vectors: dict[int, tuple[Tensor, ...]] = {}
    with Progress("refusals", "answers") as progress:
        progress.start(len(answers))
        for start in range(0, len(answers), _ANSWERS_PER_PART):
            members = order[start : start + _ANSWERS_PER_PART]
            questions = [reader.question_ids(answers[i].question) for i in members]
            texts = [reader.answer_ids(answers[i].answer) for i in members]
            prompts = map(torch.cat, zip(questions, texts, strict=True))
            states, _ = reader.read([(None, ids) for ids in prompts])
            for row, i in enumerate(members):
                vectors[i] = states.average_values(row, len(texts[row]))
            progress.advance(by=len(members))
    values: dict[int, Array] = {}
    for layer in chosen:
        rows = [vectors[i][layer].double().cpu().numpy() for i in range(len(answers))]
        values[layer] = np.stack(rows)
    return values


def fit_refusal_probe(
    values: dict[int, Array], answers: Sequence[DecliningAnswer]
) -> tuple[RefusalProbe, list[HeldOutResult]]:
    """Fit a probe to answers.

    The probe's cut-off is chosen on answers of languages and phrases that a probe was not fitted on: the share of them
    that is wrongly taken for refusals is at most `MOST_FALSE_ALARMS`.

    Args:
        values: the mean values of each layer, as `read_values` returns them.
        answers: the answers.

    Returns:
        The probe, and its results on unseen languages together, on unseen phrases, and on each unseen language.
    """
    features = np.concatenate(list(values.values()), axis=1)
    declines = np.array([answer.declines for answer in answers])
    languages = np.array([answer.language for answer in answers])
    folds = np.array([crc32(answer.phrase.encode()) % _PHRASE_FOLDS for answer in answers])
    by_language = _predict_held_out(features, declines, languages)
    by_phrase = _predict_held_out(features, declines, folds)
    answered = np.concatenate([by_language[~declines], by_phrase[~declines]])
    cut_off = float(np.quantile(answered, 1 - MOST_FALSE_ALARMS))
    everything = np.ones(len(answers), bool)
    results = [
        _measure("unseen languages", by_language - cut_off, declines, everything),
        _measure("unseen phrases", by_phrase - cut_off, declines, everything),
    ]
    for language in dict.fromkeys(languages.tolist()):
        chosen = languages == language
        results.append(_measure(language, by_language - cut_off, declines, chosen))
    weights, intercept = _fit(features, declines)
    ends = np.cumsum([rows.shape[1] for rows in values.values()])
    parts = np.split(weights.round(5), ends[:-1])
    probe = RefusalProbe(
        weights={layer: tuple(part.tolist()) for layer, part in zip(values, parts, strict=True)},
        intercept=round(intercept - cut_off, 5),
    )
    return probe, results


def _predict_held_out(features: Array, declines: NDArray[np.bool_], groups: NDArray[Any]) -> Array:
    """Return the log-odds of each answer under a regression on the answers of all other groups."""
    log_odds = np.zeros(len(features))
    for group in np.unique(groups):
        held_out = groups == group
        weights, intercept = _fit(features[~held_out], declines[~held_out])
        log_odds[held_out] = features[held_out] @ weights + intercept
    return log_odds


def _fit(features: Array, declines: NDArray[np.bool_]) -> tuple[Array, float]:
    """Fit a logistic regression on standardised features, and return it for the features as they are."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    regression = LogisticRegression(C=_INVERSE_PENALTY, max_iter=3000)
    regression.fit((features - mean) / spread, declines)
    weights = regression.coef_[0] / spread
    return weights, float(regression.intercept_[0] - mean @ weights)


def _measure(
    name: str, log_odds: Array, declines: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> HeldOutResult:
    scores, is_refusal = log_odds[chosen], declines[chosen]
    return HeldOutResult(
        name=name,
        n=len(scores),
        auroc=float(roc_auc_score(is_refusal, scores)),
        recall=float((scores[is_refusal] >= 0).mean()),
        false_alarms=float((scores[~is_refusal] >= 0).mean()),
    )
