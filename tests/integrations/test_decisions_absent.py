"""Decision models with a langchain-core that has none."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_an_older_langchain_core_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is needed and how to get it."""
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", None)
    monkeypatch.delitem(sys.modules, "aspire_integrations.decisions", raising=False)
    with pytest.raises(
        ImportError,
        match=r"expected langchain-core 1\.8 or newer, which has decision models; found 1",
    ):
        importlib.import_module("aspire_integrations.decisions")
