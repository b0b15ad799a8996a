"""`aspire-guard fit`: from rated answers to an evaluator that the guard loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard import AspireGuard, Exchange, SelfEvaluator
from aspire_guard.evaluators.evaluator_folder import read_manifest, save_refusal_probe
from aspire_guard.evaluators.refusal_probe import RefusalProbe
from aspire_guard.testing import ScriptedChatModel

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

NAMES = ["Ada", "Bob", "Eve", "Ida", "Kai", "Leo", "Mia", "Ned"]
CONTEXT = "Ada keeps key 7 in the red box."
RIGHT = "Ada keeps it in the red box."


@pytest.fixture(autouse=True)
def _here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_tiny_evaluator: Callable[..., Path]
) -> None:
    """Work in a folder with an evaluator, right answers out of a context, and wrong ones out of nowhere."""
    save_tiny_evaluator(tmp_path)
    lines: list[str] = []
    for number in range(48):
        name = NAMES[number % len(NAMES)]
        context = f"{name} keeps key {number} in the red box."
        for correct in (True, False):
            answer = (
                f"**{name}** keeps it in the red box [1]." if correct else "Zoe sold all of it."
            )
            line = {"question": "Who?", "context": context, "answer": answer, "correct": correct}
            lines.append(json.dumps(line) + "\n")
    (tmp_path / "rated.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "few.jsonl").write_text("".join(lines[:20]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fitted(run_command: Run) -> SelfEvaluator:
    options = ("--evaluator", "evaluator", "--output", "fitted", "--signals", "signals.jsonl")
    assert run_command("fit", "rated.jsonl", *options) == 0
    return SelfEvaluator.from_pretrained("fitted")


def make_exchange(answer: str) -> Exchange:
    return Exchange(question="Who?", context=CONTEXT, answer=answer)


def test_the_fitted_evaluator_says_which_sentence_is_not_supported(fitted: SelfEvaluator) -> None:
    """A grounded answer is released in any dress, and every sentence of a mixed one has a confidence of its own."""
    bare, dressed, mixed = fitted.score(
        [
            make_exchange(RIGHT),
            make_exchange(f"Sure!\n\n- {RIGHT} [1]"),
            make_exchange("Ada keeps it. Zoe sold all."),
        ]
    )
    assert bare.confidence >= fitted.threshold
    assert dressed.confidence == pytest.approx(bare.confidence, abs=1e-4)
    assert [each.confidence >= fitted.threshold for each in mixed.sentences] == [True, False]
    assert [(each.start, each.end) for each in mixed.sentences] == [(0, 13), (14, 27)]
    assert set(bare.signals) == {
        *("log_likelihood", "log_p_correct", "claims_correct", "support", "explained", "lead"),
        "aspire",
    }


def test_the_growing_answer_scores_as_the_finished_one(fitted: SelfEvaluator) -> None:
    """Sentence release decides by the same numbers."""
    extend = fitted.score_incrementally("Who?", CONTEXT)
    extend("Ada keeps it.")
    found = extend(" Zoe sold all.")
    (expected,) = fitted.score([make_exchange("Ada keeps it. Zoe sold all.")])
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-4)
    assert found.signals == pytest.approx(expected.signals, abs=1e-3)
    assert len(found.sentences) == 2


def test_an_answer_of_its_own_model_is_read_again(fitted: SelfEvaluator) -> None:
    """It has the score that `score` gives it."""
    answer, score = fitted.answer("Who?", CONTEXT)
    (expected,) = fitted.score([make_exchange(answer)])
    assert score.confidence == pytest.approx(expected.confidence, abs=1e-4)


def test_padding_buys_nothing(fitted: SelfEvaluator) -> None:
    """Neither repetition nor the whole passage raises the confidence in a wrong answer, and mere noise is flagged."""
    wrong = "Zoe sold all of it."
    padded = [wrong * 9, f"{wrong} {CONTEXT}", f"{CONTEXT} {CONTEXT} {wrong}", f"{wrong} [1] [2]"]
    scores = fitted.score([make_exchange(answer) for answer in (wrong, *padded, "word " * 40)])
    assert all(score.confidence <= scores[0].confidence + 1e-4 for score in scores[1:-1])
    assert scores[-1].out_of_domain


def test_a_context_beyond_the_window_is_read_in_parts(fitted: SelfEvaluator) -> None:
    """The right answer keeps its confidence among passages that have nothing to do with it."""
    filler = "Nothing to see here, go on reading, please. " * 4
    long = "\n\n".join([filler] * 9 + [CONTEXT] + [filler] * 9)
    (score,) = fitted.score([Exchange(question="Who?", context=long, answer=RIGHT)])
    (alone,) = fitted.score([make_exchange(RIGHT)])
    assert score.signals["support"] == alone.signals["support"]
    extend = fitted.score_incrementally("Who?", long)
    extend(RIGHT[:8])
    assert extend(RIGHT[8:]) == score
    twice = fitted.score([Exchange(question="Who?", context=long, answer=RIGHT)] * 2)
    assert [each.confidence for each in twice] == pytest.approx([score.confidence] * 2, abs=1e-4)


def test_the_guard_loads_it(fitted: SelfEvaluator) -> None:
    """Through a real chain: the grounded answer leaves, and the other one does not."""
    for answer, released in ((RIGHT, True), ("Zoe sold all of it.", False)):
        chain = ScriptedChatModel(answer)
        guard = AspireGuard(chain, evaluator=fitted, context=lambda input, output: CONTEXT)
        verdict = guard.judge("Who?")
        assert verdict.released is released
        assert verdict.score is not None
        assert len(verdict.score.sentences) == 1


def test_the_signals_are_kept(fitted: SelfEvaluator, run_command: Run) -> None:
    """Another run reads them from the file, and fits the same rule."""
    before = Path("signals.jsonl").read_bytes()
    options = ("--evaluator", "evaluator", "--output", "again", "--signals", "signals.jsonl")
    assert run_command("fit", "rated.jsonl", *options) == 0
    assert Path("signals.jsonl").read_bytes() == before
    assert read_manifest(Path("again")).rule == fitted.manifest.rule


def test_a_probe_for_refusals_is_passed_on(fitted: SelfEvaluator, run_command: Run) -> None:
    """It belongs to the model and θp, which stay. Each score then says how likely the answer declines."""
    layers = len(fitted.read([make_exchange(RIGHT)])[0].values)
    width = len(fitted.read([make_exchange(RIGHT)])[0].values[0])
    probe = RefusalProbe(weights={layers - 1: (0.5,) * width}, intercept=-0.25)
    assert fitted.score([make_exchange(RIGHT)])[0].declined is None
    save_refusal_probe(Path("evaluator"), probe)
    assert run_command("fit", "rated.jsonl", "--evaluator", "evaluator", "--output", "again") == 0
    again = SelfEvaluator.from_pretrained("again")
    assert again.manifest.refusal == probe
    texts = [RIGHT, "I don't know. Ask them.", ""]
    scores = again.score([make_exchange(text) for text in texts])
    expected = [probe.measure(reading.values) for reading in again.read(map_exchanges(texts))]
    assert [score.declined for score in scores] == pytest.approx(expected, abs=1e-6)
    assert expected[2] is None
    extend = again.score_incrementally("Who?", CONTEXT)
    extend(texts[1][:13])
    assert extend(texts[1][13:]).declined == pytest.approx(expected[1], abs=1e-4)


def map_exchanges(texts: list[str]) -> list[Exchange]:
    """Make exchanges without a context, whose values are the same."""
    return [Exchange(question="Who?", answer=text) for text in texts]


def test_the_card_explains_the_score(fitted: SelfEvaluator) -> None:
    """It names each signal with its weight, and the held-out results."""
    card = Path("fitted/README.md").read_text(encoding="utf-8")
    assert "| selection score, over context |" in card
    assert "· support" in card
    assert "| rated | 96 | 50.0" in card
    assert fitted.manifest.rule is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["few.jsonl"], "expected at least 20 right and as many wrong answers of a kind"),
        (["rated.jsonl", "rated.jsonl"], "expected files of different names, found rated twice"),
        (
            ["rated.jsonl", "--calibrate-on", "other"],
            "expected the files to calibrate on to be among",
        ),
        (["missing.jsonl"], "missing.jsonl"),
    ],
)
def test_bad_input_is_one_line(
    run_command: Run, capsys: Captured, arguments: list[str], message: str
) -> None:
    """Nothing is written."""
    assert run_command("fit", *arguments, "--evaluator", "evaluator", "--output", "fitted") == 2
    assert message in capsys.readouterr().err
    assert not Path("fitted").exists()
