"""Training in two processes under `accelerate launch`: the trajectory of one, and one evaluator after a kill."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from aspire_guard.evaluators.evaluator_folder import read_manifest
from aspire_trainers.config import TrainingConfig
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.run.distributed import get_processes, shard_mean_loss

SCRIPT = Path(__file__).with_name("trajectory.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
LAUNCH += [
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
    "--main_process_port=0",
]
ON_CPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}
RECIPE = """
[task]
text = "Answer"
length = 3
batch_size = 3
checkpoint_every = 1
[sampling]
k = 3
max_new_tokens = 5
batch_size = 2
[self_evaluation]
text = "Right?"
rank = 2
epochs = 4
batch_size = 3
checkpoint_every = 1
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of the script in this process."""
    folder = tmp_path_factory.mktemp("alone")
    found: dict[str, Any] = json.loads(
        json.dumps(dict(runpy.run_path(str(SCRIPT))["train_all_stages"](folder)))
    )
    return found | {"file": (folder / "answers.jsonl").read_bytes()}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The output of the script in each of two processes."""
    folder = tmp_path_factory.mktemp("together")
    subprocess.run([*LAUNCH, str(SCRIPT), str(folder)], env=ON_CPU, check=True, capture_output=True)
    file = {"file": (folder / "answers.jsonl").read_bytes()}
    return [json.loads((folder / f"{i}-of-2.json").read_text("utf-8")) | file for i in range(2)]


def test_two_processes_sample_the_same_answers(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    """The file is the same to the last byte, and both processes have its answers."""
    for found in together:
        assert found["answers"] == alone["answers"]
        assert found["file"] == alone["file"]


@pytest.mark.parametrize("stage", ["task", "self_eval"])
@pytest.mark.parametrize("method", ["soft_prompt", "lora"])
def test_two_processes_follow_the_trajectory_of_one(
    alone: dict[str, Any], together: list[dict[str, Any]], stage: str, method: str
) -> None:
    """Both processes have the same loss in every step and validation, and the same final weights."""
    expected = alone[f"{stage}-{method}"]
    assert len(expected["losses"]) == 12
    assert len(expected["held_out"]) == 6
    for found in (process[f"{stage}-{method}"] for process in together):
        for losses in ("losses", "held_out"):
            torch.testing.assert_close(found[losses], expected[losses], **CLOSE)
        torch.testing.assert_close(found["weights"], expected["weights"], **CLOSE)


def test_one_process_has_no_group() -> None:
    """Without a launcher a run is one process, and its part of a loss is the whole loss, to the last bit."""
    items = [1.0, 2.0, 4.0]
    (part,) = shard_mean_loss(lambda share: [torch.tensor(share).mean()], items)
    assert torch.equal(part, torch.tensor(items).mean())
    assert get_processes().num_processes == 1
    assert not torch.distributed.is_initialized()


@pytest.fixture
def command(base: Path, tmp_path: Path) -> list[str]:
    """`aspire-guard train` in two processes, without the name of its output."""
    rows = [
        {"question": f"Which {j}?", "context": f"Passage {i}.", "answers": [f"no. {i}"]}
        for i in range(6)
        for j in range(2)
    ]
    (tmp_path / "qa.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    (tmp_path / "recipe.toml").write_text(
        f"model = {json.dumps(str(base))}\nvalidation_share = 0.2\n{RECIPE}", "utf-8"
    )
    return [
        *LAUNCH,
        "--module",
        "aspire_guard",
        "train",
        "--recipe",
        "recipe.toml",
        "--train",
        "qa.jsonl",
        "--output",
    ]


def _kill_when_written(file: Path, command: list[str], folder: Path) -> None:
    """Run the command until `file` holds something, then kill the launcher and every process that it has started."""
    process = psutil.Popen(
        command, cwd=folder, env=ON_CPU, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (file.exists() and file.stat().st_size):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.002)
    finally:
        family = [process, *process.children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family)


def test_two_killed_processes_end_with_the_evaluator_of_one(
    base: Path, tmp_path: Path, command: list[str]
) -> None:
    """Both are killed in self-evaluation. The same command continues, and only one of the two processes prints."""
    config = TrainingConfig.load(tmp_path / "recipe.toml")
    data = TrainingData.load([str(tmp_path / "qa.jsonl")], [], config)
    alone = train_evaluator(config, data, tmp_path / "alone")

    _kill_when_written(
        tmp_path / ".two.work" / "self_eval.safetensors", [*command, "two"], tmp_path
    )
    assert not (tmp_path / "two").exists()
    run = subprocess.run(
        [*command, "two"], cwd=tmp_path, env=ON_CPU, check=True, capture_output=True, text=True
    )
    two = tmp_path / "two"
    assert run.stdout.count("two: an evaluator for") == 1
    assert run.stderr.count("α and calibration: 2/2 answers") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alone",
        "qa.jsonl",
        "recipe.toml",
        "two",
    ]
    for name in ("task/adapter_model.safetensors", "self_eval/adapter_model.safetensors"):
        torch.testing.assert_close(load_file(two / name), load_file(alone / name), **CLOSE)
    assert read_manifest(two).provenance == read_manifest(alone).provenance
