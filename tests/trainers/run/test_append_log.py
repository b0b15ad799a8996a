"""A file that grows line by line and survives a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspire_guard.errors import DatasetError, InputError
from aspire_trainers.run.append_log import AppendOnlyJsonl


def test_lines_are_there_again(tmp_path: Path) -> None:
    """Lines can be read again, and a missing folder is made."""
    with AppendOnlyJsonl(path := tmp_path / "new" / "log") as log:
        log.append({"é": 1})
        log.append([2])
    assert AppendOnlyJsonl(path).values == [{"é": 1}, [2]]
    assert path.read_bytes() == '{"é": 1}\n[2]\n'.encode()


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    """An incomplete line is removed when the file is opened to append, and not before."""
    (path := tmp_path / "log").write_bytes(b"1\n[2,")
    log = AppendOnlyJsonl(path)
    assert (log.values, path.read_bytes()) == ([1], b"1\n[2,")
    with log:
        log.append(3)
    assert path.read_bytes() == b"1\n3\n"


def test_what_can_t_be_a_log_is_named(tmp_path: Path) -> None:
    """The error names the bad line, or gives the system's reason."""
    (path := tmp_path / "log").write_bytes(b"1\nsome text\n")
    with pytest.raises(
        DatasetError,
        match="log, line 2: expected JSON, as an earlier run wrote it, found 'some text'",
    ):
        AppendOnlyJsonl(path)
    with pytest.raises(
        InputError, match="expected a file to append to, found: Is a directory; choose another"
    ):
        AppendOnlyJsonl(tmp_path)


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    """A second writer would undo lines of the first, and so would one that read the file before they were appended."""
    first, early = AppendOnlyJsonl(path := tmp_path / "log"), AppendOnlyJsonl(path)
    with first:
        first.append(1)
        with (
            pytest.raises(
                InputError, match="expected a file of this run alone, found another process"
            ),
            AppendOnlyJsonl(path),
        ):
            pass
    with pytest.raises(InputError, match="expected a file of this run alone"), early:
        pass
    assert AppendOnlyJsonl(path).values == [1]
