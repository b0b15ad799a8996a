"""Right answers: the reference itself, a statement made from it, or the sentence of the passage that holds it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from aspire_trainers.data.styled_answers.passage import classify, contains, find_article
from aspire_trainers.data.styled_answers.source import Source, is_balanced
from aspire_trainers.data.styled_answers.statements import make_statement

_LONGEST_VALUE = 12  # words
_LONGEST_SENTENCE = 45  # words
_CONNECTIVE = re.compile(
    r"(?:However|Moreover|Furthermore|In addition|Additionally|Meanwhile|Nevertheless|Also|Therefore|Thus|Consequently"
    r"|For example|For instance|Similarly|Nonetheless|Likewise), "
)
_CLAUSE = re.compile(
    r"(?:, (?:which|who|while|although|though|but|where|whereas|with|including)|;|, and (?:he|she|it|they)) "
)
_SUBORDINATE = re.compile(
    r"(?:Although|While|When|After|If|As|Because|Since|Despite|Though|Before|Once|Until|Unless|Whereas|Given|Besides|Unlike"
    r"|Following|During|In addition|Along) "
)
_ENDS_IN_ABBREVIATION = re.compile(r"\b(?:Jr|Sr|Inc|Co|Ltd|Corp|[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer.

    Attributes:
        text: its wording.
        fact: the part of the text that answers the question, if the part is known.
    """

    text: str
    fact: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Form:
    """A wording of an answer around its value.

    Attributes:
        kind: `value`, `answer_is`, `statement` or `passage`.
        value: the reference.
        before: the text before the value.
        after: the text after the value.
    """

    kind: str
    value: str
    before: str = ""
    after: str = ""

    def fill(self, value: str) -> Sentence:
        """Return the sentence with a value in the place of the reference."""
        before = self.before
        if re.search(r"\b[Aa]n? $", before):
            article = "an" if value[0].lower() in "aeiou8" else "a"
            before = re.sub(r"([Aa])n? $", lambda found: found[1] + article[1:] + " ", before)
        shown = value if before or self.kind == "value" else value[0].upper() + value[1:]
        after = self.after
        if shown.endswith(".") and after.startswith("."):
            after = after[1:]
        return Sentence(before + shown + after, shown)

    def add_article(self, value: str, text: str) -> str:
        """Return another value with the article that it has in a text, if the wording leaves room for it."""
        has_room = self.kind in {"answer_is", "statement"} and classify(value) == "name"
        return find_article(text, value) + value if has_room else value

    @property
    def right(self) -> Sentence:
        """The sentence with the reference."""
        return self.fill(self.value)


def find_forms(source: Source) -> list[Form]:
    """Return the wordings that fit the record's reference. They are empty if the reference is no good answer."""
    value = choose_value(source)
    if value is None:
        return []
    # "The answer is yes." would be no statement that a passage supports.
    article = find_article(source.passage.text, value) if classify(value) == "name" else ""
    forms = [Form("value", value), Form("answer_is", article + value, "The answer is ", ".")]
    holder = _find_holder(source, value)
    preposition = find_preposition(source.passage.text, value)
    statement = make_statement(source.record.question, article + value, preposition)
    if statement:
        forms.append(_split_at(statement, article + value, "statement"))
    if holder:
        forms.append(_split_at(holder, value, "passage"))
        short = shorten_sentence(holder, value)
        if short != holder:
            forms.append(_split_at(short, value, "passage"))
    return forms


def choose_value(source: Source) -> str | None:
    """Return the shortest reference that stands in the passage, without the marks around it."""
    values = []
    for reference in source.record.references:
        value = reference.strip().rstrip(",;:").strip()
        if not _ENDS_IN_ABBREVIATION.search(value):
            value = value.rstrip(".")
        if value.count('"') == 2 and value.startswith('"') and value.endswith('"'):
            value = value[1:-1].rstrip(",.")
        is_usable = bool(value) and len(value.split()) <= _LONGEST_VALUE and is_balanced(value)
        if (
            is_usable
            and value.lower() not in {"yes", "no", "unknown"}
            and contains(source.passage.text, value)
        ):
            values.append(value)
    return min(values, key=len) if values else None


def _find_holder(source: Source, value: str) -> str | None:
    """Return the sentence with the value, if a single one has it, and once."""
    holders = [sentence for sentence in source.passage.sentences if contains(sentence, value)]
    if len(holders) != 1:
        return None
    holder = holders[0]
    connective = _CONNECTIVE.match(holder)
    if connective:
        holder = capitalise(holder[connective.end() :])
    occurrences = re.findall(rf"(?<!\w){re.escape(value)}(?!\w)", holder)
    is_whole = holder.endswith(".") and holder[0].isupper() and is_balanced(holder)
    is_short = 4 <= len(holder.split()) <= _LONGEST_SENTENCE
    return holder if is_whole and is_short and len(occurrences) == 1 else None


def shorten_sentence(sentence: str, value: str) -> str:
    """Return the sentence without the clauses after the one that holds the value, if the rest is whole."""
    position = sentence.find(value) + len(value)
    cut = _CLAUSE.search(sentence, position)
    if not cut or _SUBORDINATE.match(sentence):
        return sentence
    head = sentence[: cut.start()] + "."
    follows_list = re.search(r"\b(?:both|either|not only|between)\b", head) is not None
    return head if len(head.split()) >= 7 and is_balanced(head) and not follows_list else sentence


def find_preposition(text: str, value: str) -> str | None:
    """Return the word before the value in a text, without an article between the two."""
    found = re.search(rf"(\w+) (?:the )?(?<!\w){re.escape(value)}(?!\w)", text)
    return found[1].lower() if found else None


def capitalise(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _split_at(text: str, value: str, kind: str) -> Form:
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"expected {value!r} in {text!r}; make the sentence from the value")
    return Form(kind, value, text[: found.start()], text[found.end() :])


def add_sentences(
    main: Sentence, source: Source, n: int, rng: random.Random, avoid: str = ""
) -> list[Sentence]:
    """Return the sentence with up to `n` further sentences of the passage after it.

    Args:
        main: the sentence that answers the question.
        source: the record and its passage.
        n: the number of further sentences.
        rng: draws them.
        avoid: a text that no further sentence may hold, for example the value that a wrong answer changes.
    """
    usable = list_further_sentences(main, source, avoid)
    drawn = sorted(rng.sample(range(len(usable)), min(n, len(usable))))
    return [main, *(Sentence(usable[index]) for index in drawn)]


def list_further_sentences(main: Sentence, source: Source, avoid: str = "") -> list[str]:
    """Return the sentences of the passage that may follow the main one."""
    usable = []
    for sentence in source.passage.quotable:
        repeats = sentence[:30] in main.text or (
            main.fact is not None and contains(sentence, main.fact)
        )
        if not repeats and not (avoid and contains(sentence, avoid)):
            usable.append(sentence)
    return usable
