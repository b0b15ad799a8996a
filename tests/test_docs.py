"""The documentation: its examples run, its figures are those of the evaluator that ships."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from aspire_guard.evaluators.card import render_metrics_table
from aspire_guard.evaluators.evaluator_folder import find_starter_folder, read_manifest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_there_are_pages() -> None:
    """README and the docs folder are where this test looks for them."""
    assert {page.name for page in PAGES} >= {
        "README.md",
        "quickstart.md",
        "how-it-works.md",
        "train.md",
        "guard.md",
    }


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if EXAMPLE.search(page.read_text("utf-8"))],
    ids=lambda p: p.name,
)
def test_the_examples_of_a_page_run(page: Path) -> None:
    """A reader who types the examples of a page one after another meets no error."""
    namespace: dict[str, object] = {}
    for example in EXAMPLE.findall(page.read_text("utf-8")):
        exec(compile(example, str(page), "exec"), namespace)
    assert namespace


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_has_the_figures_of_the_starter_evaluator() -> None:
    """Every row of measured figures in the starter's card stands in the README, as it is."""
    rows = [
        row
        for row in render_metrics_table(read_manifest(find_starter_folder()).metrics)
        if row.startswith("| ")
    ]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(rows) > 3
    assert [row for row in rows if row not in readme] == []


def test_the_page_of_commands_is_up_to_date() -> None:
    """docs/commands.md holds what the commands say of themselves; `make docs` writes it."""
    page = runpy.run_path(str(ROOT / "docs" / "commands.py"))["page"]
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == page()
