"""Imports by name: whatever a module does while it is imported, the command ends in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspire_guard.errors import InputError
from aspire_guard.import_by_name import check_name, import_by_name


def test_a_module_that_ends_the_process_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script without a main guard would otherwise end a command with exit code 0."""
    (tmp_path / "ending_script.py").write_text("import sys\nsys.exit(0)", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"found a call of sys\.exit\(0\)"):
        import_by_name("ending_script:chain")


@pytest.mark.parametrize("name", ["", ":", "a", "a:", ":a", "a.b", "a b:c", "../a:b", "a:b:c"])
def test_a_name_of_another_form_is_refused_without_an_import(name: str) -> None:
    """Only `package.module:name` is a name."""
    with pytest.raises(InputError, match=r"name it as package\.module:name"):
        check_name(name)
