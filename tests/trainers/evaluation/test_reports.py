"""Reports: the answers come from decoding, the scores equal full forward passes, and the report is complete."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from aspire_guard.errors import InputError
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.selection.metrics import auacc, auroc
from aspire_guard.testing import Family, tiny_evaluator
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.sampled_answers import drop_repetitions
from aspire_trainers.evaluation.baselines import Suite
from aspire_trainers.evaluation.baselines.entailment import RougeEntailment
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.judging import (
    answer_and_judge,
    answer_records,
    check_answerable,
    grade_answers,
)
from aspire_trainers.evaluation.reports import (
    Report,
    UnanswerableReport,
    build_comparison,
    build_report,
    evaluate_pretrained,
    format_scored_lines,
)
from aspire_trainers.evaluation.score_reports import Cost, Estimate
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.answer_sampling import decode_records

CORRECTNESS = RougeL(0.7)
QUESTIONS = [
    QARecord(f"{i}-{j}", f"Which {j} of {i}?", f"Passage number {i}." if i else None, ("zebra",))
    for i in range(5)
    for j in range(2)
]


def _judge(evaluator: SelfEvaluator, records: list[QARecord]) -> list[JudgedAnswer]:
    judged = answer_and_judge(
        evaluator.aspire, records, num_beams=3, max_new_tokens=6, progress=Progress("test")
    )
    return grade_answers(judged, CORRECTNESS)


def _answer(evaluator: SelfEvaluator, records: list[QARecord], suite: Suite) -> list[JudgedAnswer]:
    return grade_answers(
        answer_records(evaluator, records, Progress("answering"), suite), CORRECTNESS
    )


def _evaluate(evaluator: SelfEvaluator, records: list[QARecord]) -> Report:
    return build_report(evaluator, _answer(evaluator, records, Suite.cheap()), Suite.cheap())


def _make_records(evaluator: SelfEvaluator) -> list[QARecord]:
    """Give every other question the model's own answer as its reference, which makes it right. The others are wrong."""
    judged = _judge(evaluator, QUESTIONS)
    return [
        replace(answer.record, references=(answer.text,)) if place % 2 else answer.record
        for place, answer in enumerate(judged)
    ]


@dataclass(frozen=True)
class Evaluated:
    """An evaluator, its graded answers to some records, and the report on them."""

    evaluator: SelfEvaluator
    records: list[QARecord]
    judged: list[JudgedAnswer]
    report: Report


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    """An evaluator that answers every other question rightly."""
    evaluator = tiny_evaluator(num_beams=3, max_new_tokens=6)
    records = _make_records(evaluator)
    judged = _answer(evaluator, records, Suite.cheap())
    return Evaluated(evaluator, records, judged, build_report(evaluator, judged, Suite.cheap()))


def test_answers_are_judged_as_their_texts_are(family: Family) -> None:
    """Each record gets the answer that it gets alone, and the likelihood and verdict of a reading of it."""
    evaluator = tiny_evaluator(family)
    judged = _judge(evaluator, QUESTIONS)
    assert [answer.record for answer in judged] == QUESTIONS
    for answer in judged:
        record = answer.record
        ((beams,), _) = decode_records(evaluator.aspire, [record], k=3, max_new_tokens=6)
        assert (answer.text, list(answer.beams)) == (beams[0].text, list(drop_repetitions(beams)))
        likelihood, log_p = evaluator.aspire.score([(record.question, record.context, answer.text)])
        assert answer.log_likelihood == pytest.approx(float(likelihood), abs=1e-4)
        assert answer.log_p_correct == pytest.approx(float(log_p), abs=1e-4)


def test_no_records_give_no_answers() -> None:
    """An empty dataset is not an error."""
    assert _judge(tiny_evaluator(), []) == []


