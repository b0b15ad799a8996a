"""The demo: questions over the handbook through a guarded LangChain chain, and what the guard bought.

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

_INDENT = "        "


@dataclass(frozen=True)
class GuardedAnswer:
    """One question on its way through the guard.

    Attributes:
        question: what was asked.
        answer: what the chain answered, released or not; the demo alone looks behind the guard.
        passages: titles of the passages that it was answered from.
        verdict: what the guard decided.
    """

    question: str
    answer: str
    passages: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class DemoAnswer:
    """A guarded answer to a question with references.

    Attributes:
        answerable: whether the handbook answers the question.
        released: whether the guard released the answer.
        correct: whether the answer is right by Rouge-L; where the handbook has none, whether it declines.
    """

    answerable: bool
    released: bool
    correct: bool


@dataclass(frozen=True)
class DemoSummary:
    """What the guard bought on some answers, of which there is at least one."""

    answers: tuple[DemoAnswer, ...]

    @property
    def accuracy(self) -> float:
        """The share of right answers among all, in [0, 1]."""
        return _share([answer.correct for answer in self.answers])

    @property
    def released(self) -> tuple[DemoAnswer, ...]:
        """The answers that left the guard."""
        return tuple(answer for answer in self.answers if answer.released)

    @property
    def coverage(self) -> float:
        """The share of questions whose answer was released, in [0, 1]."""
        return _share([answer.released for answer in self.answers])

    @property
    def selective_accuracy(self) -> float | None:
        """The share of right answers among the released ones, in [0, 1]; None where none was released."""
        return _share([answer.correct for answer in self.released]) if self.released else None

    @property
    def withheld(self) -> tuple[DemoAnswer, ...]:
        """The answers that did not leave the guard."""
        return tuple(answer for answer in self.answers if not answer.released)

    @property
    def rightly_withheld(self) -> tuple[DemoAnswer, ...]:
        """Those of them that were wrong, or to a question that the handbook does not answer."""
        return tuple(
            answer for answer in self.withheld if not (answer.correct and answer.answerable)
        )


def demo_console() -> Console:
    """Standard output, without colours on the figures in it."""
    return Console(highlight=False)


def prepare(console: Console) -> SelfEvaluator:
    """The starter evaluator, with a word on what the wait is for."""
    message = "Loading the language model; the first run prepares it, which takes about a minute …"
    if not console.is_terminal:
        console.print(message, soft_wrap=True)
    with console.status(message):
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return SelfEvaluator.starter()


def demo_chain(evaluator: SelfEvaluator) -> Runnable[str, Any]:
    """BM25 over the handbook | the evaluator's prompt | a chat model that scores itself: question in, AIMessage out."""
    model = AspireChatModel(evaluator)
    retriever = BM25Retriever(documents=handbook_documents())
    return (
        {"context": retriever | format_documents, "question": RunnablePassthrough()}
        | model.prompt
        | model
    )


def handbook_documents() -> list[Document]:
    """The handbook's passages, each with its title."""
    return [
        Document(
            passage.text,
            metadata={"title": passage.title, "section": passage.section},
            id=passage.id,
        )
        for passage in load_passages()
    ]


def sample_questions(limit: int) -> list[QARecord]:
    """At most `limit` questions of the test split, always the same, in the handbook's order.

    They are spread evenly over the split, and as many of them are unanswerable as its share demands.
    """
    questions = load_questions("test")
    unanswerable = [question for question in questions if not question.answerable]
    answerable = [question for question in questions if question.answerable]
    limit = min(limit, len(questions))
    few = round(limit * len(unanswerable) / len(questions))
    chosen = {
        question.id for question in _spread(unanswerable, few) + _spread(answerable, limit - few)
    }
    return [question for question in questions if question.id in chosen]


def ask(guard: AspireGuard, question: str) -> GuardedAnswer:
    """Ask the guard, and note from the side what its chain answered.

    Args:
        guard: around a chain that takes a question and gives an AIMessage.
        question: what to ask.
    """
    seen = _Bystander()
    output = guard.invoke(question, {"callbacks": [seen], "run_id": seen.guard_run})
    verdict = Verdict.model_validate(output.response_metadata[VERDICT_KEY])
    return GuardedAnswer(question, seen.answer, tuple(seen.passages), verdict)


