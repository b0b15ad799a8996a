"""The report: one self-contained file, in which hostile answers stay text and the numbers are right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aspire_guard.errors import InputError
from aspire_guard.selection.calibration import Calibration, Threshold
from aspire_guard.selection.calibrators import PlattCalibrator
from aspire_guard.selection.report import TARGET_RISKS, write_report
from aspire_guard.selection.report.error_examples import (
    Texts,
    find_best_rejected,
    find_worst_mistakes,
    read_texts,
)
from aspire_guard.selection.report.figures import clopper_pearson, collect_scores
from aspire_guard.selection.report.reliability_data import compare_confidences
from aspire_guard.selection.report.tables import Outcome, make_evaluator_rows, measure_outcome
from aspire_guard.selection.report.weak_sentences import (
    AnswerPart,
    find_sentence_limit,
    split_answer,
)
from aspire_guard.selection.risk_control.thresholds import choose_bands
from aspire_guard.selection.scored_answers import ScoredAnswers
from aspire_guard.selection.scored_sentences import ScoredSentence

DATE = "2026-11-23"
CALIBRATOR = PlattCalibrator(slope=5.0, intercept=4.0)
SECTIONS = [
    "thresholds",
    "risk-coverage",
    "accuracy-coverage",
    "reliability",
    "scores",
    "cost",
    "examples",
    "provenance",
]
VOID_TAGS = {"meta", "br", "img", "link", "input", "hr"}
LOADING_TAGS = {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image"}
HOSTILE = "</p><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>&amp;\"'{{ 7 * 7 }}"
EVALUATOR = {"alpha": 0.25, "provenance": {"datasets": ["lighthouse"], "settings": {"seed": 7}}}


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and the text of each section."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.html = path.read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open_tags: list[str] = []
        self.section = ""
        self.text: dict[str, str] = {}
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"] or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] != "style":
            self.text[self.section] = self.text.get(self.section, "") + data

    def read_section(self, section: str) -> str:
        """Return the text of a section, with single blanks for all white space."""
        return " ".join(self.text[section].split())

    def find_attributes(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of this tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    def find_ids(self) -> list[str | None]:
        """Return all ids of the page, in order."""
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def make_answers(
    n: int = 1000, seed: int = 1, source: str = "scored.jsonl", **changes: Any
) -> ScoredAnswers:
    """Return answers that are right as often as `CALIBRATOR` says."""
    rng = np.random.default_rng(seed)
    score = -rng.exponential(0.8, n)
    values: dict[str, Any] = {
        "ids": tuple(f"{seed}-{i}" for i in range(n)),
        "selection_score": score,
        "correct": rng.random(n) < CALIBRATOR.confidences(score),
    }
    return ScoredAnswers(source=source, **(values | changes))


def make_calibration(*thresholds: Threshold, **changes: Any) -> Calibration:
    values: dict[str, Any] = {
        "calibrator": CALIBRATOR,
        "thresholds": thresholds,
        "n": 1000,
        "date": DATE,
    }
    return Calibration(**(values | changes))


def make_threshold(confidence: float, **changes: Any) -> Threshold:
    return Threshold(confidence=confidence, objective="accuracy", target=0.9, **changes)


def read_hostile_texts(ids: Sequence[str]) -> Mapping[str, Texts]:
    answer = f"\u202e\x00{HOSTILE}" + "x" * 300
    return {name: Texts(f"Why {name}? {HOSTILE}", answer) for name in ids}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report on a thousand answers with baselines, tested on eight hundred with hostile texts."""
    score = make_answers().selection_score
    scored = make_answers(baselines={"p_correct": np.tanh(score), "log_likelihood": score})
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        scored,
        make_calibration(make_threshold(0.9)),
        path,
        date=DATE,
        test=make_answers(800, 2, f"{HOSTILE}.jsonl"),
        evaluator=EVALUATOR,
        read_texts=read_hostile_texts,
    )
    return Page(path)


def test_the_page_is_whole_and_has_every_section(page: Page) -> None:
    """Every element is closed in order, ids are unique, and each section is there. Five sections hold a chart."""
    assert page.open_tags == []
    ids = page.find_ids()
    assert len(ids) == len(set(ids))
    assert [attributes["id"] for attributes in page.find_attributes("section")] == SECTIONS
    assert len(page.find_attributes("svg")) == 5
    assert "risk ≤ 5 % no threshold keeps wrong answers at 5 %" in page.read_section("thresholds")
    assert "perplexity (log_likelihood)" in page.read_section("accuracy-coverage")
    assert "P(correct) alone (p_correct)" in page.read_section("accuracy-coverage")
    assert "ECE 0." in page.read_section("reliability")


