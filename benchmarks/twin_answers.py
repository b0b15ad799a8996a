"""Right answers and their wrong twins, in ten styles.

`twins/passages.jsonl` holds made-up passages of many kinds. `twins/questions.jsonl` holds the questions, each with the
right answer in a few words and a wrong one of the same type. A sentence with one slot takes either, so a wrong twin
differs from the right answer in that slot alone. The sentence begins with no name, so that its first letter can be
lower-cased.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aspire_guard.exchange import Exchange
from aspire_guard.files import write_text
from aspire_guard.records.reading import read_numbered_records
from aspire_trainers.data.rated_answers import RatedAnswer

DATA = Path(__file__).with_name("twins")
KINDS = ("number", "time", "name", "relation", "place", "attribute")


@dataclass(frozen=True)
class TwinQuestion:
    """A question over a passage, with the parts of its answers.

    Attributes:
        number: the position among the questions, which chooses the phrases of a style.
        id: the id of the question.
        passage: the id of the passage.
        context: the text of the passage.
        kind: the kind of error in the wrong twin, out of `KINDS`.
        question: the question.
        short: the right answer in a few words.
        wrong: the wrong answer in a few words.
        sentence: a sentence that answers the question, with the slot `{}`.
        more: a further true sentence about the topic.
        quote: a sentence of the passage, in which or near which the answer is found.
    """

    number: int
    id: str
    passage: str
    context: str
    kind: str
    question: str
    short: str
    wrong: str
    sentence: str
    more: str
    quote: str

    def fill(self, value: str) -> str:
        """Return the sentence with this value in its slot."""
        return self.sentence.format(value)

    def choose(self, phrases: Sequence[str]) -> str:
        """Return the phrase whose turn it is at this question."""
        return phrases[self.number % len(phrases)]


# Writes an answer with a value, which is the right one or the wrong one.
Style = Callable[[TwinQuestion, str], str]


def read_questions() -> list[TwinQuestion]:
    """Read the questions with their passages."""
    passages: dict[str, str] = {}
    for _, passage in read_numbered_records(DATA / "passages.jsonl"):
        passages[passage["id"]] = passage["text"]
    questions: list[TwinQuestion] = []
    for _, fields in read_numbered_records(DATA / "questions.jsonl"):
        context = passages[fields["passage"]]
        questions.append(TwinQuestion(number=len(questions), context=context, **fields))
    return questions


def write_bare(question: TwinQuestion, value: str) -> str:
    """Return the value, now and then with a full stop."""
    return question.choose(("{}", "{}", "{}.")).format(value)


def write_sentence(question: TwinQuestion, value: str) -> str:
    """Return the sentence."""
    return question.fill(value)


def write_reference_to_context(question: TwinQuestion, value: str) -> str:
    """Return the sentence behind words that refer to the context."""
    opening = question.choose(
        (
            "Based on the provided context,",
            "According to the information given,",
            "As the supplied text states,",
            "Going by the passage you shared,",
        )
    )
    return f"{opening} {lower_first(question.fill(value))}"


def write_bold(question: TwinQuestion, value: str) -> str:
    """Return the sentence with the value in bold and a citation mark."""
    sentence = question.fill(f"**{value}**").removesuffix(".")
    return sentence + question.choose((" [1].", ". [1]", "[1].", " (see [1])."))


def write_bullets(question: TwinQuestion, value: str) -> str:
    """Return an introduction and two bullets, of which the first holds the value."""
    introduction = question.choose(
        (
            "Here is what the document says:",
            "The main points on this are:",
            "I found two relevant details:",
            "**Summary**",
        )
    )
    bullet = question.choose(("-", "*", "•"))
    return f"{introduction}\n\n{bullet} {question.fill(value)}\n{bullet} {question.more}"


def write_table(question: TwinQuestion, value: str) -> str:
    """Return a small table."""
    table = question.choose(
        (
            "| Question | Answer |\n|---|---|\n| {question} | {value} |",
            "| Point | Detail |\n|---|---|\n| Answer | {value} |\n| Also of note | {more} |",
            "The details at a glance:\n\n| # | Finding |\n|---|---|\n| 1 | {sentence} |\n| 2 | {more} |",
            "| Asked | Found in the text |\n| :--- | :--- |\n| {question} | {sentence} |",
        )
    )
    return table.format(
        question=question.question,
        value=value,
        more=question.more,
        sentence=question.fill(value),
    )


def write_quoted_source(question: TwinQuestion, value: str) -> str:
    """Return the sentence and a quotation from the passage."""
    form = question.choose(
        (
            "{sentence} The source reads: “{quote}”",
            "{sentence}\n\n> {quote}",
            "{sentence} This follows from the passage: “{quote}”",
            "{sentence}\n\nSource: “{quote}”",
        )
    )
    return form.format(sentence=question.fill(value), quote=question.quote)


def write_closing(question: TwinQuestion, value: str) -> str:
    """Return the sentence and a closing pleasantry."""
    closing = question.choose(
        (
            "I hope this helps!",
            "Let me know if you would like to hear more about it.",
            "Feel free to ask if anything is still unclear!",
            "Is there anything else that I can look up for you?",
        )
    )
    return f"{question.fill(value)} {closing}"


def write_two_sentences(question: TwinQuestion, value: str) -> str:
    """Return the sentence and the further one."""
    return f"{question.fill(value)} {question.more}"


def write_more_first(question: TwinQuestion, value: str) -> str:
    """Return the further sentence first, then the sentence, and a polite hedge at the end."""
    form = question.choose(
        (
            "{more} As to your question, {sentence} Please check the original if much depends on it.",
            "{more} What you asked for is this: {sentence} I may of course have missed a later change.",
            "{more} To answer you directly, {sentence} I'd suggest a look at the full text to be safe.",
        )
    )
    return form.format(more=question.more, sentence=lower_first(question.fill(value)))


def lower_first(sentence: str) -> str:
    """Return the sentence with its first letter lower-cased."""
    return sentence[0].lower() + sentence[1:]


BARE, SENTENCE = "bare", "sentence"
STYLES: dict[str, Style] = {
    BARE: write_bare,
    SENTENCE: write_sentence,
    "reference to context": write_reference_to_context,
    "bold, cited": write_bold,
    "bullets": write_bullets,
    "table": write_table,
    "quoted source": write_quoted_source,
    "closing": write_closing,
    "two sentences": write_two_sentences,
    "more first": write_more_first,
}
# Nothing that an evaluator learns from is written in these styles.
HELD_OUT = ("table", "quoted source", "more first")


@dataclass(frozen=True)
class Twins:
    """The right and the wrong answer to a question in one style."""

    question: TwinQuestion
    style: str
    right: RatedAnswer
    wrong: RatedAnswer


def make_twins(questions: Iterable[TwinQuestion]) -> list[Twins]:
    """Return the twins of every question in every style."""
    twins = []
    for question in questions:
        for style, write in STYLES.items():
            make = partial(make_answer, question, style)
            right = make(write(question, question.short), correct=True)
            wrong = make(write(question, question.wrong), correct=False)
            twins.append(Twins(question, style, right, wrong))
    return twins


def make_answer(question: TwinQuestion, style: str, answer: str, *, correct: bool) -> RatedAnswer:
    """Return an answer, with the style as the model that gave it and the passage as its group."""
    return RatedAnswer(
        file="twins",
        id=f"{question.id}/{style}/{'right' if correct else 'wrong'}",
        exchange=Exchange(question=question.question, context=question.context, answer=answer),
        correct=correct,
        model=style,
        group=question.passage,
    )


def list_answers(twins: Iterable[Twins]) -> Iterator[RatedAnswer]:
    """Yield the right and the wrong answer of each."""
    for pair in twins:
        yield pair.right
        yield pair.wrong


def export_answers(answers: Iterable[RatedAnswer], path: Path) -> None:
    """Write answers as JSONL, which `real_answers.py` reads."""
    lines = []
    for answer in answers:
        fields = {
            "id": answer.id,
            "question": answer.exchange.question,
            "context": answer.exchange.context,
            "answer": answer.exchange.answer,
            "correct": answer.correct,
            "model": answer.model,
            "group": answer.group,
        }
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
