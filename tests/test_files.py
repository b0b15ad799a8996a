"""Files and folders that are replaced as a whole."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aspire_guard.files import move_folder, replace_file, replace_folder, write_text


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    """A block that raises changes nothing, and leaves no second file behind."""
    path = tmp_path / "policy.json"
    write_text(path, "old")

    def write_half() -> None:
        with replace_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("policy.json", "old")
    ]


def test_several_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    """Each writer has a partial file of its own, and a reader never finds half a text."""
    path = tmp_path / "policy.json"
    texts = [str(digit) * 50_000 for digit in range(4)]
    write_text(path, texts[0])
    with ThreadPoolExecutor(len(texts)) as writers:
        written = [writers.submit(write_text, path, text) for text in texts * 10]
        while not all(future.done() for future in written):
            assert path.read_text() in texts
        for future in written:
            future.result()
    assert path.read_text() in texts
    assert [file.name for file in tmp_path.iterdir()] == ["policy.json"]


def test_leftovers_of_killed_writers_go_and_files_at_work_stay(tmp_path: Path) -> None:
    """A writer may be at work on another machine, so only its age tells that a partial file is a leftover."""
    old, new = tmp_path / ".policy.json.old.partial", tmp_path / ".policy.json.new.partial"
    for partial in (old, new):
        partial.write_text("half")
    os.utime(old, (0, 0))
    write_text(tmp_path / "policy.json", "whole")
    assert not old.exists()
    assert new.read_text() == "half"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A policy that is linked into a folder is replaced where it lies."""
    target, link = tmp_path / "policy-v1.json", tmp_path / "policy.json"
    target.write_text("old")
    link.symlink_to(target.name)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_the_current_folder_is_no_file_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path without a name is an error of the disk like any other, which commands report in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"busy|directory"):
        write_text(Path(), "text")
    assert not list(tmp_path.iterdir())


def test_a_folder_moves_with_links_that_lead_nowhere(tmp_path: Path) -> None:
    """Editors leave such links as locks, and a link to a missing file can't be synced."""
    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "lock").symlink_to("nowhere")
    move_folder(partial, tmp_path / "evaluator")
    assert (tmp_path / "evaluator" / "lock").is_symlink()


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EINVAL])
def test_a_folder_that_cannot_be_synced_takes_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    """A folder may be open to writers alone, and some disks sync files only."""
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), os.stat(tmp_path)):
            raise OSError(refusal, os.strerror(refusal))
        fsync(descriptor)

    monkeypatch.setattr("aspire_guard.files.os.fsync", refuse_folders)
    write_text(tmp_path / "run.json", "new")
    for number in ("1", "2"):
        partial = tmp_path / "partial"
        partial.mkdir()
        write_text(partial / "number", number)
        replace_folder(partial, tmp_path / "evaluator")
    assert (tmp_path / "evaluator" / "number").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluator", "run.json"]


def test_a_failing_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose content may not be on the disk replaces no other."""
    write_text(tmp_path / "run.json", "old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("aspire_guard.files.os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_text(tmp_path / "run.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