def test_the_page_shows_the_settings_of_the_evaluator(page: Page) -> None:
    """Each setting has a row: its path and its value."""
    provenance = page.read_section("provenance")
    assert "alpha0.25" in provenance
    assert "provenance › datasetslighthouse" in provenance
    assert "provenance › settings › seed7" in provenance


def test_the_page_needs_nothing_else(page: Page) -> None:
    """The page has no script, no handler, and references only its own ids. A policy forbids the rest."""
    ids = set(page.find_ids())
    for tag, attributes in page.elements:
        assert tag not in LOADING_TAGS
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href"}:
                assert (value or "")[:1] == "#"
                assert (value or "")[1:] in ids
            for reference in re.findall(r"url\((.*?)\)", value or ""):
                assert reference[1:] in ids
    assert "@import" not in page.html
    assert "url(http" not in page.html
    policies = [meta["content"] for meta in page.find_attributes("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_texts_are_shown_as_they_are(page: Page) -> None:
    """Markup in questions, answers and file names is text, and characters that hide or reverse text are marked."""
    assert HOSTILE in page.text["examples"]
    assert f"\ufffd\ufffd{HOSTILE}" in page.text["examples"]
    assert HOSTILE in page.text[""]
    assert HOSTILE in page.text["provenance"]
    assert not re.search("[\x00\u202e]", page.html)


def test_charts_use_the_colours_of_the_page(page: Page) -> None:
    """The charts name no colour of their own, and every variable has a value for light, dark and print."""
    charts = "".join(re.findall(r"<svg.*?</svg>", page.html, re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}\b(?!\))", charts) == []
    for variable in set(re.findall(r"var\((--\w+)\)", page.html)):
        assert page.html.count(f"{variable}: ") == 3


def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    """Charts have no width of their own, tables scroll in their own box, and no rule asks for many pixels."""
    for attributes in page.find_attributes("svg"):
        assert "width" not in attributes
        assert "viewbox" in attributes
    assert page.html.count("<table>") == page.html.count('<div class="scroll">')
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert viewport in page.find_attributes("meta")
    style = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)[0]
    rules = re.sub(r"@media \(.*?\)", "", style)
    assert re.findall(r"(?<![-\w])(?:min-)?width: (?:\d{3,}px|[3-9]\d(?:\.\d+)?rem)", rules) == []
    assert "overflow-wrap: anywhere" in style


def test_outcomes_are_counted_on_the_test_answers(page: Page) -> None:
    """Each row with a threshold has the counts and the risk of the test answers above it."""
    scored, test = make_answers(), make_answers(800, 2)
    bands = choose_bands(
        scored.selection_score,
        scored.correct,
        {f"{risk:g}": risk for risk in TARGET_RISKS},
        calibrator=CALIBRATOR,
        date=DATE,
    )
    thresholds = [band.confidence for band in bands.values() if isinstance(band, Threshold)]
    assert len(thresholds) == 3
    expected = []
    for threshold in [*thresholds, 0.9]:  # the last threshold is the evaluator's own
        released = CALIBRATOR.confidences(test.selection_score) >= threshold
        n, wrong = int(released.sum()), int((released & ~test.correct).sum())
        expected.append((str(n), f"{n / 8:.1f}", str(wrong), f"{100 * wrong / n:.2f}"))
    outcomes = re.findall(
        r"(\d+) of 800 \(([\d.]+) %\) (\d+) \(([\d.]+) %\)", page.read_section("thresholds")
    )
    assert outcomes == expected


def test_an_outcome_by_hand() -> None:
    """A threshold releases three of five test answers, one of them wrong, with the interval of one in three."""
    test = make_answers(
        5,
        ids=tuple("abcde"),
        selection_score=np.array([0.0, -0.1, -0.2, -3.0, -4.0]),
        correct=np.array([True, False, True, False, False]),
    )
    threshold = make_threshold(CALIBRATOR.confidence(-0.2))
    everyone = np.ones(5, dtype=np.bool_)
    outcome = measure_outcome(threshold, make_calibration(threshold), test, everyone)
    assert (outcome.n, outcome.released, outcome.wrong) == (5, 3, 1)
    assert (outcome.risk, outcome.coverage) == (1 / 3, 0.6)
    assert outcome.low == pytest.approx(0.00840, abs=1e-5)
    assert outcome.high == pytest.approx(0.90570, abs=1e-5)
    assert outcome.verdict(0.4) == "kept"
    assert outcome.verdict(0.1) == "above, as chance allows"
    assert outcome.verdict(0.005) == "above"
    assert Outcome(5, 0, 0, None, None).verdict(0.1) == "none released"


def test_the_band_is_the_exact_interval() -> None:
    """With no wrong answer of ten, Clopper–Pearson gives [0, 1 − 0.025^(1/10)], and mirrored if all are wrong."""
    low, high = clopper_pearson(np.array([0, 10]), np.array([10, 10]))
    edge = 1 - 0.025**0.1
    assert low == pytest.approx([0, 1 - edge])
    assert high == pytest.approx([edge, 1])


def test_a_group_is_judged_by_its_own_threshold() -> None:
    """A group's threshold applies to its answers, and the general threshold to all groups without their own."""
    test = make_answers(
        4,
        selection_score=np.array([0.0, 0.0, 0.0, -9.0]),
        correct=np.array([True, False, False, True]),
        group=("a", "a", "b", "c"),
    )
    calibration = make_calibration(
        make_threshold(0.9, group="a"), make_threshold(0.9), make_threshold(1.0, group="d")
    )
    rows = make_evaluator_rows(calibration, test)
    assert [(row.name, row.outcome and row.outcome[:3]) for row in rows] == [
        ("accept, group a", (2, 2, 1)),
        ("accept", (2, 1, 1)),
        ("accept, group d", (0, 0, 0)),
    ]
    assert rows[2].missing == "releases nothing: no threshold met the accuracy of 0.9"


def test_examples_are_the_highest_scored_of_their_kind() -> None:
    """The confident mistakes are wrong, and the best rejected answers are right and not released."""
    answers = make_answers(
        5,
        selection_score=np.array([-1.0, -0.5, -2.0, -0.1, -3.0]),
        correct=np.array([False, False, True, True, True]),
    )
    assert find_worst_mistakes(answers) == [1, 0]
    assert find_best_rejected(answers, answers.selection_score >= -0.5) == [2, 4]


def test_texts_are_read_by_id(tmp_path: Path) -> None:
    """Only the requested ids are read. A value that is not text becomes None, and sentences come along."""
    path = tmp_path / "scored.jsonl"
    sentence = {"start": 0, "end": 3, "confidence": 0.25}
    lines = [
        {"id": "a", "question": "Q?", "answer": 7},
        {"id": 2, "answer": "Ada.", "sentences": [sentence]},
        {"id": "c", "answer": "no"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_texts(path, ["a", "2"]) == {
        "a": Texts("Q?", None),
        "2": Texts(None, "Ada.", (ScoredSentence(0, 3, 0.25),)),
    }


SENTENCES = (ScoredSentence(0, 4, 0.9), ScoredSentence(5, 9, 0.2), ScoredSentence(10, 14, 0.4))


@pytest.mark.parametrize(
    ("answer", "limit", "parts"),
    [
        ("One. Two. Six.", 0.1, [("One. Two. Six.", None)]),
        ("One. Two. Six.", 0.4, [("One. ", None), ("Two.", 0.2), (" Six.", None)]),
        ("One. Two. Six.", 0.5, [("One. ", None), ("Two.", 0.2), (" ", None), ("Six.", 0.4)]),
        ("One. Two", 0.5, [("One. ", None), ("Two", 0.2)]),
        ("", 0.5, []),
    ],
    ids=["no weak sentence", "at the limit", "weak at the end", "cut in a sentence", "empty"],
)
def test_an_answer_is_split_at_its_weak_sentences(
    answer: str, limit: float, parts: list[tuple[str, float | None]]
) -> None:
    """Sentences below the limit are parts of their own, and all parts together are the answer."""
    found = split_answer(answer, SENTENCES, limit)
    assert found == [AnswerPart(*part) for part in parts]
    assert "".join(part.text for part in found) == answer


def test_the_limit_of_sentences_is_on_the_scale_of_the_lines() -> None:
    """The selection scores lead from the threshold to the confidences that the evaluator gave when it scored."""
    answers = make_answers(
        3,
        selection_score=np.array([0.0, -2.0, -1.0]),
        correct=np.array([True, False, True]),
        confidence=np.array([0.6, 0.2, 0.3]),
    )
    without = make_answers(3)
    assert find_sentence_limit(make_threshold(0.9, selection_score=-1.0), answers) == 0.3
    between = make_threshold(0.9, selection_score=-0.5)
    assert find_sentence_limit(between, answers) == pytest.approx(0.45)
    assert find_sentence_limit(between, without) == 0.9
    assert find_sentence_limit(make_threshold(0.9), answers) == 0.9
    assert find_sentence_limit(make_threshold(0.0, selection_score=-2.0), answers) == 0.0
    assert find_sentence_limit(make_threshold(1.0), answers) == 0.5
    assert find_sentence_limit(None, answers) == 0.5


def write_mistake(folder: Path, texts: Texts, *thresholds: Threshold, **changes: Any) -> Page:
    """Write a report whose only wrong answer has these texts."""
    answers = make_answers(4, correct=np.array([True, True, False, True]), **changes)
    calibration = make_calibration(*thresholds)
    write_report(
        answers,
        calibration,
        folder / "report.html",
        date=DATE,
        read_texts=lambda ids: {answers.ids[2]: texts},
    )
    return Page(folder / "report.html")


def test_weak_sentences_are_marked(tmp_path: Path) -> None:
    """A sentence below the threshold is marked, its confidence is text and title, and markup in it stays text."""
    answer = f"Sure. {HOSTILE} Why not?"
    start, end = 6, 6 + len(HOSTILE)
    sentences = (ScoredSentence(0, 5, 0.9), ScoredSentence(start, end, 0.123456))
    page = write_mistake(tmp_path, Texts("Q?", answer, sentences), make_threshold(0.8))
    assert page.open_tags == []
    assert page.find_attributes("mark") == [{"title": "confidence 0.1235, below 0.8000"}]
    assert not {tag for tag, _ in page.elements} & LOADING_TAGS
    assert f"Sure. {HOSTILE} (confidence 0.12)  Why not?" in page.text["examples"]
    assert "or below 0.5 if the threshold releases nothing" in page.read_section("examples")


def test_each_group_marks_sentences_below_its_own_threshold(tmp_path: Path) -> None:
    """The threshold of a group decides which sentences of its answers are weak."""
    texts = Texts(None, "One. Two.", (ScoredSentence(0, 4, 0.7), ScoredSentence(5, 9, 0.3)))
    strict, lax = make_threshold(0.8), make_threshold(0.5, group="lax")
    groups = ("strict", "lax", "lax", "lax")
    page = write_mistake(tmp_path, texts, strict, lax, group=groups)
    assert page.find_attributes("mark") == [{"title": "confidence 0.3000, below 0.5000"}]


def test_answers_without_sentences_have_no_marks(page: Page) -> None:
    """The page on answers without sentences neither marks nor explains them, and tells of no domain."""
    assert page.find_attributes("mark") == []
    assert "The confidence of underlined sentences" not in page.text["examples"]
    assert "out of domain" not in page.html


def test_a_long_answer_says_what_it_leaves_out(tmp_path: Path) -> None:
    """An answer is cut after a thousand characters, and the weak sentences beyond are counted."""
    sentences = (ScoredSentence(990, 1010, 0.1), ScoredSentence(1010, 1200, 0.2))
    page = write_mistake(tmp_path, Texts("Q?", "y" * 1200, sentences), make_threshold(0.8))
    shown = page.read_section("examples")
    assert "y" * 1000 in shown
    assert "y" * 1001 not in shown
    assert "… (1,200 characters, 1 more to underline)" in shown


def test_answers_out_of_domain_are_counted(tmp_path: Path) -> None:
    """Their share is among the figures, and each is named where it is shown."""
    is_outside = np.array([False, True, True, False])
    page = write_mistake(tmp_path, Texts("Q?", "Ada."), out_of_domain=is_outside)
    assert "out of domain50.0 % (2)" in page.read_section("")
    assert "A guard withholds them by default" in page.read_section("")
    assert page.read_section("examples").count("out of domain") == 2


def test_a_calibrator_is_cross_validated_only_on_the_answers_it_was_fitted_on() -> None:
    """On the answers it was fitted on it is cross-validated, on all others it is applied directly."""
    scored, test = make_answers(), make_answers(50, 2)
    before, after = compare_confidences(scored, make_calibration(source="scored.jsonl"), None)
    assert before.origin == "the exponential of the selection score, a log-probability"
    assert np.array_equal(before.values, np.exp(scored.selection_score))
    assert after.origin == "platt, cross-validated in 5 folds"
    _, after = compare_confidences(scored, make_calibration(source="other.jsonl"), None)
    assert np.array_equal(after.values, CALIBRATOR.confidences(scored.selection_score))
    _, after = compare_confidences(scored, make_calibration(), test)
    assert np.array_equal(after.values, CALIBRATOR.confidences(test.selection_score))


def test_confidences_before_calibration_are_those_in_the_lines() -> None:
    """Without confidences in the lines, a positive score implies none, so only those after calibration remain."""
    given = make_answers(confidence=np.full(1000, 0.25), selection_score=np.arange(1000.0))
    before, _ = compare_confidences(given, make_calibration(), None)
    assert before.values.tolist() == [0.25] * 1000
    positive = make_answers(selection_score=np.arange(1000.0))
    (after,) = compare_confidences(positive, make_calibration(), None)
    assert after.name == "after"


def test_baselines_are_those_that_every_line_has() -> None:
    """The selection score comes first, and the baselines follow if the lines have them."""
    assert list(collect_scores(make_answers())) == ["selection_score"]
    answers = make_answers(3, baselines={"p_correct": np.zeros(3)})
    assert list(collect_scores(answers)) == ["selection_score", "p_correct"]


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": np.ones(3, dtype=np.bool_)},
        {"correct": np.zeros(3, dtype=np.bool_), "selection_score": np.full(3, -1.0)},
        {"selection_score": np.array([5.0, 1e9, -1e9]), "cost": np.array([0.0, 0.0, 0.0])},
    ],
    ids=["only right", "only wrong and tied", "huge scores that cost nothing"],
)
def test_poor_answers_make_a_page_too(changes: dict[str, Any], tmp_path: Path) -> None:
    """Three answers of one kind, or all tied, end in a page that warns, not in an error."""
    calibration = make_calibration(n=3, source="scored.jsonl")
    path = write_report(make_answers(3, **changes), calibration, tmp_path / "r.html", date=DATE)
    page = Page(path)
    assert "expected 100 labelled answers or more, found 3" in page.read_section("notes")
    assert page.read_section("thresholds").count("no threshold keeps") == len(TARGET_RISKS)


def test_equal_answers_make_equal_pages(tmp_path: Path) -> None:
    """Nothing on the page comes from the clock or from chance."""
    answers, calibration = make_answers(50), make_calibration()
    first = write_report(answers, calibration, tmp_path / "first", date=DATE)
    second = write_report(answers, calibration, tmp_path / "second", date=DATE)
    assert first.read_bytes() == second.read_bytes()


def test_test_answers_must_be_others(tmp_path: Path) -> None:
    """Answers that thresholds were chosen on can't test these thresholds."""
    answers, output = make_answers(), tmp_path / "r.html"
    expected = r"expected test answers that are not in scored\.jsonl, found 1,000 ids of it"
    with pytest.raises(InputError, match=expected):
        write_report(answers, make_calibration(), output, date=DATE, test=answers)


def test_a_page_can_t_replace_a_folder(tmp_path: Path) -> None:
    """A path that can't be written is an error with the reason."""
    expected = "expected a file to write, found: Is a directory; check the path"
    with pytest.raises(InputError, match=expected):
        write_report(make_answers(10), make_calibration(), tmp_path, date=DATE)


def write_scored_lines(path: Path, answers: ScoredAnswers) -> None:
    scores, labels = answers.selection_score.tolist(), answers.correct.tolist()
    with path.open("w") as stream:
        for name, score, correct in zip(answers.ids, scores, labels, strict=True):
            line = {"id": name, "selection_score": score, "correct": correct}
            line["answer"] = f"the {path.stem} answer {name}"
            stream.write(json.dumps(line) + "\n")


def test_the_command_reads_the_texts_of_the_test_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Callable[..., int]
) -> None:
    """`report` fits a calibrator if no evaluator is given, and shows the mistakes among the test answers."""
    monkeypatch.chdir(tmp_path)
    test = make_answers(300, 2)
    write_scored_lines(Path("scored.jsonl"), make_answers(300, 1))
    write_scored_lines(Path("test.jsonl"), test)
    arguments = ["report", "scored.jsonl", "--test", "test.jsonl", "--output", "report.html"]
    assert run_command(*arguments) == 0
    page = Page(Path("report.html"))
    worst = np.argmax(np.where(test.correct, -np.inf, test.selection_score))
    assert f"the test answer {test.ids[worst]}" in page.read_section("examples")
    assert "the scored answer" not in page.html
    assert "fitted on 300 answers of scored.jsonl" in page.read_section("provenance")
