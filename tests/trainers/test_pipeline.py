"""The three stages in a row: from records to an evaluator folder, killed at any stage and resumed."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file

from aspire_guard.errors import DatasetError, EvaluatorFolderError, InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.evaluators.evaluator_folder import read_manifest
from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.exchange import Exchange
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import load_base_model
from aspire_guard.selection.metrics import auroc
from aspire_trainers.config import (
    SamplingConfig,
    SelfEvaluationConfig,
    TaskTuningConfig,
    TrainingConfig,
)
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import lock_file
from aspire_trainers.stages.alpha_selection import calibrate, choose_alpha
from aspire_trainers.stages.preflight import check_context_window


def _config(base: Path, **changes: Any) -> TrainingConfig:
    fit: dict[str, Any] = {
        "length": 3,
        "epochs": 4,
        "batch_size": 2,
        "validate_every": 5,
        "checkpoint_every": 1,
    }
    values: dict[str, Any] = {
        "model": str(base),
        "task": TaskTuningConfig(text="Answer", **fit),
        "sampling": SamplingConfig(k=3, max_new_tokens=5, batch_size=2),
        "self_evaluation": SelfEvaluationConfig(text="Right?", **fit),
        "num_beams": 2,
        "correctness": CorrectnessRule(method="token_f1", threshold=0.6),
    }
    return TrainingConfig(**(values | changes))


def _records(first: int, last: int) -> tuple[QARecord, ...]:
    return tuple(
        QARecord(f"{i}-{j}", f"Which {j}?", f"Passage {i}.", (f"no. {i}",) if i % 4 else ())
        for i in range(first, last)
        for j in range(2)
    )


DATA = TrainingData(("tiny.jsonl",), _records(0, 10), _records(10, 13))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluator of an uninterrupted run."""
    return train_evaluator(_config(base), DATA, tmp_path_factory.mktemp("trained") / "out")