def test_the_report_is_complete(evaluated: Evaluated) -> None:
    """It holds accuracy, coverage, selective accuracy, and for each of four scores three metrics with intervals."""
    report = evaluated.report.model_dump()
    accuracy = report["accuracy"]
    assert (report["n"], accuracy["value"]) == (10, 0.5)
    assert 0 < accuracy["low"] < 0.5 < accuracy["high"] < 1
    assert set(report) == {
        *("n", "accuracy", "coverage", "selective_accuracy", "wrong_withheld", "unanswerable"),
        *("answer_tokens", "scores", "pretrained"),
    }
    assert report["unanswerable"] is None
    assert set(report["scores"]) == {"aspire", "perplexity", "self_eval", "p_true"}
    for metrics in report["scores"].values():
        assert set(metrics) == {"auroc", "auacc", "aurc", "cost", "aspire_minus"}
        for estimate in (metrics["auroc"], metrics["auacc"], metrics["aurc"]):
            assert set(estimate) == {"value", "low", "high"}
            assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1


def test_the_report_ranks_the_same_answers_by_each_score() -> None:
    """The metrics equal the metrics of the scores computed one by one."""
    evaluator = tiny_evaluator(alpha=0.4, num_beams=3, max_new_tokens=6)
    records = _make_records(evaluator)
    judged = _judge(evaluator, records)
    correct = [answer.correct for answer in judged]
    scores = {
        "aspire": [0.6 * a.log_likelihood + 0.4 * a.log_p_correct for a in judged],
        "perplexity": [a.log_likelihood for a in judged],
    }
    report = _evaluate(evaluator, records)
    for name, values in scores.items():
        score, area = report.scores[name], auacc(values, correct)
        assert score.auroc is not None
        assert score.auroc.value == pytest.approx(auroc(values, correct), abs=1e-12)
        assert score.aurc.value == pytest.approx(1 - area, abs=1e-12)
        assert score.auacc.value == pytest.approx(area, abs=1e-12)
    confidence = [1 / (1 + math.exp(-(0.5 * g + 1.0))) for g in scores["aspire"]]
    released = [right for right, value in zip(correct, confidence, strict=True) if value >= 0.5]
    assert report.coverage == len(released) / 10
    assert report.selective_accuracy == (sum(released) / len(released) if released else None)


def test_at_alpha_zero_aspire_is_perplexity() -> None:
    """The two scores get the same figures to the last bit."""
    evaluator = tiny_evaluator(alpha=0.0, num_beams=3, max_new_tokens=6)
    scores = _evaluate(evaluator, _make_records(evaluator)).scores
    metrics = {"auroc", "auacc", "aurc"}
    aspire, perplexity = scores["aspire"], scores["perplexity"]
    assert aspire.model_dump(include=metrics) == perplexity.model_dump(include=metrics)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_answers_that_are_all_wrong_are_reported_and_not_ranked(threshold: float) -> None:
    """They have no AUROC and an AUACC of 0, and the threshold withholds all of them or releases all."""
    evaluator = tiny_evaluator(threshold=threshold, num_beams=3, max_new_tokens=6)
    records = [
        replace(answer.record, references=())
        for answer in _judge(evaluator, QUESTIONS)
        if answer.text
    ]
    assert len(records) == 8
    report = _evaluate(evaluator, records)
    assert (report.accuracy.value, report.coverage, report.wrong_withheld) == (
        0.0,
        1 - threshold,
        threshold,
    )
    assert report.selective_accuracy == (None if threshold else 0.0)
    assert report.unanswerable == UnanswerableReport(
        n=8, declined=0.0, withheld=threshold, released=1 - threshold
    )
    assert all(score.auroc is None for score in report.scores.values())
    assert all(
        score.auacc == Estimate(value=0.0, low=0.0, high=0.0) for score in report.scores.values()
    )
    difference = report.scores["perplexity"].aspire_minus
    assert difference is not None
    assert (difference.auroc, difference.auacc) == (None, Estimate(value=0.0, low=0.0, high=0.0))


