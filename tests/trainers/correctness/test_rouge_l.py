"""Correctness by Rouge-L in any script, and the answers that count as declining."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from aspire_guard.errors import InputError
from aspire_trainers.correctness import RougeL, is_refusal
from aspire_trainers.correctness.tokenizer import UnicodeTokenizer
from aspire_trainers.record import QARecord

DEFAULT_SCORER = RougeScorer(["rougeL"])
ENGLISH = st.text(alphabet="abC dE09 .,'-_/&%", max_size=30).filter(
    lambda text: any(map(str.isalnum, text))
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Port Anselm's 5 berths, 6.4 m!", ["port", "anselm", "s", "5", "berths", "6", "4", "m"]),
        ("snake_case don’t", ["snake", "case", "don", "t"]),
        ("Große Straße in KÖLN", ["grosse", "strasse", "in", "köln"]),
        ("서울특별시는 한국의 수도", ["서울특별시는", "한국의", "수도"]),
        ("北京2008年奥运会。", ["北", "京", "2008", "年", "奥", "运", "会"]),
        ("東京タワーは333m", ["東", "京", "タ", "ワ", "ー", "は", "333m"]),
        ("ﾄｳｷｮｳ Ａ１", ["ト", "ウ", "キ", "ョ", "ウ", "a1"]),
        ("مُحَمَّد، ٢٠٢٣", ["مُحَمَّد", "2023"]),
        ("हिन्दी में १२", ["हिन्दी", "में", "12"]),
        ("ที่กรุงเทพ ๑๒", ["ที่", "ก", "รุ", "ง", "เ", "ท", "พ", "12"]),
        ("ລາວ", ["ລ", "າ", "ວ"]),
        ("ភ្នំ", ["ភ្", "នំ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("co\u00adoperative", ["cooperative"]),
        ("👍\ufe0f ok \u0301", ["ok"]),
        ("½ ﬁn", ["1", "2", "fin"]),
        ("", []),
        ("?! …", []),
    ],
)
def test_text_splits_into_words_or_characters(text: str, tokens: list[str]) -> None:
    """A script with spaces splits into words, another into characters with their marks. Digits become 0–9."""
    assert UnicodeTokenizer().tokenize(text) == tokens


def test_composed_and_decomposed_letters_are_equal() -> None:
    """Hangul and umlauts typed on another system still match."""
    tokenize = UnicodeTokenizer().tokenize
    assert tokenize("\u1112\u1161\u11ab\u1100\u116e\u11a8") == tokenize("한국") == ["한국"]
    assert tokenize("O\u0308l") == tokenize("Öl") == ["öl"]


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        # Korean: words by spaces, of which two of three agree.
        ("한국의 수도 서울", "한국의 수도 부산", 2 / 3),
        ("서울", "부산", 0.0),
        # Chinese: six of six characters, and six of seven.
        ("中国的首都北京", "中国首都北京", 12 / 13),
        # Japanese: four shared characters of four and six.
        ("東京です。", "東京", 2 / 3),
        # Arabic: two of three words; diacritics belong to their word.
        ("مدينة القاهرة", "القاهرة", 2 / 3),
        ("٤٨", "48", 1.0),
        # German: umlauts and ß are letters.
        ("die Münchner Straße", "Münchner Straße", 4 / 5),
        ("MÜNCHNER STRASSE", "Münchner Straße", 1.0),
        ("Öl", "Ol", 0.0),
        # Thai: characters with their marks, of which four of seven agree.
        ("เชียงใหม่", "เชียงราย", 4 / 7),
    ],
)
def test_f1_in_any_script(answer: str, reference: str, f1: float) -> None:
    """F1 = 2·LCS / (tokens of the answer + tokens of the reference)."""
    assert RougeL().score(answer, [reference]) == pytest.approx(f1, abs=1e-12)


@given(ENGLISH, ENGLISH)
def test_english_scores_as_rouge_score_does(answer: str, reference: str) -> None:
    """On plain English the tokenizer changes nothing."""
    assert (
        RougeL().score(answer, [reference])
        == DEFAULT_SCORER.score(reference, answer)["rougeL"].fmeasure
    )


@given(st.text(max_size=40))
def test_every_text_equals_itself(text: str) -> None:
    """A reference in any script scores 1 against itself, and folding is stable."""
    assert RougeL().score(text, [text]) == 1.0
    tokens = UnicodeTokenizer().tokenize(text)
    assert UnicodeTokenizer().tokenize(" ".join(tokens)) == tokens


def test_the_best_reference_counts() -> None:
    """The score is the maximum over references, in any order."""
    references = ["Harrow and Lund", "Harrow & Lund", "Cobbold"]
    assert RougeL().score("the Harrow & Lund", references) == pytest.approx(4 / 5)
    assert RougeL().score("the Harrow & Lund", references[::-1]) == pytest.approx(4 / 5)


def test_an_answer_is_correct_from_the_threshold_on() -> None:
    """The F1 of 4/5 passes γ = 0.8 and fails γ = 0.81."""
    answers = [(QARecord("q", "Which yard?", references=("Harrow & Lund",)), "the Harrow & Lund")]
    assert RougeL(threshold=0.8).grade(answers) == [True]
    assert RougeL(threshold=0.81).grade(answers) == [False]


@pytest.mark.parametrize(("common", "answer", "reference"), [(3, 3, 5), (6, 7, 8), (7, 10, 10)])
def test_an_f1_of_exactly_the_threshold_is_right(common: int, answer: int, reference: int) -> None:
    """Rounding errors do not make it wrong."""
    shared = [f"w{i}" for i in range(common)]
    answer_words = [*shared, *(f"x{i}" for i in range(answer - common))]
    reference_words = [*shared, *(f"y{i}" for i in range(reference - common))]
    record = QARecord("q", "Which?", references=(" ".join(reference_words),))
    rule = RougeL(threshold=2 * common / (answer + reference))
    assert rule.grade([(record, " ".join(answer_words))]) == [True]


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_a_threshold_outside_its_range_is_an_error(threshold: float) -> None:
    """γ = 0 would call every answer correct."""
    with pytest.raises(
        InputError, match=r"threshold: expected 0 < γ ≤ 1, found .*; the paper takes 0\.7\."
    ):
        RougeL(threshold=threshold)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("", "Tern", 0.0),
        ("+", "+", 1.0),
        (" + ", "+", 1.0),
        ("+", "-", 0.0),
        ("Tern", "+", 0.0),
    ],
)
def test_texts_without_tokens_are_compared_as_they_stand(
    answer: str, reference: str, score: float
) -> None:
    """Rouge-L knows no punctuation, so equal signs are equal by their text."""
    assert RougeL().score(answer, [reference]) == score


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "  \n",
        "Unanswerable.",
        "NO ANSWER!",
        "I don't know.",
        "I don’t know",
        "i dont know",
        "I can't answer this question.",
        "N/A",
        "The passage does not mention this.",
        "The provided text doesn’t say who did it.",
        "Not stated in the passage.",
        "Not enough information.",
        "I don't have enough information to answer that.",
        "It cannot be determined from the context.",
        "The question is unanswerable.",
    ],
)
def test_a_refusal_is_right_without_a_reference(answer: str) -> None:
    """Declining scores 1 without references and 0 with one."""
    assert is_refusal(answer)
    assert RougeL().score(answer, []) == 1.0
    assert RougeL().score(answer, ["Tern"]) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "Tern",
        "The unknown soldier",
        "I don't know, perhaps Tern",
        "?",
        "no",
        "The passage does not say, but it is Tern",
        "The king did not say",
    ],
)
def test_an_answer_is_wrong_without_a_reference(answer: str) -> None:
    """Only the whole answer can decline."""
    assert not is_refusal(answer)
    assert RougeL().score(answer, []) == 0.0


def test_a_refusal_can_be_the_reference() -> None:
    """A dataset may spell the refusal out as its reference."""
    assert RougeL().score("Unanswerable.", ["unanswerable"]) == 1.0
