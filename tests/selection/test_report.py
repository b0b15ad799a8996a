"""The report: one file that needs nothing else, in which hostile answers are text and the numbers are right."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aspire_guard.cli.app import main
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
from aspire_guard.selection.report.figures import all_scores, clopper_pearson
from aspire_guard.selection.report.reliability_data import before_and_after
from aspire_guard.selection.report.tables import Realised, own_rows, realised
from aspire_guard.selection.risk_control.thresholds import choose_bands
from aspire_guard.selection.scored_answers import ScoredAnswers

DATE = "2026-11-23"
LINE = PlattCalibrator(slope=5.0, intercept=4.0)
SECTIONS = (
    "thresholds",
    "risk-coverage",
    "accuracy-coverage",
    "reliability",
    "scores",
    "cost",
    "examples",
    "provenance",
)
VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "</p><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>&amp;\"'{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page as a parser sees it: elements with their attributes, ids, and the text of each section."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.html = path.read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section = ""
        self.text: dict[str, str] = {}
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"] or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text[self.section] = self.text.get(self.section, "") + data

    def said(self, section: str) -> str:
        """The text of a section, every stretch of white space one blank."""
        return " ".join(self.text[section].split())


def answers(
    n: int = 1000, seed: int = 1, source: str = "scored.jsonl", **changed: Any
) -> ScoredAnswers:
    """Answers whose score tells well how likely they are right."""
    rng = np.random.default_rng(seed)
    score = -rng.exponential(0.8, n)
    values: dict[str, Any] = {
        "ids": tuple(f"{seed}-{i}" for i in range(n)),
        "selection_score": score,
        "correct": rng.random(n) < LINE.confidences(score),
    }
    return ScoredAnswers(source=source, **(values | changed))


def calibration(*thresholds: Threshold, **changed: Any) -> Calibration:
    values: dict[str, Any] = {"calibrator": LINE, "thresholds": thresholds, "n": 1000, "date": DATE}
    return Calibration(**(values | changed))


def at(confidence: float, **changed: Any) -> Threshold:
    return Threshold(confidence=confidence, objective="accuracy", target=0.9, **changed)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report on a thousand answers with baselines, tested on eight hundred with hostile texts."""
    scored, tested = answers(), answers(800, 2, f"{HOSTILE}.jsonl")
    scored = answers(
        baselines={
            "p_correct": np.tanh(scored.selection_score),
            "log_likelihood": scored.selection_score,
        }
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        scored,
        calibration(at(0.9)),
        path,
        date=DATE,
        test=tested,
        texts=lambda _, ids: {
            name: Texts(f"Why {name}? {HOSTILE}", f"\u202e\x00{HOSTILE}" + "x" * 300)
            for name in ids
        },
    )
    return Page(path)


def test_the_page_is_whole_and_has_every_section(page: Page) -> None:
    """Every element is closed in order, ids are unique, and each section has its heading; five hold a chart."""
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [a["id"] for tag, a in page.elements if tag == "section"] == list(SECTIONS)
    assert [tag for tag, _ in page.elements].count("svg") == 5
    assert "risk ≤ 5 % no threshold keeps wrong answers at 5 %" in page.said("thresholds")
    assert "perplexity (log_likelihood)" in page.said("accuracy-coverage")
    assert "P(correct) alone (p_correct)" in page.said("accuracy-coverage")
    assert "ECE 0." in page.said("reliability")


def test_the_page_needs_nothing_else(page: Page) -> None:
    """No script, no handler, and no reference but to the page's own ids; a policy forbids the rest."""
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for tag, attributes in page.elements:
        assert tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "image",
        }
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href"}:
                assert (value or "")[:1] == "#"
                assert (value or "")[1:] in ids
            for reference in re.findall(r"url\((.*?)\)", value or ""):
                assert reference[1:] in ids
    assert "@import" not in page.html
    assert "url(http" not in page.html
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_texts_are_shown_as_they_are(page: Page) -> None:
    """Markup in questions, answers and file names is text, and characters that hide or turn text are marked."""
    assert HOSTILE in page.text["examples"]
    assert f"\ufffd\ufffd{HOSTILE}" in page.text["examples"]
    assert HOSTILE in page.text[""]
    assert HOSTILE in page.text["provenance"]
    assert not re.search("[\x00\u202e]", page.html)


def test_colours_are_the_pages_own(page: Page) -> None:
    """No colour is left in the charts, so light and dark are the same drawing; all variables have a value."""
    charts = "".join(re.findall(r"<svg.*?</svg>", page.html, re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}\b(?!\))", charts) == []
    for variable in set(re.findall(r"var\((--\w+)\)", page.html)):
        assert page.html.count(f"{variable}: ") == 3  # light, dark, print