def test_answers_that_are_all_right_are_reported_and_not_ranked(evaluated: Evaluated) -> None:
    """There is no wrong answer to withhold."""
    right = [answer for answer in evaluated.judged if answer.correct]
    report = build_report(evaluated.evaluator, right, Suite.cheap())
    assert (report.accuracy.value, report.wrong_withheld) == (1.0, None)
    assert all(score.auroc is None and score.auacc.value == 1.0 for score in report.scores.values())


def test_questions_without_a_reference_are_reported_apart() -> None:
    """Declining them is right, answering them is wrong, and both are counted separately."""
    evaluator = tiny_evaluator(threshold=0.5)
    without, with_one = QARecord("q1", "?"), QARecord("q2", "?", references=("Ada",))
    rows = [
        (without, "unanswerable"),
        (without, "Ada"),
        (without, "Bob"),
        (without, "Eve"),
        (with_one, "Ada"),
    ]
    grades = CORRECTNESS.grade(rows)
    assert grades == [True, False, False, False, True]
    judged = []
    for (record, text), is_right in zip(rows, grades, strict=True):
        likelihood = -9.0 if text == "Eve" else -0.1
        judged.append(JudgedAnswer(record, text, (text,), likelihood, -0.1, is_right))
    report = build_report(evaluator, judged)
    assert report.wrong_withheld == pytest.approx(1 / 3)
    assert report.unanswerable == UnanswerableReport(
        n=4, declined=0.25, withheld=0.25, released=0.5
    )
    assert all(score.auroc is not None for score in report.scores.values())


def test_each_score_has_its_cost_and_its_distance_from_aspire(evaluated: Evaluated) -> None:
    """θs takes 3 vectors, perplexity nothing, P(True) one pass that is longer than Self-eval's."""
    report = evaluated.report
    cost = {name: score.cost for name, score in report.scores.items()}
    assert cost["aspire"] == Cost(generations=0, forward_passes=1, tokens=3.0)
    assert cost["perplexity"] == Cost(generations=0, forward_passes=0, tokens=0.0)
    assert (cost["self_eval"].forward_passes, cost["p_true"].generations) == (1, 0)
    assert cost["p_true"].tokens > cost["self_eval"].tokens > 3.0
    aspire = report.scores["aspire"]
    assert aspire.aspire_minus is None
    assert aspire.auroc is not None
    for name in ("perplexity", "self_eval", "p_true"):
        score = report.scores[name]
        assert score.aspire_minus is not None
        assert score.auroc is not None
        assert score.aspire_minus.auroc is not None
        assert score.aspire_minus.auroc.value == pytest.approx(
            aspire.auroc.value - score.auroc.value, abs=1e-12
        )
        assert score.aspire_minus.aurc.value == pytest.approx(
            aspire.aurc.value - score.aurc.value, abs=1e-12
        )
        assert score.aspire_minus.accuracy == Estimate(value=0.0, low=0.0, high=0.0)


def test_an_answer_costs_its_prompt_and_every_beams_tokens() -> None:
    """The cost is the same as if it is asked alone: 4 vectors of θp, the prompt's bytes, and 3 beams."""
    evaluator = tiny_evaluator()
    for answer in _judge(evaluator, QUESTIONS):
        ((beams,), _) = decode_records(evaluator.aspire, [answer.record], k=3, max_new_tokens=6)
        prompt = evaluator.aspire.template.render(answer.record.question, answer.record.context)
        assert answer.tokens == 4 + len(prompt) + sum(beam.tokens for beam in beams)


def test_the_paper_s_table_has_two_blocks() -> None:
    """All five baselines score the answers under θp, as ASPIRE does, and the pre-trained model's own answers."""
    evaluator = tiny_evaluator(num_beams=2, max_new_tokens=4)
    suite = Suite.paper(RougeEntailment(), samples=3)
    records = _make_records(evaluator)[:4]
    judged = _answer(evaluator, records, suite)
    pretrained = evaluate_pretrained(evaluator, records, CORRECTNESS, suite, Progress("asking"))
    report = build_report(evaluator, judged, suite, pretrained)
    five = ["perplexity", "predictive_entropy", "semantic_entropy", "self_eval", "p_true"]
    assert list(report.scores) == ["aspire", *five]
    assert report.pretrained is not None
    assert list(report.pretrained.scores) == five
    for block in (report, report.pretrained):
        costs = {name: score.cost for name, score in block.scores.items()}
        assert [costs[name].generations for name in five] == [0, 3, 3, 0, 3]
        assert [costs[name].forward_passes for name in five] == [0, 0, 0, 1, 1]
        assert costs["predictive_entropy"] == costs["semantic_entropy"]
        assert costs["p_true"].tokens > costs["predictive_entropy"].tokens > 0
    assert report.pretrained.answer_tokens > report.answer_tokens


