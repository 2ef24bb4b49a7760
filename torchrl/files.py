"""Writing of files and folders that are whole or absent: under a temporary name first, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"  # how the name of a file or folder begins that is not whole, or is going to be removed
SUMS = "checksums.json"


def make_writable(folder: str | os.PathLike) -> None:
    """Create a folder if it is absent, and raise unless a file can be written in it; permissions are not changed.

    Raises:
        OSError: the folder cannot be created, or no file written in it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; rename it to ``path`` when the block ends without an error.

    A reader sees the old file or the new one, never a part. If the block raises, the old file stays and the temporary
    one goes. Missing folders are made. The temporary name keeps the suffix, for writers that choose a format by it.

    Args:
        path: where the finished file shall lie.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def write_whole_folder(path: str | os.PathLike, *, since: str | os.PathLike | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to write to; rename it to ``path`` when the block ends without an error.

    Before that every file goes to the disk, and its size and SHA-256 into ``checksums.json``, see :func:`sums_of`. If
    the block raises, the temporary folder goes. A process that is killed leaves it: :func:`remove_partial`.

    Args:
        path: where the finished folder shall lie; it must not exist.
        since: an earlier folder of this kind; of files that are links to it the checksums are taken from there.

    Raises:
        FileExistsError: there is something at ``path``.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists")
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sums = json.dumps(_sums(temporary, None if since is None else Path(since)), indent=1)
        (temporary / SUMS).write_text(sums, encoding="utf-8")
        _sync(temporary / SUMS)
        os.rename(temporary, path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sums_of(folder: str | os.PathLike) -> dict[str, dict]:
    """Return size and SHA-256 of each file of a folder, as :func:`write_whole_folder` wrote them, by relative name.

    Raises:
        OSError: there is no such list.
        ValueError: it is damaged.
    """
    sums = json.loads((Path(folder) / SUMS).read_text(encoding="utf-8"))
    if not isinstance(sums, dict) or not all(isinstance(one, dict) for one in sums.values()):
        raise ValueError("no table of files")
    return sums


def damage_of(folder: str | os.PathLike) -> str:
    """Read a folder of :func:`write_whole_folder`; return what is damaged or missing, or an empty text."""
    folder = Path(folder)
    try:
        for name, noted in sums_of(folder).items():
            if _sum(folder / name) != noted:
                return f"{name}, which was changed after it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)}, which is missing"
    except (OSError, ValueError) as error:
        return f"{SUMS}, which cannot be read: {error}"
    return ""


def link_folder(source: Path, target: Path) -> None:
    """Make a copy of a folder of :func:`write_whole_folder`, whole or not at all, whose files are links where possible.

    Raises:
        OSError: it cannot be made, or ``target`` exists.
    """
    with write_whole_folder(target, since=source) as temporary:
        for name in sums_of(source):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            link_file(source / name, temporary / name)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no links, or has ``target`` on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left in a folder: files and folders that are not whole."""
    for left in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder; a reader sees it whole or not at all, also where a process is killed in the middle."""
    doomed = folder.with_name(f"{PARTIAL}{os.getpid()}-old-{folder.name}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sums(folder: Path, since: Path | None) -> Mapping[str, dict]:
    """Return the sums of all files in a folder; send those to the disk that are no links to files of ``since``."""
    known = {} if since is None or not (since / SUMS).is_file() else sums_of(since)
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(folder).as_posix()
        if name in known and (since / name).is_file() and path.samefile(since / name):
            sums[name] = known[name]
        else:
            _sync(path)
            sums[name] = _sum(path)
    for inner in (path for path in (folder, *folder.rglob("*")) if path.is_dir()):
        _sync(inner)
    return sums


def _sum(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
