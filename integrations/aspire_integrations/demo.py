"""The demo: a guarded LangChain chain answers questions over the handbook.

aspire-guard demo
aspire-guard demo --ask "How many cars can MV Petrel carry?"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnablePassthrough
from rich.console import Console
from rich.text import Text

from aspire_guard.exchange import read_answer
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.abstain import VERDICT_KEY
from aspire_guard.verdict import Verdict
from aspire_integrations.chat_model import AspireChatModel
from aspire_integrations.retriever import BM25Retriever, format_documents
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.handbook import load_passages, load_questions
from aspire_trainers.record import QARecord

if TYPE_CHECKING:
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator


@dataclass(frozen=True)
class GuardedAnswer:
    """A question, the chain's answer, and the guard's verdict.

    Attributes:
        question: the question.
        answer: the chain's answer, whether it was released or not. Only the demo looks behind the guard.
        passages: the titles of the passages that the chain retrieved.
        verdict: the guard's verdict on the answer.
    """

    question: str
    answer: str
    passages: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class DemoAnswer:
    """The result of a question of the sample.

    Attributes:
        answerable: whether the handbook answers the question.
        released: whether the guard released the answer.
        correct: whether the answer is right by Rouge-L, or declines to answer an unanswerable question.
    """

    answerable: bool
    released: bool
    correct: bool


@dataclass(frozen=True)
class DemoSummary:
    """The metrics of at least one answer."""

    answers: tuple[DemoAnswer, ...]

    @property
    def released(self) -> list[DemoAnswer]:
        """The answers that the guard released."""
        return [answer for answer in self.answers if answer.released]

    @property
    def withheld(self) -> list[DemoAnswer]:
        """The answers that the guard withheld."""
        return [answer for answer in self.answers if not answer.released]

    @property
    def rightly_withheld(self) -> list[DemoAnswer]:
        """The withheld answers that are wrong, or that belong to an unanswerable question."""
        return [answer for answer in self.withheld if not answer.correct or not answer.answerable]

    @property
    def accuracy(self) -> float:
        """The share of right answers among all answers, in [0, 1]."""
        return _count_correct(self.answers) / len(self.answers)

    @property
    def coverage(self) -> float:
        """The share of released answers, in [0, 1]."""
        return len(self.released) / len(self.answers)

    @property
    def selective_accuracy(self) -> float | None:
        """The share of right answers among the released ones, in [0, 1], or None if nothing was released."""
        if not self.released:
            return None
        return _count_correct(self.released) / len(self.released)


def make_console() -> Console:
    """Return a console for standard output that does not colour numbers."""
    return Console(highlight=False)


def load_evaluator(console: Console) -> SelfEvaluator:
    """Load the starter evaluator, and tell the user why it takes a while."""
    message = "Loading the language model; the first run prepares it, which takes about a minute …"
    if not console.is_terminal:
        console.print(message, soft_wrap=True)
    with console.status(message):
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return SelfEvaluator.starter()


def make_chain(evaluator: SelfEvaluator) -> Runnable[str, Any]:
    """Make the chain of the demo: a BM25 retriever, the trained prompt, and a chat model that scores its answer.

    The chain takes a question and returns an AIMessage.
    """
    retriever = BM25Retriever(load_documents())
    model = AspireChatModel(evaluator)
    inputs = {"context": retriever | format_documents, "question": RunnablePassthrough()}
    return inputs | model.prompt | model


def load_documents() -> list[Document]:
    """Load the passages of the handbook as documents, with their titles."""
    documents = []
    for passage in load_passages():
        metadata = {"title": passage.title, "section": passage.section}
        documents.append(Document(passage.text, metadata=metadata, id=passage.id))
    return documents


def sample_questions(limit: int) -> list[QARecord]:
    """Return at most `limit` questions of the test split, always the same, in the handbook's order.

    They are spread evenly over the split, and have its share of unanswerable questions.
    """
    questions = load_questions("test")
    answerable = [question for question in questions if question.answerable]
    unanswerable = [question for question in questions if not question.answerable]
    limit = min(limit, len(questions))
    unanswerable_count = round(limit * len(unanswerable) / len(questions))
    chosen = _choose_evenly(unanswerable, unanswerable_count)
    chosen += _choose_evenly(answerable, limit - unanswerable_count)
    chosen_ids = {question.id for question in chosen}
    return [question for question in questions if question.id in chosen_ids]


def answer_question(guard: AspireGuard, question: str) -> GuardedAnswer:
    """Ask the guard a question, and also record the answer of the chain inside it.

    Args:
        guard: a guard around a chain that takes a question and returns an AIMessage.
        question: the question.
    """
    recorder = _ChainRecorder()
    output = guard.invoke(question, {"callbacks": [recorder], "run_id": recorder.guard_run_id})
    verdict = Verdict.model_validate(output.response_metadata[VERDICT_KEY])
    return GuardedAnswer(question, recorder.answer, tuple(recorder.passages), verdict)


def run_demo(guard: AspireGuard, questions: Sequence[QARecord], console: Console) -> DemoSummary:
    """Ask each question, print each answer as it arrives, and summarise them.

    Args:
        guard: a guard around a chain that takes a question and returns an AIMessage.
        questions: at least one question.
        console: the console to print to.
    """
    correctness = RougeL()
    answers = []
    for number, record in enumerate(questions, start=1):
        guarded = answer_question(guard, record.question)
        (correct,) = correctness.grade([(record, guarded.answer)])
        print_answer(
            guarded, console, f"{number}/{len(questions)}", _describe_truth(correct, record)
        )
        answers.append(DemoAnswer(record.answerable, guarded.verdict.accepted, correct))
    return DemoSummary(tuple(answers))


def print_answer(
    guarded: GuardedAnswer, console: Console, number: str = "", truth: str = ""
) -> None:
    """Print a question, the chain's answer, and the guard's verdict.

    Args:
        guarded: the question with the answer and the verdict.
        console: the console to print to.
        number: a text in front of the question.
        truth: a sentence on the answer's correctness, if it is known.
    """
    text = " ".join(guarded.answer.split()) or "(nothing)"
    if guarded.verdict.accepted:
        effect = "released"
        answer = Text(text, style="green")
    else:
        effect = "withheld"
        # The mark in words is for files, and for terminals that can't show struck-through text.
        answer = Text.assemble((text, "strike"), " [withheld]")
    _print_line(console, f"{number:>6}  ", Text(guarded.question, style="bold"))
    _print_fact(console, "answer", answer)
    _print_fact(console, "passage", ", ".join(guarded.passages) or "(none found)")
    _print_fact(console, "guard", f"{effect}: {guarded.verdict.reason}")
    if truth:
        _print_fact(console, "in truth", truth)
    console.print()


def print_summary(summary: DemoSummary, console: Console) -> None:
    """Print the metrics of all answers and of the released answers."""
    total, released = len(summary.answers), len(summary.released)
    all_correct = _count_correct(summary.answers)
    released_correct = _count_correct(summary.released)
    withheld, rightly_withheld = len(summary.withheld), len(summary.rightly_withheld)
    unanswerable = sum(not answer.answerable for answer in summary.rightly_withheld)

    console.print(Text("The gain from the guard", style="bold"))
    _print_metric(console, "accuracy of all answers", summary.accuracy, f"{all_correct} of {total}")
    _print_metric(
        console,
        "accuracy of released answers",
        summary.selective_accuracy,
        f"{released_correct} of {released}",
    )
    _print_metric(console, "coverage", summary.coverage, f"{released} of {total} answers released")
    _print_line(
        console,
        f"  {'rightly withheld':<29}{rightly_withheld} of {withheld}: "
        f"{rightly_withheld - unanswerable} wrong answers, "
        f"{unanswerable} to questions that the handbook does not answer",
    )


class _ChainRecorder(BaseCallbackHandler):
    """A recorder of the chain's answer, which the guard may withhold, and of the retrieved passages.

    It sees the runs that any tracer sees: the chain's run is a child of the guard's run.
    """

    def __init__(self) -> None:
        self.guard_run_id = uuid4()
        self.answer = ""
        self.passages: list[str] = []

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        if parent_run_id == self.guard_run_id:
            self.answer = read_answer(outputs)

    def on_retriever_end(self, documents: Sequence[Document], **kwargs: Any) -> None:
        for document in documents:
            self.passages.append(str(document.metadata.get("title", "untitled")))


def _describe_truth(correct: bool, record: QARecord) -> str:
    """Say whether an answer is right, and what the handbook says."""
    judgement = "right" if correct else "wrong"
    if record.references:
        return f"{judgement}, the handbook says {record.references[0]}"
    return f"{judgement}, the handbook does not say"


def _print_fact(console: Console, name: str, value: str | Text) -> None:
    _print_line(console, f"        {name:<10}", value)


def _print_metric(console: Console, name: str, value: float | None, counts: str) -> None:
    percent = "     -" if value is None else f"{value:6.1%}"
    _print_line(console, f"  {name:<29}{percent}  ({counts})")


def _print_line(console: Console, *parts: str | Text) -> None:
    # Only the terminal wraps lines, so that a pipe gets each fact on one line.
    console.print(Text.assemble(*parts), soft_wrap=True)


def _choose_evenly(questions: Sequence[QARecord], count: int) -> list[QARecord]:
    """Return `count` questions at even distances, with half a distance before the first and after the last."""
    total = len(questions)
    return [questions[(2 * index + 1) * total // (2 * count)] for index in range(count)]


def _count_correct(answers: Sequence[DemoAnswer]) -> int:
    return sum(answer.correct for answer in answers)
