"""The training data of the starter's second part: what θs may learn from, and what may choose α and the threshold.

Run: `python trainers/recipes/starter_data.py squad_train.jsonl triviaqa_train.jsonl --output .`

`*_seen.jsonl` are the questions that the first part (starter_passages.toml) was trained on, `*_aside.jsonl` those that
it set aside; TriviaQA, which it had none of, is parted anew. `moved_*.jsonl` are questions of SQuAD before another
passage, which has none of their references.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from aspire_trainers.config import TrainingConfig
from aspire_trainers.data.batching import split_by_context, take
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.record import QARecord

FIRST_PART = Path(__file__).with_name("starter_passages.toml")
TRIVIAQA, TRIVIAQA_ASIDE = 1400, 1 / 7
MOVED = 0.08


def moved(records: Sequence[QARecord], n: int, *, seed: int) -> Iterator[QARecord]:
    """Out of `n` questions of passages drawn at random those that some other passage of `records` does not answer.

    The other passage is the next one in the file that will do, so in SQuAD it is mostly of the same article.
    """
    passages = list(dict.fromkeys(record.context for record in records))
    for record in take(records, n, seed):
        place = passages.index(record.context)
        for passage in passages[place + 1 :] + passages[:place]:
            if passage and not any(
                answer.casefold() in passage.casefold() for answer in record.references
            ):
                yield replace(record, id=f"moved-{record.id}", context=passage, references=())
                break


def parts(squad: str, triviaqa: str) -> Iterator[tuple[str, list[QARecord]]]:
    """Each file's name and its records."""
    data = TrainingData.load(["handbook:train", squad], [], TrainingConfig.load(FIRST_PART))
    for part, records in (("seen", data.train), ("aside", data.validation)):
        for name, source in (("squad", Path(squad).name), ("handbook", "handbook:train")):
            own = [
                _unprefixed(record, source)
                for record in records
                if record.id.startswith(f"{source}/")
            ]
            yield f"{name}_{part}", own
            if name == "squad":
                yield f"moved_{part}", list(moved(own, round(MOVED * len(own)), seed=0))
    drawn = take(load_dataset(triviaqa), TRIVIAQA, seed=0)
    seen, aside = split_by_context(drawn, TRIVIAQA_ASIDE, seed=0)
    yield from (("triviaqa_seen", seen), ("triviaqa_aside", aside))


def _unprefixed(record: QARecord, source: str) -> QARecord:
    return replace(record, id=record.id.removeprefix(f"{source}/"))


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("squad", help="SQuAD v1.1's train questions as QA records")
    parser.add_argument("triviaqa", help="TriviaQA's")
    parser.add_argument("--output", type=Path, required=True, help="folder of the files")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, records in parts(options.squad, options.triviaqa):
        lines = (json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
        (options.output / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}: {len(records)} records")


if __name__ == "__main__":
    main()
