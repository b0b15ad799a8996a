"""Stage 2: answers sampled under θp, kept on disk batch by batch, and labelled right or wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.testing import Family, tiny_evaluator
from aspire_trainers.config import SamplingConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.sampled_answers import SampledAnswers, drop_repetitions
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.answer_sampling import decode_records, sample_answers

RECORDS = [
    QARecord(f"{i}-{j}", f"Which {j}?", f"Passage number {i}." if i else None, ("Ada",))
    for i in range(4)
    for j in range(2)
]
CONFIG = SamplingConfig(k=4, max_new_tokens=6, batch_size=2)


def _aspire(family: Family = "llama") -> AspireLM:
    return replace(tiny_evaluator(family).aspire, self_eval=None)


def _sample(file: Path, aspire: AspireLM | None = None) -> list[SampledAnswers]:
    return sample_answers(
        aspire or _aspire(), RECORDS, CONFIG, seed=0, file=file, progress=Progress("test")
    )


def _labelled(texts: list[str], *references: str) -> tuple[list[str], list[str]]:
    record = QARecord("id", "Who?", "A passage.", references)
    grades = RougeL(0.9).grade([(record, text) for text in texts])
    return SampledAnswers(record, tuple(texts), (0.0,) * len(texts)).labelled(
        grades, next(iter(references), None)
    )


def test_answers_are_those_of_each_record_alone(family: Family, tmp_path: Path) -> None:
    """All distinct beams, best first, in the order of the records, whatever shared their batch."""
    aspire = _aspire(family)
    sampled = _sample(tmp_path / "answers.jsonl", aspire)
    assert [answers.record for answers in sampled] == RECORDS
    for answers in sampled:
        ((beams,), _) = decode_records(aspire, [answers.record], k=4, max_new_tokens=6)
        alone = drop_repetitions(beams)
        assert list(answers.texts) == list(alone)
        assert answers.log_likelihoods == pytest.approx(list(alone.values()), abs=1e-4)


def test_the_file_holds_a_line_a_batch(tmp_path: Path) -> None:
    """Each line has for every record its answers and their likelihoods."""
    file = tmp_path / "answers.jsonl"
    sampled = _sample(file)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [len(batch) for batch in lines] == [2] * 4
    found = sorted(tuple(row.items()) for batch in lines for row in batch)
    assert found == sorted(tuple(zip(a.texts, a.log_likelihoods, strict=True)) for a in sampled)


def test_draws_are_those_of_each_record_alone(tmp_path: Path) -> None:
    """Seeded by the run's seed and the record's id, whatever shared their batch; another seed draws others."""
    aspire, config = (
        _aspire(),
        SamplingConfig(method="multinomial", temperature=0.7, k=4, max_new_tokens=6, batch_size=3),
    )
    drawn = [
        sample_answers(
            aspire,
            RECORDS,
            config,
            seed=seed,
            file=tmp_path / f"{seed}.jsonl",
            progress=Progress("test"),
        )
        for seed in (0, 1)
    ]
    for answers in drawn[0]:
        record = answers.record
        (alone,) = aspire.sample(
            aspire.prompt_states([(record.question, record.context)]),
            n=4,
            max_new_tokens=6,
            temperature=0.7,
            seeds=[f"0/{record.id}"],
        )
        assert list(answers.texts) == list(drop_repetitions(alone))
        assert answers.log_likelihoods == pytest.approx(
            list(drop_repetitions(alone).values()), abs=1e-4
        )
    assert [answers.texts for answers in drawn[0]] != [answers.texts for answers in drawn[1]]


def _cut(content: bytes) -> bytes:
    return content[:-9]


def _without_line_break(content: bytes) -> bytes:
    return content[:-1]


def _two_lines_and_a_half(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return lines[0] + lines[1] + lines[2][: len(lines[2]) // 2]


def _two_lines(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:2])


def _nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "kill", [_cut, _without_line_break, _two_lines_and_a_half, _two_lines, _nothing]
)
def test_a_killed_run_ends_with_the_same_file(
    tmp_path: Path, kill: Callable[[bytes], bytes]
) -> None:
    """A line that was cut off is sampled anew; file and answers are then equal to the last bit."""
    file = tmp_path / "answers.jsonl"
    expected = _sample(file)
    content = file.read_bytes()
    file.write_bytes(kill(content))
    assert _sample(file) == expected
    assert file.read_bytes() == content


def test_finished_batches_are_not_sampled_again(tmp_path: Path) -> None:
    """What stands in the file is taken from there."""
    file = tmp_path / "answers.jsonl"
    _sample(file)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = json.dumps([{"from the file": -1.0}] * 2) + "\n"
    file.write_text(kept + "".join(lines[1:]), encoding="utf-8")
    texts = [answers.texts for answers in _sample(file)]
    assert texts.count(("from the file",)) == 2


def test_of_equal_answers_the_best_stays() -> None:
    """Beams that decode to one text are one answer, with the likelihood of the first."""
    beams = [Answer("a", -0.1, 1), Answer("b", -0.2, 1), Answer("a", -0.3, 1)]
    assert drop_repetitions(beams) == {"a": -0.1, "b": -0.2}


@pytest.mark.parametrize(
    ("texts", "references", "right", "wrong"),
    [
        (["Ada", "Bob", "Eve"], ["Ada"], ["Ada"], ["Bob", "Eve"]),
        (["Bob", "ada.", "Eve"], ["Ada"], ["Ada", "ada."], ["Bob", "Eve"]),
        (["Bob", "Eve"], ["Ada"], ["Ada"], ["Bob", "Eve"]),
        (["Bob", "Lovelace"], ["Ada", "Lovelace"], ["Ada", "Lovelace"], ["Bob"]),
        (["Ada"], ["Ada"], ["Ada"], [""]),
        (["Ada", ""], ["Ada"], ["Ada"], [""]),
        ([""], [], [""], []),
        (["", "Bob"], [], [""], ["Bob"]),
        (["I don't know.", "Bob"], [], ["I don't know."], ["Bob"]),
        (["Bob", "Eve"], [], [], ["Bob", "Eve"]),
        (["I don't know."], [], ["I don't know."], []),
    ],
    ids=[
        "the reference is among them",
        "another spelling is right too",
        "none is right: the reference itself is",
        "any reference makes right, the first is added",
        "none is wrong: the default wrong answer is",
        "an empty answer is wrong already",
        "declining is right without references",
        "answering is wrong without references",
        "a phrase that declines",
        "nothing right without references",
        "an empty answer is not wrong without references",
    ],
)
def test_answers_are_parted_into_right_and_wrong(
    texts: list[str], references: list[str], right: list[str], wrong: list[str]
) -> None:
    """S_c and S_w of the paper, by Rouge-L with γ̂ = 0.9."""
    assert _labelled(texts, *references) == (right, wrong)


def test_a_reference_is_not_wrong_too() -> None:
    """Where a judge, or a person, says so of its text, it stands among the right ones alone."""
    sampled = SampledAnswers(
        QARecord("q", "Who?", references=("Ada",)), ("Ada", "Bob"), (None, None)
    )
    assert sampled.labelled([False, False], "Ada") == (["Ada"], ["Bob"])
