"""The probe for refusals, and what it changes in an evaluator's identity."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from aspire_guard.evaluators.evaluator_folder import (
    read_manifest,
    save_evaluator,
    save_refusal_probe,
    seal_evaluator,
)
from aspire_guard.evaluators.refusal_probe import RefusalProbe
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.testing import tiny_evaluator

PROBE = RefusalProbe(weights={0: (1.0, -2.0), 2: (0.5, 0.0)}, intercept=-1.0)


def test_the_probability_is_logistic_in_the_values_of_its_layers() -> None:
    """By hand: −1 + 1·3 − 2·0.5 + 0.5·4 = 3. Other layers don't count."""
    values = tuple(map(torch.tensor, ([3.0, 0.5], [99.0, 99.0], [4.0, 7.0])))
    assert PROBE.measure(values) == pytest.approx(1 / (1 + math.exp(-3.0)))


def test_an_empty_answer_has_no_probability() -> None:
    """It has no tokens, and so no values."""
    assert PROBE.measure(()) is None


@pytest.mark.parametrize(("size", "expected"), [(1e6, 1.0), (-1e6, 0.0)])
def test_values_out_of_all_proportion_overflow_nowhere(size: float, expected: float) -> None:
    """The probability stays in [0, 1]."""
    values = (torch.tensor([size, 0.0]),) * 3
    assert PROBE.measure(values) == pytest.approx(expected)


def test_a_saved_probe_is_a_part_of_the_scores_identity(tmp_path: Path) -> None:
    """Two evaluators that differ in the probe alone have different scores, so both digests differ."""
    evaluator = tiny_evaluator()
    save_evaluator(tmp_path / "e", evaluator.aspire, evaluator.manifest, evaluator.calibration)
    before = SelfEvaluator.from_pretrained(tmp_path / "e", lm=evaluator.aspire.lm)
    save_refusal_probe(tmp_path / "e", PROBE)
    after = SelfEvaluator.from_pretrained(tmp_path / "e", lm=evaluator.aspire.lm)
    assert after.manifest.refusal == PROBE
    assert after.manifest.scorer != before.manifest.scorer
    assert after.fingerprint != before.fingerprint
    assert after.manifest.files == before.manifest.files


def test_evaluators_from_before_the_probe_keep_their_identity(tmp_path: Path) -> None:
    """Scored files name it. A manifest without the field has the digest that it had."""
    evaluator = tiny_evaluator()
    save_evaluator(tmp_path / "e", evaluator.aspire, evaluator.manifest, evaluator.calibration)
    path = tmp_path / "e" / "aspire.json"
    contents = json.loads(path.read_text("utf-8"))
    assert contents.pop("refusal") is None
    path.write_text(json.dumps(contents), "utf-8")
    seal_evaluator(tmp_path / "e")
    manifest = read_manifest(tmp_path / "e")
    files = contents.pop("files")
    adapters = {name: digest for name, digest in files.items() if name != "calibration.json"}
    for name in ("metrics", "provenance", "correctness", "seal"):
        contents.pop(name)
    text = json.dumps([contents, adapters], sort_keys=True)
    assert manifest.scorer == hashlib.sha256(text.encode()).hexdigest()[:16]
