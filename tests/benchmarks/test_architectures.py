"""The table of architectures, on a sample: each works or is refused in one line, and nothing else happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from architecture_configs import list_architectures, make_config
from architectures import try_architecture
from reading_trees import compare_trees
from transformers import AutoModelForCausalLM

from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.smollm2 import silence_transformers
from aspire_guard.testing import tiny_lm

# Rotary, learned and no positions, mixtures of experts, fused and latent projections, a config inside the config.
WORK = ("gpt2", "olmo2", "phi3", "mixtral", "phimoe", "deepseek_v3", "fuyu", "phi3, LongRoPE")
# Recurrent layers, convolutions, attention in both directions, a head of two layers.
REFUSED = ("mamba", "rwkv", "qwen3_next", "lfm2", "bert, both directions", "bert")
# Windows, windows that count slots, and ALiBi.
OTHERS = ("mistral", "gpt_neo", "bloom", "mpt", "falcon, ALiBi")


@pytest.fixture(autouse=True)
def _quiet(single_thread: None) -> Iterator[None]:
    with silence_transformers():
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", WORK + REFUSED + OTHERS)
def test_an_architecture_works_or_is_refused(architecture: str, tmp_path: Path) -> None:
    """A tiny model of it agrees with plain passes in every way of reading and can be trained, or it isn't loaded."""
    outcome = try_architecture(architecture, tmp_path)
    expected = {"works"} if architecture in WORK else {"refused"}
    if architecture in OTHERS:
        expected = {"works", "refused"}
    assert outcome.kind in expected, outcome
    assert "\n" not in outcome.detail


def test_the_comparison_notices_a_model_that_reads_otherwise() -> None:
    """A token that sees what follows it gives other predictions, by far more than rounding."""
    config = make_config("bert, both directions")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    lm = LanguageModel(model, tiny_lm().tokenizer)
    assert compare_trees(lm, model, 8)["branched"] > 0.1


def test_at_least_sixty_architectures_are_tried() -> None:
    """The table lists all that the installed release knows, and variants of some."""
    assert len(set(list_architectures())) > 150
    assert set(WORK + REFUSED + OTHERS) <= set(list_architectures())
