"""Training answers from QA records: right answers and wrong twins, which differ in one fact and share their style."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile

from aspire_guard.sentences import split_sentences
from aspire_trainers.data.styled_answers.claims import list_further_sentences
from aspire_trainers.data.styled_answers.errors import ERRORS, Twins
from aspire_trainers.data.styled_answers.refusals import (
    answer_unanswerable,
    refuse_answerable,
)
from aspire_trainers.data.styled_answers.source import Source, collect_sources
from aspire_trainers.data.styled_answers.styles import (
    STYLES,
    Draft,
    list_fitting_styles,
)
from aspire_trainers.record import QARecord

# The errors that change a sentence, and those that are about declining.
ERROR_KINDS = {**ERRORS, "refusal": refuse_answerable, "unanswerable": answer_unanswerable}

# Errors that few records allow come first, so that no kind is rare.
_WEIGHTS = {
    "entity": 6.0,
    "number": 8.0,
    "date": 8.0,
    "other_answer": 4.0,
    "negation": 6.0,
    "relation": 4.0,
    "unsupported_addition": 1.0,
    "wrong_sentence": 1.5,
    "refusal": 0.25,
    "unanswerable": 0.3,
}

_DECLINING = frozenset({"refusal", "unanswerable"})
# The share of the answerable records that are declined. Nearly every record allows it, so it would be the commonest
# error.
_DECLINED_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """A sentence of an answer, with its label.

    Attributes:
        start: its first character in the answer.
        end: the start of the next sentence.
        correct: False if it holds the error.
    """

    start: int
    end: int
    correct: bool


@dataclass(frozen=True, slots=True)
class StyledAnswer:
    """A labelled answer.

    Attributes:
        id: an id that is unique among the answers.
        question: the question.
        context: the passage.
        answer: the answer.
        correct: True if the passage supports the whole answer, or if declining is right.
        style: the name of the style.
        error: the kind of error, or None in a right answer.
        group: an id of the passage. Answers are split and drawn by it.
        pair: an id that the answer shares with its twin.
        sentences: the sentences, as `aspire_guard.sentences` splits the answer. They cover it without gaps.
    """

    id: str
    question: str
    context: str
    answer: str
    correct: bool
    style: str
    error: str | None
    group: str
    pair: str
    sentences: tuple[LabelledSentence, ...]

    def to_line(self) -> str:
        """Return the answer as a line of JSONL."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


@dataclass
class MadeAnswers:
    """The answers made from records.

    Attributes:
        answers: the answers, each next to its twin.
        held_out: the answers in a style or with a kind of error that is held out.
        skipped: the ids of the records that gave no answer.
    """

    answers: list[StyledAnswer] = field(default_factory=list)
    held_out: list[StyledAnswer] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def make_answers(
    records: Sequence[QARecord],
    *,
    seed: int = 0,
    per_record: int = 2,
    further_passages: float = 0.0,
    hold_out_styles: Sequence[str] = (),
    hold_out_errors: Sequence[str] = (),
) -> MadeAnswers:
    """Make right answers and wrong twins from records.

    The draws of a record depend on its id and the seed alone, so its answers stay the same if other topics come or go.
    Only the further passages beside its own depend on what others there are.

    Args:
        records: the records. Those without a context are skipped.
        seed: the seed of every random choice.
        per_record: the most pairs of a right and a wrong answer to a record. Held-out pairs count.
        further_passages: the share of the passages that stand among up to three others about other topics.
        hold_out_styles: names of `STYLES` to set apart.
        hold_out_errors: names of `ERROR_KINDS` to set apart.
    """
    made = MadeAnswers()
    seen: set[tuple[str, str, str]] = set()
    sources = collect_sources(records)
    contexts = _choose_contexts(sources, further_passages, seed)
    made.skipped += [record.id for record in records if not record.context]
    for source in sources:
        n_pairs = 0
        for pair in _make_pairs(source, contexts, seed):
            keys = {(answer.question, answer.context, answer.answer) for answer in pair}
            if len(keys) < len(pair) or keys & seen:
                continue
            seen |= keys
            n_pairs += 1
            is_held_out = pair[0].style in hold_out_styles or pair[1].error in hold_out_errors
            (made.held_out if is_held_out else made.answers).extend(pair)
            if n_pairs == per_record:
                break
        if not n_pairs:
            made.skipped.append(source.record.id)
    return made


