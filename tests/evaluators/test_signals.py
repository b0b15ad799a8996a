"""The signals of answers, on readings that are made by hand."""

from __future__ import annotations

import pytest
import torch

from aspire_guard.evaluators.signals import measure_sentence_signals, measure_signals
from aspire_guard.lm.answer_reading import AnswerReading, SentenceReading
from aspire_guard.lm.plain_answer import Sentence

CONTEXT = "The fee is 30 euros in Lund. Ada pays it."


def read(
    text: str,
    *,
    log_p: float = -1.0,
    alone: float = -2.0,
    leads: list[float] | None = None,
    verdict: float = -0.5,
) -> SentenceReading:
    """Make the reading of a sentence with a token for each word, and the space before it."""
    shown = f" {text}"
    words = shown.split(" ")[1:]
    offsets: list[tuple[int, int]] = []
    place = 0
    for word in words:
        offsets.append((place, place + 1 + len(word)))
        place += 1 + len(word)
    n = len(words)
    return SentenceReading(
        sentence=Sentence(0, len(text), text),
        text=shown,
        offsets=offsets,
        log_p=torch.full((n,), float(log_p)),
        log_p_alone=torch.full((n,), float(alone)),
        lead=torch.tensor(leads if leads is not None else [0.0] * n),
        log_p_correct=verdict,
        context=CONTEXT,
    )


def measure(*sentences: SentenceReading, question: str = "What is the fee?") -> dict[str, float]:
    return measure_signals(AnswerReading(sentences, -1.0, -0.5), question)


def test_support_is_the_share_of_the_answers_words_in_the_context() -> None:
    """The fee is 40 euros: four of five words."""
    assert measure(read("The fee is 40 euros."))["support"] == pytest.approx(0.8)


def test_the_context_explains_a_share_of_the_surprise() -> None:
    """Half the surprise is left, or three times as much, which counts as −1."""
    assert measure(read("The fee is 40.", log_p=-1, alone=-2))["explained"] == pytest.approx(0.5)
    assert measure(read("The fee is 40.", log_p=-6, alone=-2))["explained"] == -1.0


def test_the_lead_is_that_of_numbers_and_names() -> None:
    """Of "30" and "Lund": the first word, the words of the question and words outside the context don't count."""
    leads = [-9.0, -9.0, -9.0, -2.0, -9.0, -9.0, -4.0]
    signals = measure(read("Ada fee is 30 euros in Lund", leads=leads))
    assert signals["lead"] == pytest.approx(-3.0)


def test_without_a_name_or_a_number_longer_words_count() -> None:
    """Of "euros" alone. Without any fact the lead is the least."""
    assert measure(read("In euros", leads=[-1.0, -5.0]))["lead"] == pytest.approx(-5.0)
    assert measure(read("No idea"))["lead"] == -12.0


def test_quoting_the_context_does_not_make_up_for_a_wrong_claim() -> None:
    """A sentence that is copied word for word does not count beside another one, and counts alone."""
    claim, quotation = read("Bob pays 99."), read("The fee is 30 euros in Lund.", log_p=-0.01)
    names = ("support", "explained", "lead")
    alone, padded = measure(claim), measure(claim, quotation, quotation)
    assert [padded[name] for name in names] == [alone[name] for name in names]
    assert measure(quotation)["support"] == 1.0


def test_the_claims_are_as_right_as_their_judgements_say_on_average() -> None:
    """A copied sentence counts only if there is nothing else."""
    claims = [read("Bob pays 99.", verdict=-3.0), read("Eve pays too.", verdict=-1.0)]
    quotation = read("The fee is 30 euros in Lund.", verdict=-0.01)
    assert measure(*claims, quotation)["claims_correct"] == pytest.approx(-2.0)
    assert measure(quotation)["claims_correct"] == pytest.approx(-0.01)


def test_a_sentence_has_signals_of_its_own() -> None:
    """They are those of an answer of that sentence, except for the likelihood, which lacks the end token."""
    sentence = read("The fee is 40 euros.", log_p=-3)
    own, whole = measure_sentence_signals(sentence, "What is the fee?"), measure(sentence)
    assert own.pop("log_likelihood") == pytest.approx(-3)
    assert whole.pop("log_likelihood") == pytest.approx(-16 / 6)
    assert own == whole


def test_an_empty_answer_has_the_signals_that_need_no_words() -> None:
    """The likelihood of the end token, and the verdict."""
    expected = {"log_likelihood": -1.0, "log_p_correct": -0.5, "claims_correct": -0.5}
    assert measure() == expected
