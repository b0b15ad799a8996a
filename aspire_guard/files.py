"""Files that are replaced whole: a reader, or a run after a power cut, finds the old or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end of the block its file takes the place of `path`.

    The content is on the disk before the old file goes. If the block raises, `path` stays as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file by one with this text, in UTF-8."""
    with replaced_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def move_folder(partial: Path, folder: Path) -> None:
    """Rename a finished folder to a name that is free, with its content on the disk first.

    Raises:
        OSError: `folder` exists already, or the disk fails.
    """
    for path in partial.rglob("*"):
        _sync(path)
    os.rename(partial, folder)
    _sync(folder.parent)


def replace_folder(partial: Path, folder: Path) -> None:
    """Put a finished folder in the place of `folder`, which may exist, and delete the old one."""
    if not folder.exists():
        move_folder(partial, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.rename(folder, old / folder.name)
    try:
        move_folder(partial, folder)
    except BaseException:
        # If this fails too, the old folder is still there under its other name.
        os.rename(old / folder.name, folder)
        old.rmdir()
        raise
    shutil.rmtree(old)


def describe_validation_error(error: ValidationError, whole: str = "the file") -> str:
    """Return the first error of a pydantic model as `field.part: message`.

    Args:
        error: what pydantic raised.
        whole: names the value if the error is about all of it.
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or whole
    return f"{place}: {first['msg']}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