def _choose_contexts(sources: Sequence[Source], share: float, seed: int) -> dict[str, str]:
    """Map each passage to the context of the answers about it: itself, or itself among up to three others."""
    contexts: dict[str, str] = {}
    by_passage = {source.passage.original: source for source in sources}
    for passage, source in by_passage.items():
        rng = random.Random(f"{seed}/{passage}")
        chosen = [passage]
        if rng.random() < share:
            # A sentence that an answer adds without support comes from a neighbour.
            near = {passage, *(neighbour.original for neighbour in source.neighbours)}
            others = [other for other in by_passage if other not in near]
            chosen = rng.sample(others, min(len(others), rng.randint(1, 3)))
            chosen.insert(rng.randint(0, len(chosen)), passage)
        contexts[passage] = "\n\n".join(chosen)
    return contexts


def _make_pairs(
    source: Source, contexts: Mapping[str, str], seed: int
) -> Iterator[tuple[StyledAnswer, StyledAnswer]]:
    """Yield a pair of each kind of error that the record allows, in a weighted random order."""
    record = source.record
    # Text seeds a generator alike in every process.
    order = random.Random(f"{seed}/{record.id}")
    keys = {kind: order.random() ** (1 / weight) for kind, weight in _WEIGHTS.items()}
    for kind in sorted(keys, key=lambda kind: keys[kind], reverse=True):
        rng = random.Random(f"{seed}/{record.id}/{kind}")
        is_rare = kind in _DECLINING and record.answerable
        if is_rare and order.random() > _DECLINED_SHARE:
            continue
        twins = ERROR_KINDS[kind](source, rng)
        if twins is not None:
            yield _style_twins(source, contexts, twins, kind, rng)


def _style_twins(
    source: Source, contexts: Mapping[str, str], twins: Twins, kind: str, rng: random.Random
) -> tuple[StyledAnswer, StyledAnswer]:
    """Give both twins the same style, with the same draws of its phrases."""
    record, passage = source.record, twins.passage
    declines = kind in _DECLINING
    # Another passage might hold what a right answer says is missing.
    context = passage.original if declines else contexts[passage.original]
    wrong_fact = twins.wrong[0].fact or ""
    spare = list_further_sentences(twins.right[0], source, avoid=wrong_fact)
    background = rng.choice(spare) if spare else None
    drafts = [
        Draft(record.question, sentences, passage, background, declines)
        for sentences in (twins.right, twins.wrong)
    ]
    style = rng.choice(list_fitting_styles(drafts))
    phrase_seed = rng.random()
    pair = f"{record.id}-{kind}"
    right, wrong = (
        "".join(map(str, STYLES[style](draft, random.Random(phrase_seed)))) for draft in drafts
    )
    error = _find_difference(wrong, right)
    answers = []
    for text, correct in ((right, True), (wrong, False)):
        answers.append(
            StyledAnswer(
                id=f"{pair}-{'right' if correct else 'wrong'}",
                question=record.question,
                context=context,
                answer=text,
                correct=correct,
                style=style,
                error=None if correct else kind,
                group=hashlib.sha256(passage.original.encode()).hexdigest()[:12],
                pair=pair,
                sentences=_label_sentences(text, None if correct else error),
            )
        )
    return answers[0], answers[1]


def _find_difference(text: str, other: str) -> tuple[int, int]:
    """Return the start and the end of the part of a text that differs from the other, at least a character."""
    start = _count_shared(text, other)
    same_end = _count_shared(text[start:][::-1], other[start:][::-1])
    return start, max(start + 1, len(text) - same_end)


def _count_shared(text: str, other: str) -> int:
    """Return the number of characters that two texts share from their beginning."""
    pairs = zip(text, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _label_sentences(text: str, error: tuple[int, int] | None) -> tuple[LabelledSentence, ...]:
    """Label the sentences of a text: those that touch the error are wrong."""
    labelled = []
    for start, end in split_sentences(text):
        is_wrong = error is not None and start < error[1] and error[0] < end
        labelled.append(LabelledSentence(start, end, not is_wrong))
    return tuple(labelled)
