"""The public pages: the names of each package, the cost of importing them, and their use in the docs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from pkgutil import iter_modules

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "aspire_guard",
    "aspire_guard.review",
    "aspire_guard.selection",
    "aspire_guard.testing",
    "aspire_integrations",
    "aspire_trainers",
)
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_and_documented(page: str) -> None:
    """`__all__` and `dir()` list the same names, and each class and function has a docstring."""
    package = import_module(page)
    assert sorted(package.__all__) == dir(package)
    for name in package.__all__:
        value = getattr(package, name)
        if isclass(value) or isfunction(value):
            assert value.__doc__, name


@pytest.mark.parametrize("page", PAGES)
def test_type_checkers_see_the_names_that_are_loaded_at_run_time(page: str) -> None:
    """The imports under TYPE_CHECKING have the names and modules that are loaded."""
    package = import_module(page)
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        declared.update({alias.name: statement.module for alias in statement.names})
    assert declared == package._MODULES


@pytest.mark.parametrize("page", PAGES)
def test_no_module_hides_a_name(page: str) -> None:
    """No module of a page has a public name: Python would give the module in its place."""
    package = import_module(page)
    modules = {module.name for module in iter_modules(package.__path__)}
    assert modules.isdisjoint(package.__all__)


@pytest.mark.parametrize("page", PAGES)
def test_an_unknown_name_is_an_attribute_error(page: str) -> None:
    """A lazy package raises the same error as any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = import_module(page).nonsense


def test_the_docs_import_from_the_public_pages_alone() -> None:
    """No example in the README or the docs needs a module that a reader would have to look up."""
    imported = set()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for example in EXAMPLE.findall(page.read_text("utf-8")):
            for node in ast.walk(ast.parse(example)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("aspire_"):
                    imported.add(node.module)
    assert len(imported) > 3
    assert imported <= set(PAGES)


@pytest.mark.parametrize(
    "statement",
    [
        "import aspire_guard",
        "from aspire_guard import AspireGuard, RoutingPolicy, Verdict, Exchange",
        "from aspire_guard.testing import ScriptedChatModel, ConstantEvaluator",
        "import aspire_guard.cli.app; aspire_guard.cli.app.build_app()",
        "import aspire_trainers, aspire_integrations.cli, aspire_guard.selection",
    ],
)
def test_importing_loads_no_model_library(statement: str) -> None:
    """The guard, its commands and the other packages load without torch, transformers, peft and bm25s."""
    modules = "('torch', 'transformers', 'peft', 'bm25s')"
    code = f"import sys\n{statement}\nprint([m for m in {modules} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
