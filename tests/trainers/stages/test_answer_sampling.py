"""Stage 2: answers sampled under θp, and kept on disk batch by batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.testing import Family, tiny_evaluator
from aspire_trainers.config import SamplingConfig
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


def _make_aspire(family: Family = "llama") -> AspireLM:
    return replace(tiny_evaluator(family).aspire, self_eval=None)


def _sample(file: Path, aspire: AspireLM | None = None) -> list[SampledAnswers]:
    return sample_answers(
        aspire or _make_aspire(), RECORDS, CONFIG, seed=0, file=file, progress=Progress("test")
    )


def test_each_record_has_the_answers_that_it_has_alone(family: Family, tmp_path: Path) -> None:
    """A record's answers are its distinct beams, the best first, whatever else is in the batch."""
    aspire = _make_aspire(family)
    sampled = _sample(tmp_path / "answers.jsonl", aspire)
    assert [answers.record for answers in sampled] == RECORDS
    for answers in sampled:
        ((beams,), _) = decode_records(aspire, [answers.record], k=4, max_new_tokens=6)
        alone = drop_repetitions(beams)
        assert list(answers.texts) == list(alone)
        assert answers.log_likelihoods == pytest.approx(list(alone.values()), abs=1e-4)


def test_the_file_holds_a_line_a_batch(tmp_path: Path) -> None:
    """Each line has the answers to every record of a batch with their likelihoods."""
    file = tmp_path / "answers.jsonl"
    sampled = _sample(file)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [len(batch) for batch in lines] == [2] * 4
    found = sorted(tuple(row.items()) for batch in lines for row in batch)
    assert found == sorted(tuple(zip(a.texts, a.log_likelihoods, strict=True)) for a in sampled)


def test_each_record_has_the_draws_that_it_has_alone(tmp_path: Path) -> None:
    """The draws depend on the run's seed and the record's id, not on the rest of the batch."""
    aspire, config = (
        _make_aspire(),
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


def _cut_last_line(content: bytes) -> bytes:
    return content[:-9]


def _cut_line_break(content: bytes) -> bytes:
    return content[:-1]


def _keep_two_lines_and_a_half(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return lines[0] + lines[1] + lines[2][: len(lines[2]) // 2]


def _keep_two_lines(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:2])


def _keep_nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "kill",
    [_cut_last_line, _cut_line_break, _keep_two_lines_and_a_half, _keep_two_lines, _keep_nothing],
)
def test_a_killed_run_ends_with_the_same_file(
    tmp_path: Path, kill: Callable[[bytes], bytes]
) -> None:
    """An incomplete line is sampled again, and file and answers are then equal to the last bit."""
    file = tmp_path / "answers.jsonl"
    expected = _sample(file)
    content = file.read_bytes()
    file.write_bytes(kill(content))
    assert _sample(file) == expected
    assert file.read_bytes() == content


def test_finished_batches_are_not_sampled_again(tmp_path: Path) -> None:
    """Answers in the file are used as they are."""
    file = tmp_path / "answers.jsonl"
    _sample(file)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = json.dumps([{"from the file": -1.0}] * 2) + "\n"
    file.write_text(kept + "".join(lines[1:]), encoding="utf-8")
    texts = [answers.texts for answers in _sample(file)]
    assert texts.count(("from the file",)) == 2
