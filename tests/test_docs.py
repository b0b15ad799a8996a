"""The documentation: its examples run, its links and paths lead somewhere, its figures are measured."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from pkgutil import resolve_name

import pytest

from aspire_guard.evaluators.card import render_metrics_table
from aspire_guard.evaluators.evaluator_folder import find_starter_folder, read_manifest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.glob("*.md")),
]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
# A file with one of these endings, or a folder with a slash at its end.
PATH = re.compile(r"(?<![\w./])[\w.]+(?:/[\w.]+)*(?:\.(?:py|md|toml)\b|/(?!\w))")
# Paths in the diagrams of architecture.md are relative to the package that they are about.
PATH_ROOTS = (
    ROOT,
    ROOT / "aspire_guard",
    ROOT / "trainers" / "aspire_trainers",
    ROOT / "integrations" / "aspire_integrations",
)


def read_page(page: Path) -> str:
    return page.read_text("utf-8")


def find_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", read_page(page)), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def get_name(page: Path) -> str:
    return page.name


def test_the_pages_are_found() -> None:
    """README and the docs folder are where the tests of this file look for them."""
    assert {page.name for page in PAGES} >= {"README.md", "quickstart.md", "train.md", "guard.md"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if EXAMPLE.search(read_page(page))], ids=get_name
)
def test_the_examples_of_a_page_run(page: Path) -> None:
    """A reader who types the examples of a page one after another meets no error."""
    namespace: dict[str, object] = {}
    for example in EXAMPLE.findall(read_page(page)):
        exec(compile(example, str(page), "exec"), namespace)
    assert namespace


@pytest.mark.parametrize("page", PAGES, ids=get_name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file and, after a #, one of its headings."""
    broken = []
    for target, anchor in LINK.findall(CODE_BLOCK.sub("", read_page(page))):
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in find_anchors(file)):
            broken.append((target, anchor))
    assert broken == []


def test_architecture_names_paths_that_exist() -> None:
    """Every file and folder that the page on the architecture names is in the repository."""
    named = set(PATH.findall(read_page(DOCS / "architecture.md")))
    assert "aspire_guard/routing/flow.py" in named
    assert "aspire_guard/lm/" in named
    missing = [path for path in named if not any((root / path).exists() for root in PATH_ROOTS)]
    assert missing == []


def test_the_paper_in_this_code_names_code_that_exists() -> None:
    """Every dotted name in the page on the paper can be imported."""
    named = re.findall(r"`(aspire_\w+(?:\.\w+)+)`", read_page(DOCS / "reproduction.md"))
    assert len(named) > 5
    for dotted in named:
        assert resolve_name(dotted)


def test_the_readme_has_the_figures_of_the_starter_evaluator() -> None:
    """Every row of measured figures in the starter's card is in the README, unchanged."""
    table = render_metrics_table(read_manifest(find_starter_folder()).metrics)
    rows = [line for line in table if line.startswith("| ")]
    readme = read_page(ROOT / "README.md")
    assert len(rows) > 3
    assert [row for row in rows if row not in readme] == []


def test_the_page_of_commands_is_up_to_date() -> None:
    """docs/commands.md is the help text of the commands. `make docs` writes it."""
    make_page = runpy.run_path(str(DOCS / "commands.py"))["format_page"]
    assert read_page(DOCS / "commands.md") == make_page()
