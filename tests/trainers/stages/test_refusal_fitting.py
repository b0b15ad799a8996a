"""The fit of the probe for refusals: its cut-off, its results on what it was not fitted on, and its values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aspire_guard.exchange import Exchange
from aspire_guard.testing import tiny_evaluator
from aspire_trainers.data.declining_answers import DecliningAnswer, load_declining_answers
from aspire_trainers.stages.refusal_fitting import (
    MOST_FALSE_ALARMS,
    fit_refusal_probe,
    read_values,
)

LANGUAGES = ("aa", "bb", "cc", "dd")


def make_answers() -> list[DecliningAnswer]:
    """Make 100 refusals and 100 answers in each language."""
    answers: list[DecliningAnswer] = []
    for language in LANGUAGES:
        for number in range(200):
            kind = "refusals" if number % 2 else "answers"
            declines = kind == "refusals"
            answers.append(DecliningAnswer(language, "?", ".", declines, f"0 {kind} {number}"))
    return answers


def make_values(answers: list[DecliningAnswer], distance: float) -> dict[int, np.ndarray]:
    """Make values of two layers, whose first place tells refusals by a distance in standard deviations."""
    generator = np.random.default_rng(0)
    values = {layer: generator.normal(size=(len(answers), 3)) for layer in (1, 2)}
    values[1][:, 0] += [distance * answer.declines for answer in answers]
    return values


@pytest.mark.parametrize(("distance", "least", "most"), [(0.0, 0.0, 0.06), (2.0, 0.3, 0.6)])
def test_few_answers_are_taken_for_refusals(distance: float, least: float, most: float) -> None:
    """The cut-off keeps to its share on languages and phrases that were left out, at the price of refusals."""
    answers = make_answers()
    probe, results = fit_refusal_probe(make_values(answers, distance), answers)
    languages, phrases, *each = results
    assert [result.name for result in each] == list(LANGUAGES)
    assert [result.n for result in results] == [800, 800, 200, 200, 200, 200]
    alarms = (languages.false_alarms + phrases.false_alarms) / 2
    assert alarms == pytest.approx(MOST_FALSE_ALARMS, abs=0.003)
    assert least <= languages.recall <= most
    assert languages.recall == pytest.approx(np.mean([result.recall for result in each]))
    assert set(probe.weights) == {1, 2}


def test_one_half_is_the_cut_off() -> None:
    """The probe flags the share of refusals that its results promise."""
    answers = make_answers()
    values = make_values(answers, 3.0)
    probe, (result, *_) = fit_refusal_probe(values, answers)
    flags = []
    for row in range(len(answers)):
        layers = (torch.empty(0), *(torch.tensor(values[layer][row]) for layer in (1, 2)))
        probability = probe.measure(layers)
        assert probability is not None
        flags.append(probability >= 0.5)
    declines = np.array([answer.declines for answer in answers])
    assert np.array(flags)[declines].mean() == pytest.approx(result.recall, abs=0.1)
    assert np.array(flags)[~declines].mean() == pytest.approx(MOST_FALSE_ALARMS, abs=0.015)


def test_values_are_those_that_an_evaluator_reads() -> None:
    """They are read in another order and batch, and come back in the order of the answers."""
    evaluator = tiny_evaluator()
    answers = load_declining_answers()[:20]
    values = read_values(evaluator, answers)
    exchanges = [Exchange(question=each.question, answer=each.answer) for each in answers]
    for row, reading in enumerate(evaluator.with_plain_answers().read(exchanges)):
        for layer, rows in values.items():
            assert rows[row] == pytest.approx(reading.values[layer].numpy(), abs=1e-4)
