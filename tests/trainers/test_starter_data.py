"""The starter's training data: questions with a passage that does not answer them, and records that stay apart."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.record import QARecord

script = runpy.run_path(str(Path(__file__).parents[2] / "trainers" / "recipes" / "starter_data.py"))
move_questions, build_parts = script["move_questions"], script["build_parts"]
format_line = script["format_line"]


def test_no_passage_has_a_reference_of_its_question() -> None:
    """Each moved question of the handbook has another passage, no references, and an id of its own."""
    records = [record for record in load_dataset("handbook:train") if record.answerable]
    own = {f"moved-{record.id}": record for record in records}
    found = list(move_questions(records, 40, seed=1))
    assert len({record.id for record in found}) == len(found) > 30
    for record in found:
        assert record.references == ()
        assert record.question == own[record.id].question
        assert record.context in {other.context for other in records} - {own[record.id].context}
        assert not any(
            answer.casefold() in record.context.casefold() for answer in own[record.id].references
        )


def test_the_passage_is_the_next_without_a_reference() -> None:
    """A question is left out if every other passage holds one of its references."""
    records = [
        QARecord("1", "Who rows?", "Ada rows.", ("Ada",)),
        QARecord("2", "Who naps?", "ada naps beside Bob.", ("Bob",)),
        QARecord("3", "Who sings?", "Bob sings a song with Eve.", ("Eve", "Bob")),
        QARecord("4", "What is a?", "A is a letter.", ("a",)),
    ]
    found = {record.id: record.context for record in move_questions(records, 4, seed=0)}
    assert found == {
        "moved-1": "Bob sings a song with Eve.",
        "moved-2": "A is a letter.",
        "moved-3": "A is a letter.",
    }


def test_no_context_is_both_seen_and_aside(tmp_path: Path) -> None:
    """Every question is in one of its two files, and a moved question has a passage of the same side."""
    squad, triviaqa = tmp_path / "squad.jsonl", tmp_path / "triviaqa.jsonl"
    squad_questions: list[tuple[str, str | None, str]] = []
    for i in range(40):
        for j in (1, 2):
            passage = f"Passage {i} has no. {j} and {i}-{j}."
            squad_questions.append((f"Which {j}?", passage, f"{i}-{j}"))
    _write(squad, squad_questions)
    _write(triviaqa, [(f"Who wrote {i}?", None, f"Author {i}") for i in range(70)])
    found: dict[str, list[QARecord]] = dict(build_parts(str(squad), str(triviaqa)))
    totals = {"squad": 80, "triviaqa": 70, "handbook": len(load_dataset("handbook:train"))}
    for name, total in totals.items():
        seen, aside = found[f"{name}_seen"], found[f"{name}_aside"]
        assert len({record.id for record in [*seen, *aside]}) == len(seen) + len(aside) == total
        assert seen
        assert aside
    passages: dict[str, set[str | None]] = {}
    for name, records in found.items():
        passages[name] = {record.context for record in records}
    assert passages["moved_seen"] <= passages["squad_seen"]
    assert passages["moved_aside"] <= passages["squad_aside"]
    assert not passages["squad_seen"] & passages["squad_aside"]


def test_the_files_can_be_read_as_datasets(tmp_path: Path) -> None:
    """Training reads the same records that were written."""
    records = [QARecord("1", "Who rows?", "Ada rows.", ("Ada",)), QARecord("2", "Who?", None, ())]
    file = tmp_path / "moved_seen.jsonl"
    file.write_text("".join(map(format_line, records)), encoding="utf-8")
    assert load_dataset(str(file)) == records


def _write(file: Path, questions: list[tuple[str, str | None, str]]) -> None:
    rows = (
        {"question": question, "context": context, "answers": [answer]}
        for question, context, answer in questions
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
