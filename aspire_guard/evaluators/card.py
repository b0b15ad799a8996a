"""The card of an evaluator: its parts, its training and its held-out results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.selection.calibration import Calibration, Threshold

_METHOD_NAMES = {
    "soft_prompt": "soft prompt",
    "lora": "LoRA",
    "none": "none: the base model answers as it is",
}


def render_card(manifest: Mapping[str, Any], calibration: Calibration) -> str:
    """Return the README.md of an evaluator folder, in Markdown."""
    lines = [
        "# Evaluator for aspire-guard",
        "",
        "Judges whether an answer to a question is right (ASPIRE: Chen et al., Findings of EMNLP 2023).",
        "Generated from `aspire.json` and `calibration.json`; edits are lost when the evaluator is saved again.",
        "",
        "| | |",
        "|---|---|",
        *_render_parts(manifest),
        *_render_thresholds(calibration),
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
    ]
    for name, value in manifest["provenance"].items():
        lines.append(f"| {name} | {_render_cell(value)} |")
    if manifest["metrics"]:
        lines += ["", "## Held-out results", "", *render_metrics_table(manifest["metrics"])]
    return "\n".join(lines) + "\n"


def render_metrics_table(metrics: Mapping[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of held-out results by dataset."""
    lines = [
        "In %, with bootstrap 95 % intervals; every score on the same answers. Released: at the evaluator's threshold,",
        "and how many of these are right.",
        "",
        "| dataset | n | accuracy | released (right) | score | AUROC | AUACC |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset, result in metrics.items():
        n, accuracy = result["n"], _render_estimate(result["accuracy"])
        for score, values in result["scores"].items():
            # The threshold applies to the evaluator's own score, so only that row has a decision.
            released = _render_released(result) if score == "aspire" else ""
            auroc = _render_estimate(values["auroc"])
            auacc = _render_estimate(values["auacc"])
            lines.append(
                f"| {dataset} | {n} | {accuracy} | {released} | {score} | {auroc} | {auacc} |"
            )
    return lines


def _render_parts(manifest: Mapping[str, Any]) -> list[str]:
    """Return the rows on the model, its adapters and its selection score."""
    base_model, methods = manifest["base_model"], manifest["methods"]
    rule = CorrectnessRule.model_validate(manifest["correctness"])
    source = ""
    if manifest["likelihood"] == "chain":
        source = ", on the log-probabilities that the chain's model reports"
    return [
        f"| base model | {base_model['name']} (fingerprint `{base_model['fingerprint'][:12]}`) |",
        f"| θp | {_METHOD_NAMES[methods['task']]} |",
        f"| θs | {_METHOD_NAMES[methods['self_eval']]} |",
        f"| right means | {'rated as right' if manifest.get('rule') else _render_cell(rule)} |",
        *_render_score(manifest, source),
    ]


def _render_score(manifest: Mapping[str, Any], source: str) -> list[str]:
    """Return the rows on the selection score: the paper's g, or the weights of the signals."""
    rule = manifest.get("rule")
    if rule is None:
        return [f"| selection score | α = {manifest['alpha']:g}{source} |"]
    rows: list[str] = []
    for kind, fitted in rule.items():
        terms = [f"{weight:.3f} · {name}" for name, weight in fitted["weights"].items()]
        terms.append(f"{fitted['intercept']:.3f}")
        rows.append(f"| selection score, {kind.replace('_', ' ')} | {' + '.join(terms)} |")
    return [*rows, f"| g, reported beside it | α = {manifest['alpha']:g} |"]


def _render_thresholds(calibration: Calibration) -> list[str]:
    """Return the rows on the threshold and its promise, and a row for every other band and group."""
    promise = calibration.guarantee or _explain_missing_guarantee(calibration)
    rows = [
        f"| threshold | confidence ≥ {calibration.threshold:.3f} |",
        f"| what it promises | {promise} |",
    ]
    accept = calibration.threshold_for()
    others = [threshold for threshold in calibration.thresholds if threshold != accept]
    return rows + [_render_threshold(threshold) for threshold in others]


def _render_threshold(threshold: Threshold) -> str:
    name = threshold.name
    if threshold.group is not None:
        name = f"{name} of group {threshold.group}"
    promise = threshold.guarantee.sentence if threshold.guarantee else "no guarantee"
    return f"| {_render_cell(name)} | confidence ≥ {threshold.confidence:.3f}: {promise} |"


def _explain_missing_guarantee(calibration: Calibration) -> str:
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


def _render_cell(value: Any) -> str:
    """Return a value as the text of a table's cell, with line breaks and bars escaped."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_render_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "<br>".join(map(_render_cell, value))
    return str(value).replace("\n", "\\n").replace("|", "\\|")


def _render_released(result: Mapping[str, Any]) -> str:
    """Return the share of released answers in %, and in brackets the share of right answers among them."""
    accuracy = result["selective_accuracy"]
    right = "–" if accuracy is None else f"{100 * accuracy:.1f}"
    return f"{100 * result['coverage']:.1f} ({right})"


def _render_estimate(estimate: Mapping[str, float] | None) -> str:
    """Return an estimate in % with its interval, or a dash if the metric is undefined."""
    if estimate is None:
        return "–"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