def run_demo(guard: AspireGuard, questions: Sequence[QARecord], console: Console) -> DemoSummary:
    """Ask each question, print each answer as it comes, and count.

    Args:
        guard: around a chain that takes a question and gives an AIMessage.
        questions: at least one.
        console: where to print.
    """
    correctness = RougeL()
    answers = []
    for number, record in enumerate(questions, start=1):
        guarded = ask(guard, record.question)
        answer = DemoAnswer(
            answerable=record.answerable,
            released=guarded.verdict.accepted,
            correct=correctness.grade([(record, guarded.answer)])[0],
        )
        show_answer(guarded, console, f"{number}/{len(questions)}", _judgement(answer, record))
        answers.append(answer)
    return DemoSummary(tuple(answers))


def show_answer(
    guarded: GuardedAnswer, console: Console, number: str = "", judgement: str = ""
) -> None:
    """Print a question, the answer, and what the guard did with it.

    Args:
        guarded: what to print.
        console: where.
        number: stands before the question.
        judgement: what is known of the answer's correctness.
    """
    verdict, text = guarded.verdict, " ".join(guarded.answer.split()) or "(nothing)"
    # Not every terminal, and no file, shows what is struck through.
    answer = (
        (Text(text, style="green"), "")
        if verdict.accepted
        else (Text(text, style="strike"), " [withheld]")
    )
    _line(console, f"{number:>6}  ", Text(guarded.question, style="bold"))
    _line(console, f"{_INDENT}answer    ", *answer)
    _line(console, f"{_INDENT}passage   ", ", ".join(guarded.passages) or "(none found)")
    _line(
        console,
        f"{_INDENT}guard     {'released' if verdict.accepted else 'withheld'}: {verdict.reason}",
    )
    if judgement:
        _line(console, f"{_INDENT}in truth  {judgement}")
    console.print()


def show_summary(summary: DemoSummary, console: Console) -> None:
    """Print what the guard bought."""
    released, rightly = summary.released, summary.rightly_withheld
    unanswerable = sum(not answer.answerable for answer in rightly)
    right = sum(answer.correct for answer in summary.answers)
    console.print(Text("What the guard bought", style="bold"))
    for name, value, counts in (
        ("accuracy of all answers", summary.accuracy, f"{right} of {len(summary.answers)}"),
        (
            "accuracy of released answers",
            summary.selective_accuracy,
            f"{sum(answer.correct for answer in released)} of {len(released)}",
        ),
        (
            "coverage",
            summary.coverage,
            f"{len(released)} of {len(summary.answers)} answers released",
        ),
    ):
        percent = "     -" if value is None else f"{value:6.1%}"
        _line(console, f"  {name:<29}", f"{percent}  ({counts})")
    _line(
        console,
        f"  {'rightly withheld':<29}",
        f"{len(rightly)} of {len(summary.withheld)}: {len(rightly) - unanswerable} wrong answers, "
        f"{unanswerable} to questions that the handbook does not answer",
    )


class _Bystander(BaseCallbackHandler):
    """Sees what any tracer sees: the chain's run inside the guard's, and what its retriever found."""

    def __init__(self) -> None:
        self.guard_run = uuid4()
        self.answer = ""
        self.passages: list[str] = []

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        if parent_run_id == self.guard_run:
            self.answer = read_answer(outputs)

    def on_retriever_end(self, documents: Sequence[Document], **kwargs: Any) -> None:
        self.passages.extend(
            str(document.metadata.get("title", "untitled")) for document in documents
        )


def _judgement(answer: DemoAnswer, record: QARecord) -> str:
    truth = (
        f"the handbook says {record.references[0]}"
        if record.references
        else "the handbook does not say"
    )
    return f"{'right' if answer.correct else 'wrong'}, {truth}"


def _line(console: Console, *parts: str | Text) -> None:
    # Wrapped by the terminal, if at all: a pipe gets one line a fact.
    console.print(Text.assemble(*parts), soft_wrap=True)


def _spread(questions: Sequence[QARecord], n: int) -> list[QARecord]:
    """`n` of the questions at even distances, the first and the last distance half as long."""
    return [questions[(2 * place + 1) * len(questions) // (2 * n)] for place in range(n)]


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
