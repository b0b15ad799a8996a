"""Contexts that are longer than the window: how they are cut, which windows are read, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aspire_guard.errors import InputError
from aspire_guard.lm import context_windows
from aspire_guard.lm.answer_reading import read_answers
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.context_windows import choose_windows, read_in_windows, split_into_windows
from aspire_guard.lm.plain_answer import split_answer
from aspire_guard.testing import MAX_LENGTH, tiny_evaluator

FILLER = "Nothing to see here, go on reading, please. " * 3


@pytest.fixture(scope="module")
def aspire() -> AspireLM:
    evaluator = tiny_evaluator()
    template = evaluator.aspire.template.model_copy(update={"plain_answers": True})
    return replace(evaluator.aspire, template=template)


def test_windows_hold_whole_passages_and_lose_no_word(aspire: AspireLM) -> None:
    """A passage that does not fit is cut after a sentence, and a sentence that does not fit between words."""
    passages = ["Ada keeps the key.", FILLER, "x" * 40 + " " + "long " * 60 + "y" * 300, "Bob."]
    windows = split_into_windows(aspire, "Who?", "\n\n".join(passages), "Ada.")
    assert " ".join(windows).split() != []
    room = MAX_LENGTH - len(aspire.reader.question_ids("Who?"))
    assert all(len(aspire.reader.context_ids(window)) < room for window in windows)
    joined = "".join("".join(windows).split())
    assert joined == "".join("".join(passages).split())


def test_each_sentence_chooses_the_window_that_shares_its_words() -> None:
    """A window that no sentence chooses is not read."""
    windows = ["Ada keeps the key.", "Nothing here.", "Bob has a copy of it."]
    assert choose_windows(windows, split_answer("Bob has a copy. Ada keeps it.")) == [0, 2]
    assert choose_windows(windows, []) == [0]


def test_a_sentence_is_read_with_the_window_that_makes_it_likeliest(aspire: AspireLM) -> None:
    """The readings are those of the windows alone, whatever lies between them."""
    context = "\n\n".join(["Ada keeps the key.", *[FILLER] * 8, "Bob has a copy of it."])
    answer = "Bob has a copy. Ada keeps it."
    reading = read_in_windows(aspire, ("Who?", context, answer))
    windows = split_into_windows(aspire, "Who?", context, answer)
    chosen = [windows[i] for i in choose_windows(windows, split_answer(answer))]
    assert len(chosen) == 2 < len(windows)
    alone = read_answers(aspire, [("Who?", window, answer) for window in chosen])
    assert all(map(torch.equal, reading.values, alone[0].values))
    for number, sentence in enumerate(reading.sentences):
        sums = [float(each.sentences[number].log_p.sum()) for each in alone]
        assert float(sentence.log_p.sum()) == pytest.approx(max(sums), abs=1e-4)
        assert sentence.context == chosen[sums.index(max(sums))]


def test_a_context_beyond_the_bound_is_refused(
    aspire: AspireLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the bound."""
    monkeypatch.setattr(context_windows, "LONGEST_CONTEXT", 1000)
    with pytest.raises(InputError, match="expected a context of at most 1,000 tokens, found 3,"):
        split_into_windows(aspire, "Who?", FILLER * 30, "Ada.")


def test_an_answer_without_room_for_a_context_is_refused(aspire: AspireLM) -> None:
    """No window could hold anything beside it."""
    with pytest.raises(InputError, match="expected a question and an answer that leave room"):
        split_into_windows(aspire, "Who?", "Ada.", "z" * MAX_LENGTH)
