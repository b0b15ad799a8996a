"""The card of an evaluator: what it is, what it was trained on, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.selection.calibration import Calibration, Threshold

_OF_CHAIN = ", on the log-probabilities that the chain's model reports"


def render_card(manifest: Mapping[str, Any], calibration: Calibration) -> str:
    """The README.md of an evaluator folder, in Markdown."""
    base = manifest["base_model"]
    lines = [
        "# Evaluator for aspire-guard",
        "",
        "Judges whether an answer to a question is right (ASPIRE: Chen et al., Findings of EMNLP 2023).",
        "Generated from `aspire.json` and `calibration.json`; edits are lost when the evaluator is saved again.",
        "",
        "| | |",
        "|---|---|",
        f"| base model | {base['name']} (fingerprint `{base['fingerprint'][:12]}`) |",
        f"| θp | {_method(manifest['methods']['task'])} |",
        f"| θs | {_method(manifest['methods']['self_eval'])} |",
        f"| right means | {_plain(CorrectnessRule.model_validate(manifest['correctness']))} |",
        f"| selection score | α = {manifest['alpha']:g}{_OF_CHAIN if manifest['likelihood'] == 'chain' else ''} |",
        f"| threshold | confidence ≥ {calibration.threshold:.3f} |",
        f"| what it promises | {calibration.guarantee or _no_guarantee(calibration)} |",
        *(
            _band(threshold)
            for threshold in calibration.thresholds
            if threshold != calibration.threshold_for()
        ),
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_plain(value)} |" for name, value in manifest["provenance"].items()),
    ]
    if manifest["metrics"]:
        lines += ["", "## Held-out results", "", *metrics_table(manifest["metrics"])]
    return "\n".join(lines) + "\n"


def _method(name: str) -> str:
    return {
        "soft_prompt": "soft prompt",
        "lora": "LoRA",
        "none": "none: the base model answers as it is",
    }[name]


def _band(threshold: Threshold) -> str:
    """A row on a threshold beside the evaluator's own."""
    group = "" if threshold.group is None else f" of group {threshold.group}"
    promise = threshold.guarantee.sentence if threshold.guarantee else "no guarantee"
    return (
        f"| {_plain(threshold.name + group)} | confidence ≥ {threshold.confidence:.3f}: {promise} |"
    )


def _no_guarantee(calibration: Calibration) -> str:
    accept = calibration.threshold_for()
    if accept is None and any(threshold.releases for threshold in calibration.thresholds):
        return "nothing of answers without a group, which are not released"
    if accept is None or not accept.releases:
        return f"nothing: no threshold reached the target on {calibration.n} validation answers, so nothing is released"
    if accept.objective == "accuracy":
        reached = f"on {calibration.n} validation answers the released ones reached an accuracy of {accept.target:g}"
    else:
        reached = f"it was chosen for a {accept.objective} of {accept.target:g} on {calibration.n} validation answers"
    return f"no guarantee: {reached}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "<br>".join(map(_plain, value))
    return str(value).replace("\n", "\\n").replace("|", "\\|")


def _estimate(estimate: Mapping[str, float] | None) -> str:
    """In %, with its interval; a dash where the metric is undefined."""
    if estimate is None:
        return "–"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def metrics_table(metrics: Mapping[str, Any]) -> list[str]:
    """The lines of a Markdown table of held-out results by dataset."""
    rows = [
        "In %, with bootstrap 95 % intervals; every score on the same answers. Released: at the evaluator's threshold,",
        "and how many of these are right.",
        "",
        "| dataset | n | accuracy | released (right) | score | AUROC | AUACC |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset, result in metrics.items():
        right = result["selective_accuracy"]
        released = (
            f"{100 * result['coverage']:.1f} ({'–' if right is None else f'{100 * right:.1f}'})"
        )
        for score, values in result["scores"].items():
            auroc, auacc = (_estimate(values[name]) for name in ("auroc", "auacc"))
            accuracy, decided = _estimate(result["accuracy"]), released if score == "aspire" else ""
            rows.append(
                f"| {dataset} | {result['n']} | {accuracy} | {decided} | {score} | {auroc} | {auacc} |"
            )
    return rows
