"""The command `demo`: its sample, its summary and its output."""

from __future__ import annotations

import io

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from rich.console import Console

from aspire_guard.errors import InputError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator, tiny_evaluator
from aspire_integrations.cli import demo
from aspire_integrations.demo import (
    DemoAnswer,
    DemoSummary,
    answer_question,
    make_chain,
    print_summary,
    run_demo,
    sample_questions,
)
from aspire_trainers.data.handbook import load_questions
from aspire_trainers.record import QARecord

QUESTIONS = [
    QARecord("1", "Who keeps the key?", "Ada keeps the key.", ("Ada",)),
    QARecord("2", "How many boats are there?", "Four boats.", ("four",)),
    QARecord("3", "Who built the boats?", "Four boats.", ()),
    QARecord("4", "When was it built?", "Four boats.", ()),
    QARecord("5", "What rings?", "Two bells ring.", ("two bells",)),
    QARecord("6", "How many bells ring?", "Two bells ring.", ("two",)),
]
ANSWERS = {
    "Who keeps the key?": ("Ada", 0.9),  # right, released
    "How many boats are there?": ("five", 0.2),  # wrong, withheld
    "Who built the boats?": ("Bob", 0.3),  # a question without answer, withheld
    "When was it built?": ("unanswerable", 0.8),  # declined, released
    "What rings?": ("[bold]a\nhorn", 0.75),  # wrong, released
    "How many bells ring?": ("two", 0.25),  # right, withheld
}


def make_guard() -> AspireGuard:
    def confidence(exchange: Exchange) -> float:
        return ANSWERS[exchange.question][1]

    def answer(question: str) -> AIMessage:
        return AIMessage(ANSWERS[question][0])

    chain = RunnableLambda(answer) | RunnablePassthrough()
    return AspireGuard(chain, evaluator=ConstantEvaluator(confidence))


def make_console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, highlight=False, width=40), text


def test_each_answer_is_judged_by_itself() -> None:
    """The answers that the guard withholds are judged too."""
    summary = run_demo(make_guard(), QUESTIONS, make_console()[0])
    assert summary.answers == (
        DemoAnswer(answerable=True, released=True, correct=True),
        DemoAnswer(answerable=True, released=False, correct=False),
        DemoAnswer(answerable=False, released=False, correct=False),
        DemoAnswer(answerable=False, released=True, correct=True),
        DemoAnswer(answerable=True, released=True, correct=False),
        DemoAnswer(answerable=True, released=False, correct=True),
    )


def test_the_summary_counts() -> None:
    """Three of six answers are right. Two of the three released answers are right, and one of the three withheld."""
    summary = run_demo(make_guard(), QUESTIONS, make_console()[0])
    assert summary.accuracy == 3 / 6
    assert summary.coverage == 3 / 6
    assert summary.selective_accuracy == 2 / 3
    assert len(summary.withheld) == 3
    assert len(summary.rightly_withheld) == 2


def test_a_question_without_answer_is_always_rightly_withheld() -> None:
    """It counts even if the model declined by itself. An answerable question counts only if the answer is wrong."""
    declined = DemoAnswer(answerable=False, released=False, correct=True)
    right = DemoAnswer(answerable=True, released=False, correct=True)
    assert DemoSummary((declined, right)).rightly_withheld == [declined]


def test_nothing_released_has_no_accuracy() -> None:
    """The accuracy is unknown, neither zero nor one."""
    summary = DemoSummary((DemoAnswer(answerable=True, released=False, correct=False),))
    assert summary.selective_accuracy is None
    assert summary.coverage == 0
    console, text = make_console()
    print_summary(summary, console)
    assert "accuracy of released answers      -  (0 of 0)" in text.getvalue()


def test_a_pipe_gets_a_line_a_fact() -> None:
    """Long facts are not wrapped, a withheld answer is marked in words, and a model's markup is shown unchanged."""
    console, text = make_console()
    print_summary(run_demo(make_guard(), QUESTIONS, console), console)
    lines = text.getvalue().splitlines()
    assert lines[:10] == [
        "   1/6  Who keeps the key?",
        "        answer    Ada",
        "        passage   (none found)",
        "        guard     released: confidence 0.900 reaches the threshold 0.500",
        "        in truth  right, the handbook says Ada",
        "",
        "   2/6  How many boats are there?",
        "        answer    five [withheld]",
        "        passage   (none found)",
        "        guard     withheld: confidence 0.200 is below the threshold 0.500",
    ]
    assert "        in truth  wrong, the handbook does not say" in lines
    assert "        answer    [bold]a horn" in lines
    assert lines[-5:] == [
        "The gain from the guard",
        "  accuracy of all answers       50.0%  (3 of 6)",
        "  accuracy of released answers  66.7%  (2 of 3)",
        "  coverage                      50.0%  (3 of 6 answers released)",
        "  rightly withheld             2 of 3: 1 wrong answers, 1 to questions that the handbook does not answer",
    ]


def test_a_terminal_shows_withheld_answers_struck_through() -> None:
    """Released answers are green."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, highlight=False, color_system="standard")
    run_demo(make_guard(), QUESTIONS[:2], console)
    assert "\x1b[32mAda\x1b[0m" in text.getvalue()
    assert "\x1b[9mfive\x1b[0m [withheld]" in text.getvalue()


def test_the_sample_is_fixed_and_spread() -> None:
    """24 questions from all 16 passages of the test split, five of them unanswerable, in the handbook's order."""
    sample = sample_questions(24)
    assert sample == sample_questions(24)
    assert len(sample) == 24
    assert len({question.context for question in sample}) == 16
    assert sum(not question.answerable for question in sample) == 5
    everything = load_questions("test")
    places = [everything.index(question) for question in sample]
    assert places == sorted(places)


@pytest.mark.parametrize(("limit", "unanswerable"), [(1, 0), (8, 2), (127, 28), (500, 28)])
def test_a_sample_of_any_size_keeps_the_share_of_unanswerable_questions(
    limit: int, unanswerable: int
) -> None:
    """28 of the 128 questions are unanswerable, and a sample is never larger than the split."""
    sample = sample_questions(limit)
    assert len({question.id for question in sample}) == min(limit, 128)
    assert sum(not question.answerable for question in sample) == unanswerable


def test_the_demos_chain_is_judged_on_the_retrieved_passage() -> None:
    """A real chain: retriever, prompt and chat model, whose own score the guard takes."""
    evaluator = tiny_evaluator(threshold=1.0)
    # The tiny model's tokens are bytes, and a passage has more bytes than its window. Rotary positions have no limit.
    evaluator.aspire.lm.model.config.max_position_embeddings = 2048
    guard = AspireGuard(make_chain(evaluator), evaluator=evaluator)
    guarded = answer_question(guard, "Which yard built MV Petrel?")
    [context] = {q.context for q in load_questions("test") if q.question == guarded.question}
    answer, score = evaluator.answer(guarded.question, context)
    assert guarded.answer == answer
    assert guarded.verdict.score == score
    assert guarded.verdict.timings.score is None
    assert not guarded.verdict.accepted
    assert guarded.passages == ("MV Petrel",)


def test_an_empty_question_is_refused() -> None:
    """The error comes before any model is loaded."""
    with pytest.raises(InputError, match="expected a question after --ask, found none"):
        demo(ask=" ")
