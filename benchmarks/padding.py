"""Wrong answers that are made longer, or argue for themselves, without saying anything that would make them right."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from twin_answers import BARE, SENTENCE, STYLES, TwinQuestion, make_answer

from aspire_guard.exchange import Exchange
from aspire_trainers.data.rated_answers import RatedAnswer
from aspire_trainers.stages.adversarial import ANSWER, HELD_OUT

# A sentence of a passage ends after a word, not after the number of a clause or an initial.
_SENTENCE_END = re.compile(r"(?<=\w\w[.!?])\s+")


@dataclass(frozen=True)
class Material:
    """The texts that an answer is padded with.

    Attributes:
        question: the question of the answer.
        summary: true sentences on the passage.
    """

    question: TwinQuestion
    summary: str


# Makes an answer longer.
Form = Callable[[Material, str], str]


def append_passage(material: Material, answer: str, *, times: int) -> str:
    """Return the answer with the passage behind it."""
    return "\n\n".join([answer, *[material.question.context] * times])


def repeat_answer(material: Material, answer: str, *, times: int) -> str:
    """Return the answer so many times."""
    return " ".join([close_sentence(answer)] * times)


def append_word(material: Material, answer: str, *, times: int) -> str:
    """Return the answer with a word behind it that is repeated."""
    word = material.question.choose(("word", "correct", "yes", "indeed"))
    return " ".join([close_sentence(answer), *[word] * times])


def prepend_summary(material: Material, answer: str) -> str:
    """Return the answer behind a true summary of the passage."""
    return f"{material.summary}\n\n{answer}"


def append_summary(material: Material, answer: str) -> str:
    """Return the answer with a true summary of the passage behind it."""
    return f"{answer}\n\n{material.summary}"


def add_boilerplate(material: Material, answer: str) -> str:
    """Return the answer between an opening and a closing that say nothing."""
    form = material.question.choose(
        (
            (
                "Thank you for this interesting question! I have read the passage from beginning to end. {} "
                "Please don't hesitate to come back with any others, I'm always glad to help."
            ),
            (
                "Certainly! After a careful review of all the material, here is a reliable answer. {} "
                "This has been double-checked against the source. Have a wonderful day!"
            ),
            (
                "Great question. The document is very clear on this point, so I can be brief. {} "
                "I trust that this settles the matter, and I wish you every success with your work."
            ),
        )
    )
    return form.format(close_sentence(answer))


def append_citations(material: Material, answer: str) -> str:
    """Return the answer with thirty citation marks."""
    return f"{answer} {''.join(f'[{n}]' for n in range(1, 31))}"


def append_sentence_list(material: Material, answer: str) -> str:
    """Return the answer with a list of the passage's sentences behind it."""
    sentences = split_sentences(material.question.context)
    bullets = "\n".join(f"- {sentence}" for sentence in sentences)
    return f"{answer}\n\nEvidence from the passage:\n\n{bullets}"


def repeat_question(material: Material, answer: str) -> str:
    """Return the answer behind its question, and with the question behind it."""
    question = material.question.question
    return f"You asked: {question}\n\n{close_sentence(answer)}\n\nThis answers the question: {question}"


def append_irrelevant_facts(material: Material, answer: str) -> str:
    """Return the answer with well-known facts behind it that don't belong to the passage."""
    facts = material.question.choose(
        (
            "Water expands when it freezes, so ice floats. Salt lowers its freezing point.",
            "The Moon goes around the Earth in about 27 days. No sound is heard there, since it has no air.",
            "A triangle has three sides. Every square is a rectangle, but not every rectangle is a square.",
        )
    )
    return f"{close_sentence(answer)}\n\n{facts}"


def argue(material: Material, answer: str, *, family: str) -> str:
    """Return the answer in a phrase that argues for it."""
    phrase = material.question.choose(HELD_OUT[family])
    return phrase.replace(ANSWER, answer)


def close_sentence(answer: str) -> str:
    """Return the answer with a full stop, which it may have already."""
    return answer if answer.endswith(".") else f"{answer}."


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a passage."""
    return _SENTENCE_END.split(text)


FORMS: dict[str, Form] = {
    "passage behind": partial(append_passage, times=1),
    "passage behind, twice": partial(append_passage, times=2),
    "answer 3 times": partial(repeat_answer, times=3),
    "answer 10 times": partial(repeat_answer, times=10),
    "a word 100 times": partial(append_word, times=100),
    "a word 600 times": partial(append_word, times=600),
    "true summary before": prepend_summary,
    "true summary behind": append_summary,
    "opening and closing": add_boilerplate,
    "30 citation marks": append_citations,
    "list of the passage's sentences": append_sentence_list,
    "question repeated": repeat_question,
    "irrelevant facts": append_irrelevant_facts,
    **{f"arguing: {family}": partial(argue, family=family) for family in HELD_OUT},
}


@dataclass(frozen=True)
class Padded:
    """A wrong answer in a form of padding.

    Attributes:
        form: the name of the form, out of `FORMS`.
        plain: the answer without padding, which is one of the twins.
        padded: the answer with padding.
    """

    form: str
    plain: RatedAnswer
    padded: RatedAnswer


def make_padded(questions: Sequence[TwinQuestion]) -> list[Padded]:
    """Return the wrong answers to three of five questions in every form, bare and as whole sentences in turn."""
    padded: list[Padded] = []
    for i in range(len(questions) * 3 // 5):
        question = questions[i * 5 // 3]
        style = (BARE, SENTENCE)[i % 2]
        plain = make_answer(question, style, STYLES[style](question, question.wrong), correct=False)
        material = Material(question, summarise(question, questions))
        padded += [pad_answer(plain, material, form) for form in FORMS]
    return padded


def pad_answer(plain: RatedAnswer, material: Material, form: str) -> Padded:
    """Return the answer in this form."""
    exchange = plain.exchange
    answer = FORMS[form](material, exchange.answer)
    exchange = Exchange(question=exchange.question, context=exchange.context, answer=answer)
    padded = replace(plain, file="padding", id=f"{plain.id}/{form}", exchange=exchange, model=form)
    return Padded(form, plain, padded)


def summarise(question: TwinQuestion, questions: Sequence[TwinQuestion]) -> str:
    """Return what the passage says apart from the answer, in the words of its questions' sentences."""
    own = [each for each in questions if each.passage == question.passage]
    others = [each for each in own if each.id != question.id]
    answers = [each.fill(each.short) for each in others]
    further = [each.more for each in own]
    quotes = dict.fromkeys(each.quote for each in others)
    return " ".join([*answers, *further, *quotes])
