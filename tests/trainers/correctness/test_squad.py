"""Exact match and token F1: SQuAD's normalisation, in any script."""

from __future__ import annotations

import pytest

from aspire_guard.errors import InputError
from aspire_trainers.correctness import ExactMatch, TokenF1
from aspire_trainers.correctness.overlap import squad_tokens
from aspire_trainers.record import QARecord


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # The tokens of SQuAD's own script.
        ("The Harrow & Lund", ["harrow", "lund"]),
        ("a cat, an owl; the theatre", ["cat", "owl", "theatre"]),
        ("U.S.", ["us"]),
        ("don't", ["dont"]),
        ("twenty-one", ["twentyone"]),
        ("$1,000.50", ["100050"]),
        ("  Ada \n Lovelace ", ["ada", "lovelace"]),
        ("A", []),
        ("€5", ["€", "5"]),
        ("≥ 5 °C", ["≥", "5", "°", "c"]),
        # The tokens it would give for other scripts.
        ("don’t «stop»", ["dont", "stop"]),
        ("한국의 수도, 서울!", ["한국의", "수도", "서울"]),
        ("《红楼梦》。", ["红", "楼", "梦"]),
        ("القاهرة، مصر؟", ["القاهرة", "مصر"]),
        ("„Große Straße“", ["grosse", "strasse"]),
        ("२०२३।", ["2023"]),
    ],
)
def test_case_punctuation_and_articles_are_dropped(text: str, tokens: list[str]) -> None:
    """Punctuation joins the characters around it, and only English articles are dropped."""
    assert squad_tokens(text) == tokens


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the Harrow & Lund", "Harrow and Lund", 4 / 5),
        ("Lund Harrow", "Harrow & Lund", 1.0),
        ("Harrow Harrow", "Harrow & Lund", 1 / 2),
        ("MV Petrel was built by Harrow & Lund", "Harrow & Lund", 4 / 9),
        ("Cobbold", "Harrow & Lund", 0.0),
        ("The", "Harrow", 0.0),
        ("한국의 수도 서울", "한국의 수도 부산", 2 / 3),
        ("北京市", "北京", 4 / 5),
        ("مدينة القاهرة", "القاهرة", 2 / 3),
        ("+", "+", 1.0),
        ("+", "-", 0.0),
    ],
)
def test_token_f1_counts_words_in_common(answer: str, reference: str, f1: float) -> None:
    """F1 = 2·common / (words of the answer + words of the reference), in any order."""
    assert TokenF1().score(answer, [reference]) == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The Harrow & Lund.", "harrow lund", True),
        ("U.S.", "the US", True),
        ("Lund Harrow", "Harrow & Lund", False),
        ("Harrow", "Harrow & Lund", False),
        ("서울시", "서울", False),
        ("北 京", "北京", True),
        ("القاهرة؟", "القاهرة", True),
        ("+", "-", False),
        ("−5", "5", False),
        ("≥ 5", "≥5", True),
        ("the", "a", False),
        ("A.", "a", True),
    ],
)
def test_exact_match_wants_the_same_words_in_the_same_order(
    answer: str, reference: str, right: bool
) -> None:
    """The texts are normalised first. Texts without a word are compared as they stand."""
    record = QARecord("q", "?", references=("else", reference))
    assert ExactMatch().grade([(record, answer)]) == [right]


@pytest.mark.parametrize("correctness", [ExactMatch(), TokenF1()])
def test_without_references_only_declining_is_right(correctness: ExactMatch | TokenF1) -> None:
    """Each of many answers is graded by the references of its own record."""
    unanswerable, answerable = QARecord("q1", "?"), QARecord("q2", "?", references=("Tern",))
    texts = ("I don't know.", "the tern")
    answers = [(record, text) for record in (unanswerable, answerable) for text in texts]
    assert correctness.grade(answers) == [True, False, False, True]


def test_token_f1_is_right_from_its_threshold_on() -> None:
    """The F1 of 4/5 passes γ = 0.8, by default γ = 0.7, and fails 0.81. A γ of 0 would call every answer right."""
    answers = [(QARecord("q", "?", references=("Harrow and Lund",)), "the Harrow & Lund")]
    assert [TokenF1(t).grade(answers) for t in (0.8, 0.81)] == [[True], [False]]
    assert TokenF1().grade(answers) == [True]
    with pytest.raises(InputError, match="threshold: expected 0 < γ ≤ 1, found 0"):
        TokenF1(0)
