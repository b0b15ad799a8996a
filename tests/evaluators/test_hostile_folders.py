"""Folders from strangers: each is refused in one line or scores as the original, and none runs code.

`HOSTILE_FOLDERS=2000 python -m pytest tests/evaluators/test_hostile_folders.py` tries more of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from time import perf_counter

import pytest

from aspire_guard.errors import EvaluatorFolderError
from aspire_guard.evaluators.evaluator_folder import save_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.testing import tiny_evaluator, tiny_lm
from tests.evaluators.hostile_folders import CHANGES, spoil

FOLDERS = int(os.environ.get("HOSTILE_FOLDERS", "120"))
SECONDS = 5
CANARY = "raise SystemExit('the canary was imported')"


def _hash_weights(lm: LanguageModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in lm.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluator = tiny_evaluator(self_eval="lora")
    folder = tmp_path_factory.mktemp("sound") / "evaluator"
    save_evaluator(folder, evaluator.aspire, evaluator.manifest, evaluator.calibration)
    return folder


@pytest.mark.parametrize("first", range(len(CHANGES)), ids=[change.__name__ for change in CHANGES])
def test_a_hostile_folder_is_refused_or_harmless(
    first: int,
    sound: Path,
    lm: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It costs less than five seconds, imports nothing it names and leaves every base weight alone."""
    (tmp_path / "canary.py").write_text(CANARY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    exchanges = [Exchange(question="Who?", context="Ada wrote it.", answer="Ada.")]
    expected = SelfEvaluator.from_pretrained(sound, lm=lm).score(exchanges)
    weights = _hash_weights(lm)
    for seed in range(first, FOLDERS, len(CHANGES)):
        folder = tmp_path / str(seed) / "evaluator"
        shutil.copytree(sound, folder)
        what = f"seed {seed}: {spoil(folder, seed)}"
        started = perf_counter()
        try:
            scores = SelfEvaluator.from_pretrained(folder, lm=lm).score(exchanges)
        except EvaluatorFolderError as error:
            scores, message = expected, str(error)
        else:
            message = ""
        assert scores == expected, what
        assert "\n" not in message, what
        assert len(message) < 1500, what
        assert perf_counter() - started < SECONDS, what
        assert _hash_weights(lm) == weights, what
        assert "canary" not in sys.modules, what
        shutil.rmtree(folder.parent)
