"""Give an evaluator the probe that tells refusals from answers, and print its results on what it was not fitted on.

Run: `python trainers/recipes/refusal_probe.py EVALUATOR`

Reading the answers takes some minutes. `--like OTHER` takes over the probe of an evaluator that reads answers with
the same base model and adapter instead, in a second. `aspire-guard fit` passes the probe on by itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import Manifest, read_manifest, save_refusal_probe
from aspire_guard.evaluators.refusal_probe import RefusalProbe
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_trainers.data.declining_answers import load_declining_answers
from aspire_trainers.stages.refusal_fitting import fit_refusal_probe, read_values


def take_over(folder: Path, other: Path) -> RefusalProbe:
    """Return the probe of another evaluator.

    Raises:
        InputError: the other evaluator has no probe, or another base model or adapter.
    """
    mine, theirs = read_manifest(folder), read_manifest(other)
    if theirs.refusal is None:
        raise InputError(
            f"expected an evaluator with a probe for refusals, found {other} without one; leave out --like"
        )
    if _identify_reader(mine) != _identify_reader(theirs):
        raise InputError(
            f"expected evaluators that read answers alike, found {folder} and {other}; leave out --like"
        )
    return theirs.refusal


def _identify_reader(manifest: Manifest) -> tuple[object, ...]:
    """Return what the values that an answer leaves behind depend on."""
    folder = "self_eval/" if manifest.methods.reach == "all" else "task/"
    reader = {name: digest for name, digest in manifest.files.items() if name.startswith(folder)}
    template = manifest.template.model_copy(update={"plain_answers": True})
    return manifest.base_model.fingerprint, folder, reader, template


def fit(folder: Path) -> RefusalProbe:
    """Fit a probe for an evaluator, and print its results."""
    answers = load_declining_answers()
    values = read_values(SelfEvaluator.from_pretrained(folder), answers)
    probe, results = fit_refusal_probe(values, answers)
    for result in results:
        print(
            f"{result.name}: {result.n:,} answers, AUROC {result.auroc:.3f}, {result.recall:.1%} of the refusals told, "
            f"{result.false_alarms:.1%} of the other answers taken for refusals"
        )
    return probe


def main() -> None:
    """Read the arguments and write the probe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluator", type=Path, help="The evaluator folder.")
    parser.add_argument("--like", type=Path, help="An evaluator whose probe is taken over.")
    arguments = parser.parse_args()
    folder: Path = arguments.evaluator
    probe = take_over(folder, arguments.like) if arguments.like else fit(folder)
    save_refusal_probe(folder, probe)
    print(f"{folder}: the evaluator with its probe")


if __name__ == "__main__":
    main()
