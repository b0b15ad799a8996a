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

from aspire_guard.errors import EvaluatorFolderError, InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.evaluators.evaluator_folder import read_manifest, seal_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import load_base_model
from aspire_trainers.config import (
    SamplingConfig,
    SelfEvaluationConfig,
    TaskTuningConfig,
    TrainingConfig,
)
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import lock_file
from aspire_trainers.stages.preflight import check_context_window


def _make_config(base: Path, **changes: Any) -> TrainingConfig:
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


def _make_records(first: int, last: int) -> tuple[QARecord, ...]:
    return tuple(
        QARecord(f"{i}-{j}", f"Which {j}?", f"Passage {i}.", (f"no. {i}",) if i % 4 else ())
        for i in range(first, last)
        for j in range(2)
    )


DATA = TrainingData(("tiny.jsonl",), _make_records(0, 10), _make_records(10, 13))


def _read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluator of an uninterrupted run."""
    return train_evaluator(_make_config(base), DATA, tmp_path_factory.mktemp("trained") / "out")


def test_twins_that_argue_move_the_self_evaluation_alone(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """Adversarial variants change θs, and θp stays the same."""
    config = _make_config(base)
    with_twins = config.model_copy(
        update={"self_evaluation": config.self_evaluation.model_copy(update={"persuasion": 1.0})}
    )
    ours, others = (
        _read_files(trained),
        _read_files(train_evaluator(with_twins, DATA, tmp_path / "out")),
    )
    assert config.self_evaluation.persuasion == 0
    assert ours["task/adapter_model.safetensors"] == others["task/adapter_model.safetensors"]
    assert (
        ours["self_eval/adapter_model.safetensors"] != others["self_eval/adapter_model.safetensors"]
    )


@pytest.mark.parametrize("folds", [1, 2])
def test_training_goes_on_from_an_evaluator(
    base: Path, trained: Path, tmp_path: Path, folds: int
) -> None:
    """At a tiny learning rate stages 1 and 3 end at the start's weights, whatever kind of adapter the recipe names."""
    before = _read_files(trained)
    slow: dict[str, Any] = {"learning_rate": 1e-12, "epochs": 1, "batch_size": 2}
    config = _make_config(
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
    assert _read_files(trained) == before


def test_without_stage_one_the_task_adapter_of_the_start_stays(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """The method "none" leaves θp as it is, and θs learns from its answers."""
    config = _make_config(base, init_from=str(trained), task=TaskTuningConfig(method="none"))
    data = replace(DATA, validation=())  # else the start stays, where training makes it no better
    ours, others = (
        _read_files(trained),
        _read_files(train_evaluator(config, data, tmp_path / "out")),
    )
    assert ours["task/adapter_model.safetensors"] == others["task/adapter_model.safetensors"]
    assert (
        ours["self_eval/adapter_model.safetensors"] != others["self_eval/adapter_model.safetensors"]
    )


@pytest.mark.parametrize("method", ["lora", "soft_prompt"])
def test_from_scratch_leaves_the_task_adapter_and_makes_another_self_evaluation(
    base: Path, trained: Path, tmp_path: Path, method: Literal["lora", "soft_prompt"]
) -> None:
    """With the settings and θp of the first run stage 3 ends at the same θs. Another method gives another kind."""
    config = _make_config(base, init_from=str(trained), task=TaskTuningConfig(method="none"))
    again = config.self_evaluation.model_copy(update={"method": method, "from_scratch": True})
    output = train_evaluator(
        config.model_copy(update={"self_evaluation": again}), DATA, tmp_path / "out"
    )
    ours, others = _read_files(trained), _read_files(output)
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
    """The start is an evaluator of another base model, or does not exist."""
    with pytest.raises(EvaluatorFolderError, match="expected"):
        train_evaluator(_make_config(base, init_from=init_from), DATA, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_killed_in_every_stage_ends_with_the_same_evaluator(
    base: Path, trained: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """SIGKILL in task tuning, in answer sampling and in self-evaluation: the fourth call ends with the same bytes."""
    output, work = tmp_path / "out", tmp_path / ".out.work"
    config = _make_config(base)
    for left_behind in ("task.safetensors", "answers-train.jsonl", "self_eval.safetensors"):
        train_until(work / left_behind, config, DATA, output)
        assert not output.exists()
    train_evaluator(config, DATA, output)
    killed, through = _read_files(output), _read_files(trained)
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
    """The folder loads by itself, finds its base model and scores, and the work folder is gone."""
    evaluator = SelfEvaluator.from_pretrained(trained)
    (score,) = evaluator.score(
        [Exchange(question="Which 0?", context="Passage 1.", answer="no. 1")]
    )
    assert 0 <= score.confidence <= 1
    assert evaluator.manifest.base_model.name == str(base)
    assert list(trained.parent.iterdir()) == [trained]


def test_the_manifest_tells_how_it_was_trained(base: Path, trained: Path) -> None:
    """The provenance has data, settings and versions."""
    manifest = read_manifest(trained)
    assert (manifest.num_beams, manifest.max_new_tokens) == (2, 5)
    assert manifest.correctness == CorrectnessRule(method="token_f1", threshold=0.6)
    provenance = manifest.provenance
    assert provenance["datasets"] == ["tiny.jsonl"]
    assert (provenance["train_records"], provenance["validation_records"]) == (20, 6)
    assert provenance["config"] == _make_config(base).model_dump(mode="json")
    assert provenance["data_digest"] == DATA.digest()
    assert set(provenance["versions"]) == {"aspire-guard", "torch", "transformers", "peft"}


def test_a_finished_run_is_not_made_again(
    base: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same call returns the folder unchanged, without running a stage."""
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert train_evaluator(_make_config(base), DATA, trained) == trained
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    assert "task tuning" not in capsys.readouterr().err


def test_the_work_that_a_finished_run_left_is_removed(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """A kill may come before the work is removed. Another run's work stays."""
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
        train_evaluator(_make_config(base), DATA, tmp_path / "out")
        assert work.exists() == stays


def test_a_run_that_an_earlier_version_finished_is_not_made_again(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """A setting that the earlier version lacked has its default."""
    shutil.copytree(trained, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "aspire.json").read_text("utf-8"))
    del manifest["provenance"]["config"]["self_evaluation"]["persuasion"]
    (tmp_path / "out" / "aspire.json").write_text(json.dumps(manifest), encoding="utf-8")
    seal_evaluator(tmp_path / "out")
    assert train_evaluator(_make_config(base), DATA, tmp_path / "out") == tmp_path / "out"


def test_progress_is_shown_for_every_stage(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage shows its steps, its loss and the time left on standard error."""
    fit: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 4, "validate_every": 2}
    config = _make_config(
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
    """Equal seeds give equal weights, as the killed run shows."""
    other = train_evaluator(_make_config(base, seed=1), DATA, tmp_path / "out")
    for name in ("task/adapter_model.safetensors", "self_eval/adapter_model.safetensors"):
        assert (other / name).read_bytes() != (trained / name).read_bytes()


def test_a_recipe_may_say_alpha(base: Path, trained: Path, tmp_path: Path) -> None:
    """The manifest has this α, and the selection score is computed with it."""
    again = _make_config(
        base, init_from=str(trained), task=TaskTuningConfig(method="none"), alpha=0.4
    )
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
    """There is no early stopping and no calibration, and no answer is released."""
    fit: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 4}
    config = _make_config(
        base,
        task=TaskTuningConfig(text="Answer", **fit),
        self_evaluation=SelfEvaluationConfig(text="Right?", **fit),
    )
    output = train_evaluator(
        config, TrainingData(("x",), _make_records(1, 3), ()), tmp_path / "out"
    )
    evaluator = SelfEvaluator.from_pretrained(output)
    assert (evaluator.manifest.alpha, evaluator.threshold, evaluator.calibration.n) == (
        0.25,
        1.0,
        0,
    )


def test_an_output_of_another_base_model_or_another_start_is_refused(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    """The settings name the same folders, but their content has changed."""
    start, own = (
        shutil.copytree(trained, tmp_path / "start"),
        shutil.copytree(base, tmp_path / "base"),
    )
    config = _make_config(own, init_from=str(start), task=TaskTuningConfig(method="none"))
    train_evaluator(config, DATA, tmp_path / "out")
    assert train_evaluator(config, DATA, tmp_path / "out") == tmp_path / "out"
    again = TrainingData(("other.jsonl",), DATA.train, DATA.validation)
    shutil.rmtree(start)
    train_evaluator(_make_config(own, seed=9), again, start)
    with pytest.raises(
        InputError, match=r"expected a new folder, found another evaluator in .*out"
    ):
        train_evaluator(config, DATA, tmp_path / "out")


def test_a_record_that_does_not_fit_is_named_before_anything_is_trained(
    base: Path, tmp_path: Path
) -> None:
    """A record must fit 512 tokens with its prompt and the longest answer that may be sampled."""
    long = replace(DATA.train[3], context="x" * 470)
    data = replace(DATA, train=(*DATA.train[:3], long, *DATA.train[4:]))
    with pytest.raises(
        InputError, match=rf"{long.id}: expected at most 512 tokens of .*, found 5\d\d; shorten"
    ):
        train_evaluator(_make_config(base), data, tmp_path / "out")
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
    """θs may see an answer that argues, a text that repeats the answer, or another question's reference."""
    one, other = (replace(DATA.train[i], context=f"Passage: {'x' * context}") for i in range(2))
    if "distractors" in stage:
        one, other = replace(one, question="?" * 99), replace(other, references=("y" * 399,))
    data = TrainingData(("x",), (one, other), ())
    plain = _make_config(base)
    check_context_window(AspireLM(load_base_model(str(base))), plain, data)
    config = _make_config(base, self_evaluation=plain.self_evaluation.model_copy(update=stage))
    with pytest.raises(
        InputError, match=rf"{one.id}: expected at most 512 tokens of .*, found 5\d\d; shorten"
    ):
        train_evaluator(config, data, tmp_path / "out")
    assert not (tmp_path / ".out.work").exists()


def test_a_recipe_may_choose_the_verdict_words(base: Path, tmp_path: Path) -> None:
    """An evaluator keeps its words, and so does training that starts from it."""
    fit: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 4}
    config = _make_config(
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
    """A word of several tokens is refused, and so are two words with the same token."""
    config = _make_config(base)
    stage = config.self_evaluation.model_copy(update=words)
    with pytest.raises(
        InputError, match=r"expected (one token for the verdict 'right'|two verdicts), found"
    ):
        train_evaluator(
            config.model_copy(update={"self_evaluation": stage}), DATA, tmp_path / "out"
        )
    assert not (tmp_path / ".out.work").exists()


def test_an_output_that_holds_another_evaluator_is_refused(base: Path, trained: Path) -> None:
    """A run with other settings or other data does not overwrite the evaluator."""
    before = _read_files(trained)
    for config, data in (
        (_make_config(base, seed=5), DATA),
        (_make_config(base), TrainingData(("x",), _make_records(0, 2), ())),
    ):
        with pytest.raises(
            InputError,
            match=r"expected a new folder, found another evaluator in .*; choose another output",
        ):
            train_evaluator(config, data, trained)
    assert _read_files(trained) == before


def test_an_output_that_holds_files_is_refused(base: Path, tmp_path: Path) -> None:
    """The user's files are never touched."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected a new or empty folder, found files in .*; choose another output",
    ):
        train_evaluator(_make_config(base), DATA, tmp_path / "out")
    assert _read_files(tmp_path) == {"out/thesis.txt": b"mine"}


def test_an_output_that_is_a_file_is_refused(base: Path, tmp_path: Path) -> None:
    """The user's file stays."""
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected a new or empty folder, found a file at .*; choose another output",
    ):
        train_evaluator(_make_config(base), DATA, tmp_path / "out")
    assert _read_files(tmp_path) == {"out": b"mine"}


def test_too_many_folds_are_refused_before_anything_is_trained(base: Path, tmp_path: Path) -> None:
    """Too few passages are noticed before any training."""
    config = _make_config(base, sampling=SamplingConfig(k=3, max_new_tokens=5, folds=11))
    with pytest.raises(InputError, match="expected 11 contexts or more for 11 folds, found 10"):
        train_evaluator(config, DATA, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_that_another_process_is_at_is_refused(
    base: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """Two processes would overwrite each other's checkpoints. The first one's work stays."""
    train_until(
        tmp_path / ".out.work" / "task.safetensors", _make_config(base), DATA, tmp_path / "out"
    )
    with (
        lock_file(tmp_path / ".out.work" / "lock"),
        pytest.raises(
            InputError, match=r"lock: expected a file of this run alone, found another process"
        ),
    ):
        train_evaluator(_make_config(base), DATA, tmp_path / "out")
    assert (tmp_path / ".out.work" / "task.safetensors").exists()


def test_an_unfinished_run_with_other_settings_is_refused(base: Path, tmp_path: Path) -> None:
    """The unfinished work is neither mixed with other settings nor deleted."""
    work = tmp_path / ".out.work"
    work.mkdir()
    (work / "run.json").write_text('{"config": "of another run"}', encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"expected the settings and data of the unfinished run in .*\.out\.work, found others",
    ):
        train_evaluator(_make_config(base), DATA, tmp_path / "out")
    assert (work / "run.json").exists()
