"""Run every benchmark on a language model and print their results as a page.

Run: `python benchmarks [--data squad_dev.jsonl] > docs/benchmarks.md`. The options are passed on to each benchmark.
"""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_SCRIPTS = ("answer_sampling", "self_evaluation_epoch", "scoring", "guarded_answer")
_INTRODUCTION = """# Benchmarks

Each benchmark compares our code with a plain way of doing the same. Both run in turn in one process, with SmolLM2-135M
in float32. A line gives the median seconds of both, and the ratio as min / median / max over the pairs."""

_OTHER_PAGES = """
## The quality of the scores

[Answers of large language models](real-answers.md), [the paper's table](paper-table.md) and [answers that argue for
themselves](robustness.md) have benchmarks of their own."""


def main(options: list[str]) -> None:
    """Print the page, with a section for each script."""
    processor = platform.processor() or platform.machine()
    command = " ".join(Path(option).name for option in ["benchmarks", *options])
    versions = f"torch {version('torch')} and transformers {version('transformers')}"
    print(_INTRODUCTION)
    print(f"Made by `python {command}` on {processor} with {os.cpu_count()} cores, {versions}.")
    for name in _SCRIPTS:
        script = Path(__file__).with_name(f"{name}.py")
        docstring = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
        title, _, text = docstring.partition("\n\n")
        run = subprocess.run(
            [sys.executable, script, *options],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        print(f"\n## {title.rstrip('.')}\n\n{text}\n")
        print(f"```text\n{run.stdout.strip()}\n```", flush=True)
    print(_OTHER_PAGES)


if __name__ == "__main__":
    main(sys.argv[1:])
