"""Writing of files that are whole or absent: under a temporary name first, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
