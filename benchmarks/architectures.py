"""A table of the architectures of `transformers` as base models: each works, or is refused when it is loaded.

Run: `python benchmarks/architectures.py [architecture …]`. For every architecture of causal language models that the
installed release can build from a tiny config, a random model is saved and loaded as a base model. If it is accepted,
it reads texts of several times its windows alone, in batches, as branches and in continued caches. Every prediction
must be that of a plain pass to 1e-4 nats. Then the adapters of the default recipe get a gradient. A model that neither
works nor is refused in one line is a failure, and the command ends with exit code 1.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from architecture_configs import POSITIONS, WINDOW, list_architectures, make_config
from reading_trees import compare_trees
from transformers import AutoModelForCausalLM

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import load_base_model
from aspire_guard.lm.smollm2 import silence_transformers
from aspire_guard.testing import tiny_lm
from aspire_trainers.config import TrainingConfig
from aspire_trainers.stages.preflight import check_adapters

TOLERANCE = 1e-4
LONGEST = 3 * WINDOW
# Other parts of a model, such as its eyes, have configs of their own and stay as large as they are.
MOST_MILLIONS = 100


@dataclass(frozen=True)
class Outcome:
    """The outcome for an architecture.

    Attributes:
        architecture: its name in `transformers`, and the variant.
        kind: "works", "refused" when it is loaded, "not built" if there is no tiny model of it, or "fails".
        detail: the largest difference, or the reason.
    """

    architecture: str
    kind: Literal["works", "refused", "not built", "fails"]
    detail: str


def try_architecture(architecture: str, folder: Path) -> Outcome:
    """Build, save, load and compare a tiny model."""
    try:
        _save_tiny_model(architecture, folder)
    except Exception as error:
        # The installed release can't build it, or needs another library for it.
        return Outcome(architecture, "not built", _describe(error))
    try:
        lm = load_base_model(str(folder))
    except BaseModelError as error:
        reason = _shorten(error)
        return Outcome(architecture, "refused" if "\n" not in reason else "fails", reason)
    except Exception as error:
        return Outcome(architecture, "fails", f"at load: {_describe(error)}")
    try:
        plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        differences = compare_trees(lm, plain.eval(), min(LONGEST, lm.max_length // 3))
        worst = max(differences, key=lambda case: differences[case])
        detail = f"{differences[worst]:.0e}"
        if differences[worst] > TOLERANCE:
            return Outcome(architecture, "fails", f"{detail} ({worst})")
        if lm.max_length < POSITIONS:
            detail += f", up to {lm.max_length} tokens"
        else:
            check_adapters(AspireLM(lm), TrainingConfig())
    except BaseModelError as error:
        return Outcome(architecture, "refused", f"when training starts: {_shorten(error)}")
    except Exception as error:
        return Outcome(architecture, "fails", _describe(error))
    return Outcome(architecture, "works", detail)


def _save_tiny_model(architecture: str, folder: Path) -> None:
    """Save a random model whose predictions depend on all of the tokens before them."""
    config = make_config(architecture)
    with torch.device("meta"):
        sizes = AutoModelForCausalLM.from_config(config).parameters()  # type: ignore[no-untyped-call]
    millions = sum(map(torch.numel, sizes)) / 1e6
    if millions > MOST_MILLIONS:
        raise ValueError(f"the tiny config makes {millions:,.0f} million parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    tokenizer = tiny_lm().tokenizer
    ids = tokenizer("A plain pass.", return_tensors="pt").input_ids
    if not model.eval()(input_ids=ids).logits.isfinite().all():
        raise ValueError("the plain pass is not finite")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _shorten(error: BaseModelError) -> str:
    """Return what the error found, without the words that every such error has."""
    found = str(error).partition(", found ")[2].rpartition("; ")[0]
    return found.partition(", which ")[2] or found


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def try_architectures(architectures: Sequence[str]) -> Iterator[Outcome]:
    """Test one architecture after another, each in a folder of its own."""
    for architecture in architectures:
        with tempfile.TemporaryDirectory() as folder:
            yield try_architecture(architecture, Path(folder))


def main() -> None:
    """Print the table, and end with exit code 1 if an architecture neither works nor is refused."""
    parser = ArgumentParser()
    parser.add_argument("architectures", nargs="*", default=list_architectures())
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds: list[str] = []
    print("| architecture | outcome | largest difference, or reason |\n|---|---|---|")
    with silence_transformers():
        for outcome in try_architectures(options.architectures):
            kinds.append(outcome.kind)
            print(f"| {outcome.architecture} | {outcome.kind} | {outcome.detail} |", flush=True)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    print(f"\n{len(kinds)} architectures: {counts}.")
    sys.exit("fails" in kinds)


if __name__ == "__main__":
    main()
