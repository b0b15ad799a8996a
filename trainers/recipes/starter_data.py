"""The training data of the starter's second part: records to train θs on, and records to choose α and the threshold.

Run: `python trainers/recipes/starter_data.py squad_train.jsonl triviaqa_train.jsonl --output .`

`*_seen.jsonl` are the questions that the first part (starter_passages.toml) was trained on, `*_aside.jsonl` the
questions that it set aside. The first part had no question of TriviaQA, so TriviaQA is split here. `moved_*.jsonl` are
questions of SQuAD with another passage, which holds none of their references.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from aspire_trainers.config import TrainingConfig
from aspire_trainers.data.batching import sample_records, split_by_context
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.record import QARecord

FIRST_PART = Path(__file__).with_name("starter_passages.toml")
TRIVIAQA_QUESTIONS = 1400
TRIVIAQA_ASIDE_SHARE = 1 / 7
MOVED_SHARE = 0.08


def move_questions(records: Sequence[QARecord], n: int, *, seed: int) -> Iterator[QARecord]:
    """Move `n` questions of passages drawn at random to a passage of `records` that does not answer them.

    The new passage is the next in the file that holds none of the references, so in SQuAD it mostly comes from the same
    article. A question is left out if every other passage holds a reference.
    """
    passages = list(dict.fromkeys(record.context for record in records))
    for record in sample_records(records, n, seed):
        index = passages.index(record.context)
        for passage in passages[index + 1 :] + passages[:index]:
            if passage and not _holds_reference(passage, record):
                yield replace(record, id=f"moved-{record.id}", context=passage, references=())
                break


def _holds_reference(passage: str, record: QARecord) -> bool:
    return any(reference.casefold() in passage.casefold() for reference in record.references)


def build_parts(squad: str, triviaqa: str) -> Iterator[tuple[str, list[QARecord]]]:
    """Yield the name and the records of each file."""
    sources = {"squad": Path(squad).name, "handbook": "handbook:train"}
    data = TrainingData.load(["handbook:train", squad], [], TrainingConfig.load(FIRST_PART))
    for part, records in (("seen", data.train), ("aside", data.validation)):
        for name, source in sources.items():
            of_source = _select_source(records, source)
            yield f"{name}_{part}", of_source
            if name == "squad":
                n = round(MOVED_SHARE * len(of_source))
                yield f"moved_{part}", list(move_questions(of_source, n, seed=0))
    drawn = sample_records(load_dataset(triviaqa), TRIVIAQA_QUESTIONS, seed=0)
    seen, aside = split_by_context(drawn, TRIVIAQA_ASIDE_SHARE, seed=0)
    yield "triviaqa_seen", seen
    yield "triviaqa_aside", aside


def _select_source(records: Sequence[QARecord], source: str) -> list[QARecord]:
    """Return the records of a source, without its name before their ids."""
    prefix = f"{source}/"
    of_source = (record for record in records if record.id.startswith(prefix))
    return [replace(record, id=record.id.removeprefix(prefix)) for record in of_source]


def format_line(record: QARecord) -> str:
    """Return the record as a line of a dataset."""
    fields = {
        "id": record.id,
        "question": record.question,
        "context": record.context,
        "answers": record.references,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("squad", help="SQuAD v1.1's train questions as QA records")
    parser.add_argument("triviaqa", help="TriviaQA's train questions as QA records")
    parser.add_argument("--output", type=Path, required=True, help="folder of the files")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, records in build_parts(options.squad, options.triviaqa):
        text = "".join(map(format_line, records))
        (options.output / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(records)} records")


if __name__ == "__main__":
    main()
