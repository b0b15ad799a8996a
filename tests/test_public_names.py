"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aspire_guard


def test_the_page_of_names_is_sorted_and_whole() -> None:
    """`__all__` is in order, and every name in it can be imported and has a docstring."""
    assert aspire_guard.__all__ == sorted(aspire_guard.__all__)
    assert [name for name in aspire_guard.__all__ if not getattr(aspire_guard, name).__doc__] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy module says no as any module does."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = aspire_guard.nonsense


@pytest.mark.parametrize(
    "statement",
    [
        "import aspire_guard",
        "from aspire_guard import AspireGuard, RoutingPolicy, Verdict, Exchange, ConstantEvaluator",
        "from aspire_guard.testing import ScriptedChatModel",
        "import aspire_guard.cli; aspire_guard.cli.build_app()",
        "import aspire_trainers, aspire_integrations",
    ],
)
def test_importing_loads_no_model_library(statement: str) -> None:
    """The guard, its commands and the other rooms come without torch, transformers and peft."""
    code = f"import sys\n{statement}\nprint([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