def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    """Charts have no width of their own, tables scroll in their own box, and no rule asks for many pixels."""
    for tag, attributes in page.elements:
        if tag == "svg":
            assert "width" not in attributes
            assert "viewBox".lower() in attributes
    assert page.html.count("<table>") == page.html.count('<div class="scroll">')
    assert (
        "meta",
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
    ) in page.elements
    style = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)[0]
    rules = re.sub(r"@media \(.*?\)", "", style)
    assert re.findall(r"(?<![-\w])(?:min-)?width: (?:\d{3,}px|[3-9]\d(?:\.\d+)?rem)", rules) == []
    assert "overflow-wrap: anywhere" in style


def test_the_realised_risk_is_that_of_the_test_answers(page: Page) -> None:
    """For each target with a threshold the page has the counts and the risk of the test answers above it."""
    scored, tested, said = answers(), answers(800, 2), page.said("thresholds")
    found = choose_bands(
        scored.selection_score,
        scored.correct,
        {f"{risk:g}": risk for risk in TARGET_RISKS},
        calibrator=LINE,
        date=DATE,
    )
    cuts = [cut.confidence for cut in found.values() if isinstance(cut, Threshold)]
    assert len(cuts) == 3
    expected = []
    for cut in [*cuts, 0.9]:  # the last is the evaluator's own
        released = LINE.confidences(tested.selection_score) >= cut
        m, wrong = int(released.sum()), int((released & ~tested.correct).sum())
        expected.append((str(m), f"{m / 8:.1f}", str(wrong), f"{100 * wrong / m:.2f}"))
    assert re.findall(r"(\d+) of 800 \(([\d.]+) %\) (\d+) \(([\d.]+) %\)", said) == expected


def test_realised_risk_by_hand() -> None:
    """Of five test answers a cut releases three, one of them wrong; the interval is that of one in three."""
    test = answers(
        5,
        ids=tuple("abcde"),
        selection_score=np.array([0.0, -0.1, -0.2, -3.0, -4.0]),
        correct=np.array([True, False, True, False, False]),
    )
    cut = at(LINE.confidence(-0.2))
    came_to = realised(cut, calibration(cut), test, np.ones(5, dtype=np.bool_))
    assert came_to is not None
    assert (came_to.n, came_to.released, came_to.wrong, came_to.risk, came_to.coverage) == (
        5,
        3,
        1,
        1 / 3,
        0.6,
    )
    assert came_to.low == pytest.approx(0.00840, abs=1e-5)
    assert came_to.high == pytest.approx(0.90570, abs=1e-5)
    assert came_to.verdict(0.4) == "kept"
    assert came_to.verdict(0.1) == "above, as chance allows"
    assert came_to.verdict(0.005) == "above"
    assert Realised(5, 0, 0, None, None).verdict(0.1) == "none released"


def test_the_band_is_the_exact_interval() -> None:
    """Clopper–Pearson: no wrong answer of ten gives [0, 1 − 0.025^(1/10)], and all wrong the mirror image."""
    low, high = clopper_pearson(np.array([0, 10]), np.array([10, 10]))
    edge = 1 - 0.025**0.1
    assert low == pytest.approx([0, 1 - edge])
    assert high == pytest.approx([edge, 1])


def test_a_group_is_judged_by_its_own_threshold() -> None:
    """A group's threshold is for its answers, and the one without a group for all groups that have none."""
    test = answers(
        4,
        selection_score=np.array([0.0, 0.0, 0.0, -9.0]),
        correct=np.array([True, False, False, True]),
        group=("a", "a", "b", "c"),
    )
    rows = own_rows(calibration(at(0.9, group="a"), at(0.9), at(1.0, group="d")), test)
    assert [(row.name, row.realised and row.realised[:3]) for row in rows] == [
        ("accept, group a", (2, 2, 1)),
        ("accept", (2, 1, 1)),
        ("accept, group d", (0, 0, 0)),
    ]
    assert rows[2].missing == "releases nothing: no threshold met the accuracy of 0.9"


def test_examples_are_the_highest_scored_of_their_kind() -> None:
    """The confident mistakes are wrong, the best rejected are right and not released; best first."""
    some = answers(
        5,
        selection_score=np.array([-1.0, -0.5, -2.0, -0.1, -3.0]),
        correct=np.array([0, 0, 1, 1, 1]) == 1,
    )
    assert find_worst_mistakes(some) == [1, 0]
    assert find_best_rejected(some, some.selection_score >= -0.5) == [2, 4]


