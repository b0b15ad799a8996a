"""The data of a run: training and validation records stay apart, and files with equal names too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard.errors import DatasetError, InputError
from aspire_trainers.config import TrainingConfig
from aspire_trainers.data.training_data import TrainingData


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    path = tmp_path / "qa.jsonl"
    rows = [
        {
            "question": f"Which {i}-{j}?",
            "context": f"Passage {i}.",
            "answers": ["a"],
            "answer": "b",
        }
        for i in range(20)
        for j in "abc"
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _respell(path: str) -> str:
    """Return another spelling of the path."""
    folder = Path(path).parent
    return str(folder / ".." / folder.name / Path(path).name)


@pytest.mark.parametrize("limit", [None, 31])
def test_validation_records_share_no_context_with_training_records(
    dataset: str, limit: int | None
) -> None:
    """The share counts contexts, after the limit is applied."""
    data = TrainingData.load([dataset], [], TrainingConfig(limit=limit, validation_share=0.2))
    assert len(data.train) + len(data.validation) == (limit or 60)
    aside = {record.context for record in data.validation}
    assert not aside & {record.context for record in data.train}
    assert len(aside) == (4 if limit is None else 2)
    assert data.sources == ("qa.jsonl",)


def test_a_validation_dataset_is_taken_whole(dataset: str, tmp_path: Path) -> None:
    """The limit applies to training datasets only, and ids stay unique although two datasets share some."""
    (tmp_path / "held-out").mkdir()
    held_out = tmp_path / "held-out" / "qa.jsonl"
    held_out.write_text('{"question": "Who?", "answers": "Ada"}\n' * 3, encoding="utf-8")
    data = TrainingData.load(
        [dataset], [str(held_out)], TrainingConfig(limit=6, validation_share=0)
    )
    assert (len(data.train), len(data.validation)) == (6, 3)
    assert len({record.id for record in (*data.train, *data.validation)}) == 9


def test_validation_data_that_is_training_data_is_refused(dataset: str) -> None:
    """A threshold chosen on training data would promise too much, however its path is spelled."""
    with pytest.raises(InputError, match="expected other validation than training data"):
        TrainingData.load(
            [dataset],
            [_respell(dataset)],
            TrainingConfig(),
        )
    with pytest.raises(
        InputError, match=r"expected other validation than training data, found .*qa\.jsonl as both"
    ):
        TrainingData.load([dataset], [dataset], TrainingConfig())


def test_validation_questions_that_are_trained_on_are_refused(dataset: str, tmp_path: Path) -> None:
    """A copy of the training file, or of a part of it, is refused too."""
    rows = Path(dataset).read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text(
        "".join(rows[:3]) + '{"question": "Who?", "answers": "Ada"}', encoding="utf-8"
    )
    with pytest.raises(
        InputError, match=r"not trained on, found 3 of 4 that are, the first part\.jsonl/"
    ):
        TrainingData.load(
            [dataset], [str(tmp_path / "part.jsonl")], TrainingConfig(validation_share=0)
        )


def test_a_validation_dataset_that_is_given_twice_counts_once(dataset: str, tmp_path: Path) -> None:
    """Otherwise its answers would count twice in the calibration."""
    file = tmp_path / "held-out.jsonl"
    file.write_text('{"question": "Who?", "answers": "Ada"}', encoding="utf-8")
    twice = [str(file), _respell(str(file))]
    data = TrainingData.load([dataset], twice, TrainingConfig(validation_share=0))
    assert len(data.validation) == 1


@pytest.mark.parametrize("load", [TrainingData.load, TrainingData.load_answers])
def test_records_of_files_with_one_name_keep_apart(
    load: Callable[..., TrainingData], tmp_path: Path
) -> None:
    """Otherwise one file's answers would count as answers to the other file's questions with the same id."""
    files = [tmp_path / folder / "qa.jsonl" for folder in ("mine", "held-out")]
    for file in files:
        file.parent.mkdir()
        row = {
            "id": "q1",
            "question": f"Who is {file.parent.name}?",
            "answers": "Ada",
            "answer": file.parent.name,
        }
        file.write_text(json.dumps(row), encoding="utf-8")
    names = [str(file) for file in files]
    data = load(names[:1], names[1:], TrainingConfig(validation_share=0))
    assert [record.id for record in (*data.train, *data.validation)] == [
        f"{name}/q1" for name in names
    ]
    given = [data.get_chain_answers(records) for records in (data.train, data.validation)]
    assert [answers and answers[0].texts for answers in given] in (
        [None, None],
        [["mine"], ["held-out"]],
    )


def test_answers_over_several_contexts_are_learned_from_or_set_aside(tmp_path: Path) -> None:
    """A retrieving chain may find another passage each time, but a question's answers stay on one side of the split."""
    rows = [
        {
            "id": f"q{i}",
            "question": f"{i}?",
            "answers": "Ada",
            "answer": "Ada",
            "context": f"passage {i}, found {j}",
        }
        for i in range(10)
        for j in range(3)
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = TrainingData.load_answers([str(file)], [], TrainingConfig(validation_share=0.3))
    train = {record.question for record in data.train}
    validation = {record.question for record in data.validation}
    assert (len(train), len(validation)) == (7, 3)
    assert not train & validation


@pytest.mark.parametrize("load", [TrainingData.load, TrainingData.load_answers])
def test_a_dataset_that_is_given_twice_counts_once(
    load: Callable[..., TrainingData], dataset: str
) -> None:
    """Otherwise its questions could be on both sides of the split, also if its path is spelled in two ways."""
    one, two = (
        load(names, [], TrainingConfig()) for names in ([dataset], [dataset, _respell(dataset)])
    )
    assert (two.train, two.validation) == (one.train, one.validation)
    assert two.chain_answers == one.chain_answers


def test_the_digest_tells_data_apart(dataset: str) -> None:
    """Equal calls give equal digests, and another seed gives another digest."""
    digests = [
        TrainingData.load([dataset], [], TrainingConfig(seed=seed, limit=9)).digest()
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_data_without_a_single_reference_is_refused(tmp_path: Path) -> None:
    """There is no answer to learn from. A missing file is a dataset error."""
    path = tmp_path / "qa.jsonl"
    path.write_text('{"question": "Who?", "answers": []}\n', encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected training records with an answer, found none in .*qa\.jsonl; add some",
    ):
        TrainingData.load([str(path)], [], TrainingConfig())
    with pytest.raises(DatasetError):
        TrainingData.load([str(tmp_path / "nowhere.jsonl")], [], TrainingConfig())
