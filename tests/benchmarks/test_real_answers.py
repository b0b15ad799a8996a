"""The scores of answers of language models, by an evaluator and by its model, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import real_answers
import torch
from given_answers import Scores
from real_answers import (
    ScoreFile,
    ask_model,
    main,
    read_files,
    score_answers,
    score_by_evaluator,
    score_or_skip,
    split_by_passage,
)

from aspire_guard import SelfEvaluator
from aspire_guard.errors import InputError
from aspire_guard.exchange import Exchange
from aspire_guard.testing import ConstantEvaluator, tiny_evaluator
from aspire_trainers.data.rated_answers import RatedAnswer
from aspire_trainers.evaluation.baselines import SelfEval, Suite
from aspire_trainers.evaluation.prompting import AdaptedPrompting
from aspire_trainers.record import QARecord

TOO_LONG = "word " * 200


@pytest.fixture(scope="module")
def evaluator() -> SelfEvaluator:
    return tiny_evaluator()


def make_answer(
    name: str, answer: str, *, correct: bool = True, context: str | None = "A passage."
) -> RatedAnswer:
    exchange = Exchange(question="Which?", context=context, answer=answer)
    return RatedAnswer("some", name, exchange, correct, "a-model", "group")


def test_an_answer_that_does_not_fit_the_window_has_no_scores(evaluator: SelfEvaluator) -> None:
    """The other answers of its passage have the scores that the evaluator gives them alone."""
    answers = [make_answer("1", "Ada"), make_answer("2", TOO_LONG), make_answer("3", "Bob")]
    first, second, third = score_or_skip(partial(score_by_evaluator, evaluator), answers)
    assert second == {}
    for scores, answer in ((first, answers[0]), (third, answers[2])):
        (alone,) = evaluator.score([answer.exchange])
        assert scores["confidence"] == pytest.approx(alone.confidence, abs=1e-5)
        assert set(scores) == {"selection_score", "confidence", "log_likelihood", "p_correct"}


def test_scores_that_an_evaluator_does_not_have_are_left_out() -> None:
    """An evaluator may have a confidence alone."""
    (scores,) = score_by_evaluator(ConstantEvaluator(1.0), [make_answer("1", "Ada")])
    assert scores == {"selection_score": 0.0, "confidence": 1.0}


def test_the_model_is_asked_as_in_the_baseline(evaluator: SelfEvaluator) -> None:
    """An answer of the evaluator itself gets the score of the baseline, beside any other answers."""
    with torch.inference_mode():
        (batch,) = Suite((SelfEval(),)).answer_in_batches(
            AdaptedPrompting(evaluator.aspire),
            [QARecord("1", "Which?", "A passage.")],
            num_beams=3,
            max_new_tokens=8,
        )
        (expected,) = SelfEval().score(batch)
    own = make_answer("1", batch.decoded.texts[0])
    scores = ask_model(evaluator, [make_answer("2", "Another answer"), own])
    assert scores[1] == {"log_p_true": pytest.approx(expected.score, abs=1e-4)}
    assert scores[0] != scores[1]


def test_answers_about_one_passage_are_put_together() -> None:
    """Answers of a group with another context are apart."""
    first, second = make_answer("1", "Ada"), make_answer("2", "Ada", context=None)
    third = make_answer("3", "Bob")
    assert split_by_passage([first, second, third]) == [[first, third], [second]]


def test_a_second_run_scores_only_what_the_file_lacks(tmp_path: Path) -> None:
    """It scores new answers and new kinds of scores, and finds all others in the file, also of answers too long."""
    path = tmp_path / "scores.jsonl"
    calls: list[tuple[str, list[str]]] = []

    def score(kind: str, answers: Sequence[RatedAnswer]) -> list[Scores]:
        calls.append((kind, [answer.id for answer in answers]))
        return [{} if answer.id == "2" else {kind: 0.5} for answer in answers]

    answers = [make_answer(name, "Ada Bob") for name in "123"]
    first = {"confidence": partial(score, "confidence")}
    score_answers(answers[:2], first, ScoreFile(path, "an evaluator"))
    both = {**first, "log_p_true": partial(score, "log_p_true")}
    scored = score_answers(answers, both, ScoreFile(path, "an evaluator"))
    assert calls == [
        ("confidence", ["1", "2"]),
        ("confidence", ["3"]),
        ("log_p_true", ["1", "2", "3"]),
    ]
    assert [answer.fits for answer in scored] == [True, False, True]
    texts = {"negative_length": -2.0, "word_overlap": 0.0}
    assert scored[0].scores == {"confidence": 0.5, "log_p_true": 0.5, **texts}
    assert scored[1].scores == texts


def test_the_scores_of_another_evaluator_are_not_read(tmp_path: Path) -> None:
    """Scores of different evaluators must not be mixed."""
    path = tmp_path / "scores.jsonl"
    scorers = {"evaluator": partial(score_by_evaluator, ConstantEvaluator(0.5))}
    score_answers([make_answer("1", "Ada")], scorers, ScoreFile(path, "an evaluator"))
    with pytest.raises(InputError, match="expected scores of this evaluator, found those of anoth"):
        ScoreFile(path, "another evaluator")


def write_data(path: Path) -> Path:
    lines = []
    for number in range(20):
        line = {
            "question": "Which?",
            "context": "A passage." if number else None,
            "answer": f"Answer {number}" if number < 19 else TOO_LONG,
            "correct": number % 2 == 0,
            "model": "a-model",
            "group": f"g{number // 4}",
        }
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their tables could not be told apart."""
    (tmp_path / "other").mkdir()
    paths = [write_data(tmp_path / "a.jsonl"), write_data(tmp_path / "other" / "a.jsonl")]
    with pytest.raises(InputError, match="expected files of different names, found a twice"):
        read_files(paths, None)


def test_the_benchmark_prints_its_tables(
    evaluator: SelfEvaluator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two files make two reports and a common one, as Markdown and as JSON of the same scores."""
    monkeypatch.setattr(real_answers, "load_evaluator", lambda folder: evaluator)
    files = [str(write_data(tmp_path / name)) for name in ("a.jsonl", "b.jsonl")]
    scores = tmp_path / "scores.jsonl"
    options = ["real_answers.py", "--data", *files, "--p-true", "--scores", str(scores)]
    monkeypatch.setattr("sys.argv", options)
    main()
    page = capsys.readouterr().out
    assert "| a | 19 | 5 | 1 | 1 | 52.6 |" in page
    assert "| All files | 38 | 10 | 2 | 2 | 52.6 |" in page
    assert page.count("\n| P(True) | 19 |") == 2
    assert page.count("\n| word overlap | 18 |") == 2
    assert len(scores.read_text("utf-8").splitlines()) == 2 * 2 * 20

    monkeypatch.setattr("sys.argv", [*options, "--json"])
    main()
    reports = json.loads(capsys.readouterr().out)
    assert [report["name"] for report in reports] == ["a", "b", "All files"]
    assert [report["too_long"] for report in reports] == [1, 1, 2]