def test_twins_that_argue_move_the_self_evaluation_alone(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """With them θs is another one, θp the same."""
    config = _config(base)
    with_twins = config.model_copy(
        update={"self_evaluation": config.self_evaluation.model_copy(update={"persuasion": 1.0})}
    )
    ours, others = _files(trained), _files(train_evaluator(with_twins, DATA, tmp_path / "out"))
    assert config.self_evaluation.persuasion == 0
    assert ours["task/adapter_model.safetensors"] == others["task/adapter_model.safetensors"]
    assert (
        ours["self_eval/adapter_model.safetensors"] != others["self_eval/adapter_model.safetensors"]
    )


@pytest.mark.parametrize("folds", [1, 2])
def test_training_goes_on_from_an_evaluator(
    base: Path, trained: Path, tmp_path: Path, folds: int
) -> None:
    """At a rate of next to nothing it ends where it starts, in stages 1 and 3, whatever the recipe would make anew."""
    before = _files(trained)
    slow: dict[str, Any] = {"learning_rate": 1e-12, "epochs": 1, "batch_size": 2}
    config = _config(
        base,
        init_from=str(trained),
        task=TaskTuningConfig(method="lora", **slow),
        self_evaluation=SelfEvaluationConfig(method="soft_prompt", **slow),
        sampling=SamplingConfig(k=3, max_new_tokens=5, folds=folds),
    )
    del (values := config.model_dump(exclude_unset=True))["model"]
    config = TrainingConfig.model_validate(values)  # the base model is that of the start
    output = train_evaluator(config, DATA, tmp_path / "out")
    manifests = [read_manifest(folder) for folder in (trained, output)]
    assert manifests[0].methods == manifests[1].methods
    assert manifests[1].provenance["went_on_from"] == manifests[0].provenance
    for adapter in ("task", "self_eval"):
        one, other = (
            load_file(folder / adapter / "adapter_model.safetensors")
            for folder in (trained, output)
        )
        assert all(torch.allclose(one[name], other[name], atol=1e-6, rtol=0) for name in one)
    assert _files(trained) == before


def test_without_stage_one_the_task_adapter_of_the_start_stays(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """The method "none" leaves θp as it is, and θs learns from its answers."""
    config = _config(base, init_from=str(trained), task=TaskTuningConfig(method="none"))
    data = replace(DATA, validation=())  # else the start stays, where training makes it no better
    ours, others = _files(trained), _files(train_evaluator(config, data, tmp_path / "out"))
    assert ours["task/adapter_model.safetensors"] == others["task/adapter_model.safetensors"]
    assert (
        ours["self_eval/adapter_model.safetensors"] != others["self_eval/adapter_model.safetensors"]
    )


@pytest.mark.parametrize("method", ["lora", "soft_prompt"])
def test_from_scratch_leaves_the_task_adapter_and_makes_another_self_evaluation(
    base: Path, trained: Path, tmp_path: Path, method: Literal["lora", "soft_prompt"]
) -> None:
    """With the settings and θp of the first run, stage 3 ends where it ended; with others θs is of their kind."""
    config = _config(base, init_from=str(trained), task=TaskTuningConfig(method="none"))
    again = config.self_evaluation.model_copy(update={"method": method, "from_scratch": True})
    output = train_evaluator(
        config.model_copy(update={"self_evaluation": again}), DATA, tmp_path / "out"
    )
    ours, others = _files(trained), _files(output)
    assert ours["task/adapter_model.safetensors"] == others["task/adapter_model.safetensors"]
    assert read_manifest(output).methods.self_eval == method
    same = (
        ours["self_eval/adapter_model.safetensors"] == others["self_eval/adapter_model.safetensors"]
    )
    assert same == (method == read_manifest(trained).methods.self_eval)


@pytest.mark.parametrize("init_from", ["starter", "nowhere"])
def test_a_start_that_does_not_fit_is_refused_before_anything_is_done(
    base: Path, tmp_path: Path, init_from: str
) -> None:
    """An evaluator of another base model, or none at all."""
    with pytest.raises(EvaluatorFolderError, match="expected"):
        train_evaluator(_config(base, init_from=init_from), DATA, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_killed_in_every_stage_ends_with_the_same_evaluator(
    base: Path, trained: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """SIGKILL in task tuning, in answer sampling and in self-evaluation: the fourth call ends with the same bytes."""
    output, work = tmp_path / "out", tmp_path / ".out.work"
    config = _config(base)
    for left_behind in ("task.safetensors", "answers-train.jsonl", "self_eval.safetensors"):
        train_until(work / left_behind, config, DATA, output)
        assert not output.exists()
    train_evaluator(config, DATA, output)
    killed, through = _files(output), _files(trained)
    assert set(killed) == set(through)
    for name in set(killed) - {"aspire.json", "README.md"}:
        assert killed[name] == through[name], name
    # The date of training is all that may differ.
    one, two = (json.loads(files["aspire.json"]) for files in (killed, through))
    one["provenance"].pop("date")
    two["provenance"].pop("date")
    assert one == two
    assert list(tmp_path.iterdir()) == [output]


def test_the_folder_is_an_evaluator(base: Path, trained: Path) -> None:
    """It loads by itself, finds its base model and scores; its work folder is gone."""
    evaluator = SelfEvaluator.from_pretrained(trained)
    (score,) = evaluator.score(
        [Exchange(question="Which 0?", context="Passage 1.", answer="no. 1")]
    )
    assert 0 <= score.confidence <= 1
    assert evaluator.manifest.base_model.name == str(base)
    assert list(trained.parent.iterdir()) == [trained]


def test_the_manifest_tells_how_it_was_trained(base: Path, trained: Path) -> None:
    """Data, settings and versions are all there."""
    manifest = read_manifest(trained)
    assert (manifest.num_beams, manifest.max_new_tokens) == (2, 5)
    assert manifest.correctness == CorrectnessRule(method="token_f1", threshold=0.6)
    provenance = manifest.provenance
    assert provenance["datasets"] == ["tiny.jsonl"]
    assert (provenance["train_records"], provenance["validation_records"]) == (20, 6)
    assert provenance["config"] == _config(base).model_dump(mode="json")
    assert provenance["data_digest"] == DATA.digest()
    assert set(provenance["versions"]) == {"aspire-guard", "torch", "transformers", "peft"}


def test_a_finished_run_is_not_made_again(
    base: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same call returns the folder as it is, without a stage."""
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert train_evaluator(_config(base), DATA, trained) == trained
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    assert "task tuning" not in capsys.readouterr().err


def test_what_a_finished_run_left_behind_is_removed(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """A kill may come between the two; what another run has left stays."""
    shutil.copytree(trained, tmp_path / "out")
    work = tmp_path / ".out.work"
    other = {"config": "of another run"}
    mine = json.loads((trained / "aspire.json").read_text("utf-8"))
    run = {
        "config": mine["provenance"]["config"],
        "data": DATA.digest(),
        "model": mine["base_model"]["fingerprint"],
    }
    for left, stays in ((other, True), (run | {"start": {}}, False)):
        work.mkdir(exist_ok=True)
        (work / "run.json").write_text(json.dumps(left), encoding="utf-8")
        train_evaluator(_config(base), DATA, tmp_path / "out")
        assert work.exists() == stays


def test_a_run_that_an_earlier_version_finished_is_not_made_again(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """It knew fewer settings; those of today stand at their defaults."""
    shutil.copytree(trained, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "aspire.json").read_text("utf-8"))
    del manifest["provenance"]["config"]["self_evaluation"]["persuasion"]
    (tmp_path / "out" / "aspire.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert train_evaluator(_config(base), DATA, tmp_path / "out") == tmp_path / "out"


def test_progress_is_shown_for_every_stage(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage tells its steps, its loss and the time left on standard error."""
    fit: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 4, "validate_every": 2}
    config = _config(
        base,
        task=TaskTuningConfig(text="Answer", **fit),
        self_evaluation=SelfEvaluationConfig(text="Right?", **fit),
    )
    train_evaluator(config, DATA, tmp_path / "out")
    shown = capsys.readouterr().err
    for line in (
        r"1/3 task tuning: 4/4 steps loss \d\.\d+ · held-out \d\.\d+ \(best \d\.\d+\) \d+ s left",
        r"2/3 answer sampling \(train\): 10/10 batches  \d+ s left",
        r"3/3 self-evaluation: 5/5 steps loss \d\.\d+ · held-out \d\.\d+ \(best \d\.\d+\) \d+ s left",
        r"α and calibration: 6/6 answers  \d+ s left",
    ):
        assert re.search(line, shown), line


def test_another_seed_gives_other_weights(base: Path, trained: Path, tmp_path: Path) -> None:
    """And an equal one the same, as the run that was killed shows."""
    other = train_evaluator(_config(base, seed=1), DATA, tmp_path / "out")
    for name in ("task/adapter_model.safetensors", "self_eval/adapter_model.safetensors"):
        assert (other / name).read_bytes() != (trained / name).read_bytes()


def test_a_recipe_may_say_alpha(base: Path, trained: Path, tmp_path: Path) -> None:
    """It stands in the manifest, and confidence and threshold are those of its score."""
    again = _config(base, init_from=str(trained), task=TaskTuningConfig(method="none"), alpha=0.4)
    evaluator = SelfEvaluator.from_pretrained(train_evaluator(again, DATA, tmp_path / "out"))
    record = DATA.validation[0]
    score = evaluator.score(
        [Exchange(question=record.question, context=record.context, answer="no. 10")]
    )[0]
    assert evaluator.manifest.alpha == 0.4
    assert score.log_likelihood is not None
    assert score.p_correct is not None
    assert score.selection_score == pytest.approx(
        0.6 * score.log_likelihood + 0.4 * math.log(score.p_correct)
    )


def test_without_validation_records_the_paper_s_alpha_stands(base: Path, tmp_path: Path) -> None:
    """Nothing stops early, nothing is calibrated on, nothing is released."""
    fit: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 4}
    config = _config(
        base,
        task=TaskTuningConfig(text="Answer", **fit),
        self_evaluation=SelfEvaluationConfig(text="Right?", **fit),
    )
    output = train_evaluator(config, TrainingData(("x",), _records(1, 3), ()), tmp_path / "out")
    evaluator = SelfEvaluator.from_pretrained(output)
    assert (evaluator.manifest.alpha, evaluator.threshold, evaluator.calibration.n) == (
        0.25,
        1.0,
        0,
    )


def test_an_output_of_another_base_model_or_another_start_is_refused(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """Though the settings name the same folders: what these hold is another."""
    start, own = (
        shutil.copytree(trained, tmp_path / "start"),
        shutil.copytree(base, tmp_path / "base"),
    )
    config = _config(own, init_from=str(start), task=TaskTuningConfig(method="none"))
    train_evaluator(config, DATA, tmp_path / "out")
    assert train_evaluator(config, DATA, tmp_path / "out") == tmp_path / "out"
    again = TrainingData(("other.jsonl",), DATA.train, DATA.validation)
    shutil.rmtree(start)
    train_evaluator(_config(own, seed=9), again, start)
    with pytest.raises(
        InputError, match=r"expected a new folder, found another evaluator in .*out"
    ):
        train_evaluator(config, DATA, tmp_path / "out")


def test_a_record_that_does_not_fit_is_named_before_anything_is_trained(
    base: Path, tmp_path: Path
) -> None:
    """Of 512 tokens: with its prompt and reference, or with the longest answer that may be sampled."""
    long = replace(DATA.train[3], context="x" * 470)
    data = replace(DATA, train=(*DATA.train[:3], long, *DATA.train[4:]))
    with pytest.raises(
        InputError, match=rf"{long.id}: expected at most 512 tokens of .*, found 5\d\d; shorten"
    ):
        train_evaluator(_config(base), data, tmp_path / "out")
    assert not (tmp_path / ".out.work").exists()


@pytest.mark.parametrize(
    ("stage", "context"),
    [
        ({"persuasion": 1.0}, 425),
        (
            {
                "text": "\nQuestion: {question}\nAnswer: {answer}\nRight?",
                "method": "lora",
                "rank": 2,
            },
            425,
        ),
        ({"distractors": 1}, 9),
    ],
)
def test_what_theta_s_may_be_shown_must_fit_too(
    base: Path, tmp_path: Path, stage: dict[str, Any], context: int
) -> None:
    """An answer that argues, a text that repeats it, or the reference of another question about the passage."""
    one, other = (replace(DATA.train[i], context=f"Passage: {'x' * context}") for i in range(2))
    if "distractors" in stage:
        one, other = replace(one, question="?" * 99), replace(other, references=("y" * 399,))
    data = TrainingData(("x",), (one, other), ())
    plain = _config(base)
    check_context_window(AspireLM(load_base_model(str(base))), plain, data)
    config = _config(base, self_evaluation=plain.self_evaluation.model_copy(update=stage))
    with pytest.raises(
        InputError, match=rf"{one.id}: expected at most 512 tokens of .*, found 5\d\d; shorten"
    ):
        train_evaluator(config, data, tmp_path / "out")
    assert not (tmp_path / ".out.work").exists()


def test_the_verdicts_are_other_words_where_the_recipe_says_so(base: Path, tmp_path: Path) -> None:
    """An evaluator keeps its words, and training that goes on from it takes them over."""
    fit: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 4}
    config = _config(
        base,
        task=TaskTuningConfig(method="none"),
        self_evaluation=SelfEvaluationConfig(correct=" true", wrong=" false", text="Right?", **fit),
    )
    first = train_evaluator(config, DATA, tmp_path / "first")
    stage = SelfEvaluationConfig(text="Right?", **fit)
    second = train_evaluator(
        config.model_copy(update={"init_from": str(first), "self_evaluation": stage}),
        DATA,
        tmp_path / "second",
    )
    for folder in (first, second):
        manifest = read_manifest(folder)
        assert (manifest.correct, manifest.wrong) == (" true", " false")


@pytest.mark.parametrize("words", [{"correct": "right"}, {"correct": "r", "wrong": " r"}])
def test_verdicts_that_are_not_two_tokens_are_refused_before_anything_is_trained(
    base: Path, tmp_path: Path, words: dict[str, str]
) -> None:
    """The tiny model's tokens are bytes."""
    config = _config(base)
    stage = config.self_evaluation.model_copy(update=words)
    with pytest.raises(
        InputError, match=r"expected (one token for the verdict 'right'|two verdicts), found"
    ):
        train_evaluator(
            config.model_copy(update={"self_evaluation": stage}), DATA, tmp_path / "out"
        )
    assert not (tmp_path / ".out.work").exists()


def test_an_output_that_holds_another_evaluator_is_refused(base: Path, trained: Path) -> None:
    """Other settings, or other data, don't overwrite it."""
    before = _files(trained)
    for config, data in (
        (_config(base, seed=5), DATA),
        (_config(base), TrainingData(("x",), _records(0, 2), ())),
    ):
        with pytest.raises(
            InputError,
            match=r"expected a new folder, found another evaluator in .*; choose another output",
        ):
            train_evaluator(config, data, trained)
    assert _files(trained) == before


def test_an_output_that_holds_files_is_refused(base: Path, tmp_path: Path) -> None:
    """A folder of the user's is never written into."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected a new or empty folder, found files in .*; choose another output",
    ):
        train_evaluator(_config(base), DATA, tmp_path / "out")
    assert _files(tmp_path) == {"out/thesis.txt": b"mine"}


def test_an_output_that_is_a_file_is_refused(base: Path, tmp_path: Path) -> None:
    """It stays."""
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected a new or empty folder, found a file at .*; choose another output",
    ):
        train_evaluator(_config(base), DATA, tmp_path / "out")
    assert _files(tmp_path) == {"out": b"mine"}


def test_too_many_folds_are_refused_before_anything_is_trained(base: Path, tmp_path: Path) -> None:
    """The number of passages is known beforehand."""
    config = _config(base, sampling=SamplingConfig(k=3, max_new_tokens=5, folds=11))
    with pytest.raises(InputError, match="expected 11 contexts or more for 11 folds, found 10"):
        train_evaluator(config, DATA, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_that_another_process_is_at_is_refused(
    base: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """Two would tread on each other's checkpoints; what the first has done stays."""
    train_until(tmp_path / ".out.work" / "task.safetensors", _config(base), DATA, tmp_path / "out")
    with (
        lock_file(tmp_path / ".out.work" / "lock"),
        pytest.raises(
            InputError, match=r"lock: expected a file of this run alone, found another process"
        ),
    ):
        train_evaluator(_config(base), DATA, tmp_path / "out")
    assert (tmp_path / ".out.work" / "task.safetensors").exists()


def test_an_unfinished_run_with_other_settings_is_refused(base: Path, tmp_path: Path) -> None:
    """Its work is neither mixed with other settings nor thrown away."""
    work = tmp_path / ".out.work"
    work.mkdir()
    (work / "run.json").write_text('{"config": "of another run"}', encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected the settings and data of the unfinished run in .*\.out\.work, found others",
    ):
        train_evaluator(_config(base), DATA, tmp_path / "out")
    assert (work / "run.json").exists()


def _judged(*rows: tuple[float, float, bool]) -> list[JudgedAnswer]:
    """Of a question each."""
    return [JudgedAnswer(QARecord(f"{i}", "Who?"), "x", ("x",), *row) for i, row in enumerate(rows)]


def test_alpha_is_chosen_by_the_ranking_it_gives() -> None:
    """Where only the self-evaluation knows, α is high; where only the likelihood does, it is low."""
    knowing = [(-0.1 * i, i < 10) for i in range(20)]
    noise = [-0.1 * (7 * i % 20) - (i % 2) for i in range(20)]
    by_judgement = _judged(*((n, k, right) for n, (k, right) in zip(noise, knowing, strict=True)))
    by_likelihood = _judged(*((k, n, right) for n, (k, right) in zip(noise, knowing, strict=True)))
    assert choose_alpha(by_judgement) > 0.5
    assert choose_alpha(by_likelihood) < 0.5


def test_alpha_stays_the_paper_s_where_another_is_better_by_chance() -> None:
    """Of twelve answers, a single pair that the likelihood ranks the wrong way does not decide."""
    judged = _judged(*((-0.1 * i, -0.1 * i, i < 6) for i in range(12)))
    judged[5], judged[6] = (
        replace(judged[5], log_likelihood=-0.9),
        replace(judged[6], log_likelihood=-0.1),
    )
    correct = [answer.correct for answer in judged]
    blended = [selection_score(a.log_likelihood, a.log_p_correct, 0.25) for a in judged]
    assert auroc(blended, correct) < auroc([a.log_p_correct for a in judged], correct) == 1
    assert choose_alpha(judged) == 0.25


def test_alpha_does_not_mistake_answers_to_one_question_for_questions() -> None:
    """Where another α is better by chance on twelve questions, it is not beyond chance for being sampled ten times."""
    judged = _judged(*((-0.1 * i, -0.1 * i, i < 6) for i in range(12)))
    judged[5], judged[6] = (
        replace(judged[5], log_likelihood=-0.9),
        replace(judged[6], log_likelihood=-0.1),
    )
    assert choose_alpha([answer for answer in judged for _ in range(10)]) == 0.25
    others = [
        replace(a, record=QARecord(f"{a.record.id}/{i}", "Who?")) for a in judged for i in range(10)
    ]
    assert choose_alpha(others) != 0.25


def test_the_paper_s_alpha_wins_a_tie() -> None:
    """Where every α ranks alike, 0.25 is taken, and the calibration is that of its scores."""
    judged = _judged(*((-0.1 * i, -0.2 * i, i < 12) for i in range(24)))
    alpha, calibration = choose_alpha(judged), calibrate(judged, choose_alpha(judged), 0.8)
    assert alpha == 0.25
    assert calibration.n == 24
    assert calibration.target_accuracy == 0.8
    scores = [selection_score(-0.1 * i, -0.2 * i, 0.25) for i in range(24)]
    released = [score for score in scores if calibration.confidence(score) >= calibration.threshold]
    assert len(released) == 15


@pytest.mark.parametrize("right", [True, False])
def test_alpha_is_the_paper_s_where_no_ranking_can_be_measured(right: bool) -> None:
    """All right or all wrong."""
    assert choose_alpha(_judged(*((-0.1 * i, -0.2, right) for i in range(12)))) == 0.25


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    path = tmp_path / "qa.jsonl"
    rows = [
        {"question": f"Which {i}-{j}?", "context": f"Passage {i}.", "answers": ["a"]}
        for i in range(20)
        for j in "abc"
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("limit", [None, 31])
def test_validation_records_share_no_context_with_training_records(
    dataset: str, limit: int | None
) -> None:
    """The share is one of contexts, after the limit was applied."""
    data = TrainingData.load([dataset], [], TrainingConfig(limit=limit, validation_share=0.2))
    assert len(data.train) + len(data.validation) == (limit or 60)
    aside = {record.context for record in data.validation}
    assert not aside & {record.context for record in data.train}
    assert len(aside) == (4 if limit is None else 2)
    assert data.sources == ("qa.jsonl",)


def test_a_validation_dataset_is_taken_whole(dataset: str, tmp_path: Path) -> None:
    """The limit is for training datasets; ids stay unique where two datasets use the same ones."""
    (tmp_path / "held-out").mkdir()
    held_out = tmp_path / "held-out" / "qa.jsonl"
    held_out.write_text('{"question": "Who?", "answers": "Ada"}\n' * 3, encoding="utf-8")
    data = TrainingData.load(
        [dataset], [str(held_out)], TrainingConfig(limit=6, validation_share=0)
    )
    assert (len(data.train), len(data.validation)) == (6, 3)
    assert len({record.id for record in (*data.train, *data.validation)}) == 9


def test_validation_data_that_is_training_data_is_refused(dataset: str) -> None:
    """A threshold that is chosen on it would promise too much; also where its path is written in another way."""
    with pytest.raises(InputError, match="expected other validation than training data"):
        TrainingData.load(
            [dataset],
            [str(Path(dataset).parent / "." / ".." / Path(dataset).parent.name / "qa.jsonl")],
            TrainingConfig(),
        )
    with pytest.raises(
        InputError, match=r"expected other validation than training data, found .*qa\.jsonl as both"
    ):
        TrainingData.load([dataset], [dataset], TrainingConfig())


def test_validation_questions_that_are_trained_on_are_refused(dataset: str, tmp_path: Path) -> None:
    """A copy of the file, or a part of it, is no other data."""
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
    """Else its answers would count twice in the calibration."""
    file = tmp_path / "held-out.jsonl"
    file.write_text('{"question": "Who?", "answers": "Ada"}', encoding="utf-8")
    twice = [str(file), str(file.parent / "." / ".." / file.parent.name / file.name)]
    assert (
        len(TrainingData.load([dataset], twice, TrainingConfig(validation_share=0)).validation) == 1
    )


@pytest.mark.parametrize("load", [TrainingData.load, TrainingData.load_answers])
def test_records_of_files_with_one_name_keep_apart(
    load: Callable[..., TrainingData], tmp_path: Path
) -> None:
    """The answers of one would pass for answers to the other's questions of the same id."""
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
    given = [data.given_of(records) for records in (data.train, data.validation)]
    assert [answers and answers[0].texts for answers in given] in (
        [None, None],
        [["mine"], ["held-out"]],
    )


def test_answers_over_several_contexts_are_learned_from_or_set_aside(tmp_path: Path) -> None:
    """A chain that retrieves may find another passage the next time; none of a question's answers crosses over."""
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
    sides = [{record.question for record in records} for records in (data.train, data.validation)]
    assert [len(side) for side in sides] == [7, 3]
    assert not sides[0] & sides[1]


def test_a_dataset_that_is_given_twice_counts_once(dataset: str) -> None:
    """Under another spelling of its path too: else its questions would stand on both sides of the split."""
    other = str(Path(dataset).parent / "." / ".." / Path(dataset).parent.name / Path(dataset).name)
    one, two = (
        TrainingData.load(names, [], TrainingConfig()) for names in ([dataset], [dataset, other])
    )
    assert len(two.train) == len(one.train)
    assert len(two.validation) == len(one.validation)


def test_the_digest_tells_data_apart(dataset: str) -> None:
    """The same call gives the same digest, another seed another."""
    digests = [
        TrainingData.load([dataset], [], TrainingConfig(seed=seed, limit=9)).digest()
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_data_without_a_single_reference_is_refused(tmp_path: Path) -> None:
    """There is nothing to learn an answer from; a missing file is a dataset error."""
    path = tmp_path / "qa.jsonl"
    path.write_text('{"question": "Who?", "answers": []}\n', encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected training records with an answer, found none in .*qa\.jsonl; add some",
    ):
        TrainingData.load([str(path)], [], TrainingConfig())
    with pytest.raises(DatasetError):
        TrainingData.load([str(tmp_path / "nowhere.jsonl")], [], TrainingConfig())