def test_an_evaluator_against_itself_is_no_better(evaluated: Evaluated) -> None:
    """Every difference is zero, without an interval. Another α ranks the same answers in another order."""
    evaluator, judged = evaluated.evaluator, evaluated.judged
    same = build_comparison((evaluator, judged), (evaluator, judged), "itself").difference
    nothing = Estimate(value=0.0, low=0.0, high=0.0)
    assert (same.accuracy, same.auroc, same.auacc, same.aurc) == (nothing,) * 4
    other = tiny_evaluator(alpha=1.0, num_beams=3, max_new_tokens=6)
    found = build_comparison((evaluator, judged), (other, judged), "judgement")
    assert found.scores["aspire"].auroc is not None
    assert found.difference.accuracy == nothing
    assert found.difference.auroc is not None
    ours = evaluated.report.scores["aspire"].auroc
    assert ours is not None
    assert found.difference.auroc.value == pytest.approx(
        ours.value - found.scores["aspire"].auroc.value, abs=1e-12
    )


def test_a_record_that_does_not_fit_is_named_before_any_is_answered() -> None:
    """The longest answer and θs must fit after the prompt, too."""
    evaluator = tiny_evaluator(num_beams=3, max_new_tokens=6)
    records = [
        *QUESTIONS,
        QARecord("long", "Who?", "zebra " * evaluator.aspire.lm.max_length, ("zebra",)),
    ]
    with pytest.raises(InputError, match="long: expected at most"):
        answer_records(evaluator, records, Progress("answering"))


def test_a_record_that_does_not_fit_after_the_examples_is_named_too() -> None:
    """It fits under θp, but the pre-trained model's examples take up to half of the window. Samples do not count."""
    evaluator = tiny_evaluator(num_beams=3, max_new_tokens=6)
    records = [*QUESTIONS, QARecord("long", "Who?", "zebra " * 50, ("zebra",))]
    suite = Suite.paper(RougeEntailment(), samples=100)
    check_answerable(evaluator, records, suite)
    with pytest.raises(InputError, match="long: expected at most"):
        check_answerable(evaluator, records, suite, pretrained=True)


def test_scored_lines_have_the_fields_of_the_score_command(evaluated: Evaluated) -> None:
    """Each line holds an answer, its label, its score, and the baselines' scores behind their rows of the table."""
    evaluator, judged = evaluated.evaluator, evaluated.judged
    ungraded = list(format_scored_lines(evaluator, judged, are_graded=False))
    lines = list(format_scored_lines(evaluator, judged))
    assert ungraded == [line | {"correct": None} for line in lines]
    assert [line["id"] for line in lines] == [record.id for record in evaluated.records]
    assert [line["answer"] for line in lines] == [answer.text for answer in judged]
    assert [line["correct"] for line in lines] == [False, True] * 5
    for line, answer in zip(lines, judged, strict=True):
        score = evaluator.blend(answer.log_likelihood, answer.log_p_correct).model_dump()
        assert {name: line[name] for name in score} == score
    rows = evaluated.report.scores
    assert list(lines[0]["baselines"]) == [name for name in rows if name != "aspire"]
    for name in lines[0]["baselines"]:
        estimate = rows[name].auroc
        assert estimate is not None
        assert (
            auroc([line["baselines"][name] for line in lines], [False, True] * 5) == estimate.value
        )
