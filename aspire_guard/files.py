"""Files and folders that are replaced atomically: even after a power cut, either the old or the new one is there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

# Nobody writes a single file for so long, in seconds.
_LEFTOVER_AGE = 3600

_NO_FOLDER_SYNC = (errno.EACCES, errno.EPERM, errno.EBADF, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to. At the end of the block, the file written there replaces `path`.

    The content is on the disk before the old file is removed. If the block raises, `path` stays as it
    was. A link stays a link: the file that it leads to is replaced. Several writers at once are safe,
    and the last of them wins.
    """
    path = path.resolve()
    _remove_leftovers(path)
    partial = path.parent / f".{path.name}.{uuid4().hex}.partial"
    try:
        with name_file(path):
            yield partial
            _sync(partial)
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Put the name of the file into an error of the disk that has none. A full disk does not say what it refused."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, or replace it."""
    with replace_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def move_folder(partial: Path, folder: Path) -> None:
    """Rename a finished folder to an unused name, after its content is on the disk.

    Raises:
        OSError: `folder` exists already, or the disk fails.
    """
    for path in partial.rglob("*"):
        if path.is_symlink():
            continue  # It may lead nowhere, and its folder is synced.
        if path.is_dir():
            _sync_folder(path)
        else:
            _sync(path)
    os.rename(partial, folder)
    _sync_folder(folder.parent)


def replace_folder(partial: Path, folder: Path) -> None:
    """Move a finished folder to `folder`, and delete the old folder if there is one."""
    if not folder.exists():
        move_folder(partial, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.rename(folder, old / folder.name)
    try:
        move_folder(partial, folder)
    except BaseException:
        # If this fails too, the old folder still exists under its other name.
        os.rename(old / folder.name, folder)
        old.rmdir()
        raise
    shutil.rmtree(old)


def describe_validation_error(error: ValidationError, whole: str = "the file") -> str:
    """Return the first error of a pydantic model as `field.part: message`.

    Args:
        error: the error that pydantic raised.
        whole: a name for the whole value, used if the error is not about a single field.
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or whole
    return f"{place}: {first['msg']}"


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, if the system can sync this folder.

    A folder that may be written to but not read can't be synced, nor can any folder on some network disks. The files
    in it are complete, so this is no reason to fail.
    """
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers have left next to a file: checkpoints are large.

    The age tells a leftover from the file of a writer at work, which may run on another machine.
    """
    for partial in path.parent.glob(f".{escape(path.name)}.*.partial"):
        with suppress(FileNotFoundError):  # another writer has finished, or has removed it too
            if time.time() - partial.stat().st_mtime > _LEFTOVER_AGE:
                partial.unlink()


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