def test_texts_are_read_by_id_and_cut_short(tmp_path: Path) -> None:
    """Only asked ids are kept, what is no text is left out, and a novel is not printed."""
    path = tmp_path / "scored.jsonl"
    lines = [
        {"id": "a", "question": "Q?", "answer": 7},
        {"id": 2, "answer": "x" * 1000},
        {"id": "c", "answer": "no"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_texts(path, ["a", "2"]) == {
        "a": Texts("Q?", None),
        "2": Texts(None, "x" * 400 + "… (1,000 characters)"),
    }


def test_confidences_are_of_answers_the_calibrator_has_not_seen() -> None:
    """On the answers it was fitted on it is cross-validated, on any others it is taken as it is."""
    scored, tested = answers(), answers(50, 2)
    before, after = before_and_after(scored, calibration(source="scored.jsonl"), None)
    assert before.origin == "the exponential of the selection score, a log-probability"
    assert np.array_equal(before.values, np.exp(scored.selection_score))
    assert after.origin == "platt, cross-validated in 5 folds"
    _, after = before_and_after(scored, calibration(source="other.jsonl"), None)
    assert np.array_equal(after.values, LINE.confidences(scored.selection_score))
    _, after = before_and_after(scored, calibration(), tested)
    assert np.array_equal(after.values, LINE.confidences(tested.selection_score))
    given = answers(confidence=np.full(1000, 0.25), selection_score=np.arange(1000.0))
    assert before_and_after(given, calibration(), None)[0].values.tolist() == [0.25] * 1000
    positive = answers(selection_score=np.arange(1000.0))
    assert [each.short for each in before_and_after(positive, calibration(), None)] == ["after"]


def test_baselines_are_those_that_every_line_has() -> None:
    """The selection score comes first; others where the lines carry them."""
    assert list(all_scores(answers())) == ["selection_score"]
    some = answers(3, baselines={"p_correct": np.zeros(3)})
    assert list(all_scores(some)) == ["selection_score", "p_correct"]


@pytest.mark.parametrize(
    "odd",
    [
        {"correct": np.ones(3, dtype=np.bool_)},
        {"correct": np.zeros(3, dtype=np.bool_), "selection_score": np.full(3, -1.0)},
        {"selection_score": np.array([5.0, 1e9, -1e9]), "cost": np.array([0.0, 0.0, 0.0])},
    ],
    ids=["only right", "only wrong and tied", "huge scores that cost nothing"],
)
def test_poor_answers_make_a_page_too(odd: dict[str, Any], tmp_path: Path) -> None:
    """Three answers of one kind, or all tied, end in a page that warns, not in an error."""
    path = write_report(
        answers(3, **odd), calibration(n=3, source="scored.jsonl"), tmp_path / "r.html", date=DATE
    )
    made = Page(path)
    assert "expected 100 labelled answers or more, found 3" in made.said("notes")
    assert made.said("thresholds").count("no threshold keeps") == len(TARGET_RISKS)


def test_equal_answers_make_equal_pages(tmp_path: Path) -> None:
    """Nothing on the page comes from the clock or from chance."""
    pages = [
        write_report(answers(200), calibration(), tmp_path / name, date=DATE) for name in ("a", "b")
    ]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_test_answers_must_be_others(tmp_path: Path) -> None:
    """Answers that thresholds were chosen on say nothing about them."""
    with pytest.raises(
        InputError,
        match=r"expected test answers that are not in scored\.jsonl, found 1,000 ids of it",
    ):
        write_report(answers(), calibration(), tmp_path / "r.html", date=DATE, test=answers())


def test_a_folder_is_no_place_for_a_page(tmp_path: Path) -> None:
    """What can't be written is one line, with the path."""
    with pytest.raises(
        InputError, match="expected a file to write, found: Is a directory; check the path"
    ):
        write_report(answers(50), calibration(), tmp_path, date=DATE)


def test_the_command_reads_the_texts_of_the_file_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`report` fits a calibrator where no evaluator is given, and shows the mistakes among the test answers."""
    for name, seed in (("scored", 1), ("test", 2)):
        some = answers(300, seed)
        rows = zip(some.ids, some.selection_score.tolist(), some.correct.tolist(), strict=True)
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(
                json.dumps(
                    {
                        "id": i,
                        "selection_score": s,
                        "correct": c,
                        "answer": f"the {name} answer {i}",
                    }
                )
                + "\n"
                for i, s, c in rows
            )
        )
    scored, tested, out = (
        str(tmp_path / name) for name in ("scored.jsonl", "test.jsonl", "report.html")
    )
    monkeypatch.setattr(
        "sys.argv", ["aspire-guard", "report", scored, "--test", tested, "--output", out]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    made = Page(Path(out))
    worst = answers(300, 2)
    best = worst.ids[int(np.argmax(np.where(worst.correct, -np.inf, worst.selection_score)))]
    assert f"the test answer {best}" in made.said("examples")
    assert "the scored answer" not in made.html
    assert "fitted on 300 answers of scored.jsonl" in made.said("provenance")
