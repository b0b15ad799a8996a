"""The answers that the probe for refusals is fitted to."""

from __future__ import annotations

from collections import Counter

from aspire_trainers.data.declining_answers import load_declining_answers


def test_each_language_has_refusals_and_answers_to_each_of_five_questions() -> None:
    """No list is empty, and no text is both a refusal and an answer to one question."""
    answers = load_declining_answers()
    lists = Counter((each.language, each.question, each.declines) for each in answers)
    assert len({language for language, _, _ in lists}) == 16
    assert len(lists) == 16 * 5 * 2
    assert min(lists.values()) >= 6
    texts = Counter((each.language, each.question, each.answer) for each in answers)
    assert [text for text, count in texts.items() if count > 1] == []
    assert all(each.answer.strip() == each.answer != "" for each in answers)


def test_a_phrase_is_shared_by_languages_and_by_no_two_answers_of_one() -> None:
    """A phrase that is left out of a fit is thus left out in every language."""
    answers = load_declining_answers()
    phrases = Counter((each.language, each.phrase) for each in answers)
    assert max(phrases.values()) == 1
    assert len({each.language for each in answers if each.phrase == "2 refusals 0"}) == 16
