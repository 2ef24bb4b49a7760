"""Items in memory-mapped files, which several processes may read and write.

Three things make that safe: the files have their full size from the first item on, so no later write fails for lack of
space; one lock, which the kernel releases if its holder dies; and ids that are claimed before a write and committed
after it (see ``ledger``), so that nobody reads a half-written item.
A folder holds::

    layout.json      written last, whole or absent: format, capacity, and the key, shape and dtype of each entry
    lock             empty; whose ``flock`` every process takes
    counters.memmap  ids.memmap  gap.memmap  run.memmap         the ledger
    records.memmap   large-0.memmap  ...                        the items, see ``Records``
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakMethod

import numpy as np
import torch
from tensordict import MemoryMappedTensor
from torch import Tensor

from torchrl.data.replay.ledger import Ledger
from torchrl.data.replay.records import Entry, Records
from torchrl.data.replay.storages import Storage, TensorStorage
from torchrl.errors import StorageError, explain
from torchrl.files import write_whole

FORMAT = 1
LAYOUT = "layout.json"


class SharedLock:
    """A lock between threads and processes, on a file; the kernel releases it when the process that holds it ends.

    Args:
        path: of the file; made if it is not there.
        on_entry: a bound method, called each time this process gets the lock; it is referenced weakly.
    """

    def __init__(self, path: Path, on_entry: Callable[[], None]) -> None:
        self._threads = threading.RLock()
        self._file = path.open("ab")
        self._on_entry = WeakMethod(on_entry)
        self._depth = 0

    def __enter__(self) -> None:
        self._threads.acquire()
        self._depth += 1
        try:
            if self._depth == 1:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                if (on_entry := self._on_entry()) is not None:
                    on_entry()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        try:
            if not self._depth:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


class MemmapStorage(TensorStorage):
    """Keep items in memory-mapped files of a folder, which other processes may open at the same time or later.

    The files are tensordict's memory-mapped tensors. Their full size is reserved on the disk when the first item comes.
    If a process is killed while it writes items, they are not in the storage: see
    :class:`~torchrl.data.replay.ledger.Ledger`. (A power cut can damage the files: ``ReplayBuffer.save`` is for that.)

    >>> from torchrl.data.replay import ReplayBuffer
    >>> folder = getfixture("tmp_path") / "replay"
    >>> buffer = ReplayBuffer(MemmapStorage(100, folder))
    >>> _ = buffer.extend(batch)
    >>> again = ReplayBuffer(MemmapStorage.open(folder))  # here, or in another process
    >>> len(again)
    16
    >>> buffer.close(), again.close()
    (None, None)

    Args:
        capacity: number of items.
        folder: where the files lie; made if it is not there. ``/dev/shm/...`` keeps them in memory.
        reopen: use the files that are in the folder already; :meth:`open` does so, and reads their capacity.

    Raises:
        ConfigError: a capacity below 1.
        StorageError: there is such a storage already, or the folder cannot be written to, or the disk is full.
    """

    def __init__(self, capacity: int, folder: str | os.PathLike, *, reopen: bool = False) -> None:
        super().__init__(capacity)
        self.needs_order = True  # or nobody could tell what a killed writer left whole
        self.folder = Path(folder)
        if not reopen and (self.folder / LAYOUT).exists():
            hint = "MemmapStorage.open(folder) goes on with it; take another folder, or remove this one."
            raise StorageError(explain("MemmapStorage", expected="an empty folder", got=str(folder), hint=hint))
        with _explain_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = SharedLock(self.folder / "lock", self._attach)
            self._attach()

    @classmethod
    def open(cls, folder: str | os.PathLike) -> MemmapStorage:
        """Open the storage that this or another process made in a folder.

        Raises:
            StorageError: the folder holds no storage, or one of another version.
        """
        return cls(_read_layout(Path(folder) / LAYOUT)["capacity"], folder, reopen=True)

    def make_empty_copy(self) -> Storage:
        """Raise an error: a copy would need files in another folder.

        Raises:
            StorageError: always.
        """
        return Storage.make_empty_copy(self)

    def __reduce__(self) -> tuple:
        with self.lock:
            if self.entries is None:
                hint = "Add one item before, or call prepare(items)."
                expected = "a storage whose memory is made, to hand it to another process"
                raise StorageError(explain("MemmapStorage", expected=expected, got="an empty one", hint=hint))
        return MemmapStorage.open, (str(self.folder),)

    def _attach(self) -> None:
        """Map the files if they exist and are not mapped yet; this or another process has made them."""
        if self.entries is None and (self.folder / LAYOUT).exists():
            entries = [Entry.of(described) for described in _read_layout(self.folder / LAYOUT)["entries"]]
            self._records = Records(self.capacity, entries, self._make)
            self.ledger = Ledger(self.capacity, self._column)
            self.entries = entries

    def _prepare_first(self, entries: list[Entry]) -> None:
        with self.lock:
            if self.entries is None:
                self._log_size(entries)
                with _explain_os_errors(self.folder):
                    self._reserve_files(entries)
                    layout = {"format": FORMAT, "capacity": self.capacity, "entries": [e.describe() for e in entries]}
                    with write_whole(self.folder / LAYOUT) as path:
                        path.write_text(json.dumps(layout, indent=1))
                    self._attach()

    def _reserve_files(self, entries: list[Entry]) -> None:
        """Make every file in its full size; if one cannot be made, remove all."""
        sizes: dict[str, int] = {}

        def note(name: str, shape: tuple, dtype: torch.dtype) -> Tensor:
            sizes[name] = torch.Size(shape).numel() * dtype.itemsize
            return torch.empty(shape, dtype=dtype, device="meta")

        Records(self.capacity, entries, note)
        Ledger(self.capacity, lambda name, shape, dtype: note(name, shape, _torch_dtype(dtype)))
        try:
            for name, size in sizes.items():
                with (self.folder / f"{name}.memmap").open("wb") as file:
                    # The blocks are the file's own then: a full disk shows here, not in the middle of a write.
                    os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            for name in sizes:
                (self.folder / f"{name}.memmap").unlink(missing_ok=True)
            raise

    def _make(self, name: str, shape: tuple, dtype: torch.dtype) -> Tensor:
        path, shape = self.folder / f"{name}.memmap", torch.Size(shape)
        num_bytes, size = shape.numel() * dtype.itemsize, path.stat().st_size
        if size != num_bytes:
            raise StorageError(explain("MemmapStorage", expected=f"{num_bytes} bytes in {path}", got=f"{size} bytes"))
        mapped = MemoryMappedTensor.from_filename(path, dtype=dtype, shape=shape)
        return mapped.as_subclass(Tensor)  # the same memory, without a subclass's overhead

    def _column(self, name: str, shape: tuple, dtype: type) -> np.ndarray:
        return self._make(name, shape, _torch_dtype(dtype)).numpy()

    def close(self) -> None:
        """Close the files, which stay on the disk; may be called twice."""
        self._records = None
        self.lock.close()


def _torch_dtype(dtype: type) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _read_layout(path: Path) -> dict:
    who = "MemmapStorage.open"
    if not path.exists():
        raise StorageError(explain(who, expected=f"a file {path}", got="none"))
    try:
        layout = json.loads(path.read_text())
        if layout["format"] != FORMAT:
            raise StorageError(explain(who, expected=f"format {FORMAT} in {path}", got=layout["format"]))
    except (ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise StorageError(explain(who, expected=f"a whole file {path}", got=got)) from error
    return layout


@contextmanager
def _explain_os_errors(folder: Path) -> Iterator[None]:
    """Turn an ``OSError`` of a ``with`` block into a :class:`StorageError` that says what the user can do."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        hints = {
            errno.ENOSPC: f"{free / 1e9:.2f} GB are free there. Take a smaller capacity, or another disk.",
            errno.EACCES: "Take a folder that this user may write to.",
            errno.EROFS: "Take a folder on a disk that can be written to.",
        }
        who, expected = "MemmapStorage", f"room for its files in {folder}"
        got = f"{type(error).__name__}: {error}"
        raise StorageError(explain(who, expected=expected, got=got, hint=hints.get(error.errno, ""))) from error
