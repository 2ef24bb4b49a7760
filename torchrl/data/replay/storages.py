"""Where items lie: in Python lists, in tensors, in files. A storage has places; it chooses none of them."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from tensordict import MemoryMappedTensor, TensorDict
from torch import Tensor

from torchrl.data.replay.frames import StackedFrames
from torchrl.data.replay.incoming import Incoming
from torchrl.data.replay.lanes import Links
from torchrl.data.replay.ledger import Ledger
from torchrl.data.replay.records import Entry, Records, entries_of, nested, require_same_entries
from torchrl.errors import ConfigError, StorageError, explain
from torchrl.files import write_whole
from torchrl.misspelling import refuse_misspelt

log = logging.getLogger("torchrl.data.replay")
FORMAT = 1
LAYOUT = "layout.json"


class Storage(ABC):
    """Places for items, and the ledger of what lies in them.

    Args:
        capacity: number of places.

    Raises:
        ConfigError: it is not a positive integer.
        StorageError: the table of places does not fit into memory; it takes 16 bytes for each item of the capacity.
    """

    device = torch.device("cpu")  # where the items lie
    needs_order = False  # whether chains of steps must lose their oldest first, as with a RingWriter

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a name that nobody would call; see :func:`~torchrl.misspelling.refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls)

    def __init__(self, capacity: int) -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, Integral) or capacity < 1:
            raise ConfigError(explain(type(self).__name__, expected="a capacity of at least 1", got=repr(capacity)))
        self.capacity = int(capacity)
        self.entries: list[Entry] | None = None
        _require_memory(type(self).__name__, Ledger.BYTES_PER_ITEM * self.capacity, self.capacity)
        self.ledger = Ledger(self.capacity, lambda name, shape, dtype: np.zeros(shape, dtype))
        self._lock = threading.RLock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else out, in this process and, where the memory is shared, in others."""
        with self._lock:
            yield

    def make_empty_copy(self) -> Storage:
        """Return an empty storage of this kind and size, with memory of its own.

        Raises:
            StorageError: this kind cannot.
        """
        hint = "Make the second one yourself: buffer.save(folder), then load(folder) into a buffer over it."
        expected = "a storage in memory, which can be copied"
        raise StorageError(explain(type(self).__name__, expected=expected, got=f"{self!r}", hint=hint))

    def refresh(self) -> None:  # noqa: B027 - most storages are nobody else's
        """Look whether another process has made the memory meanwhile; called by who holds the lock."""

    def prepare(self, values: dict[tuple[str, ...], Tensor], batch_dims: int) -> None:
        """Make the memory at the first items, and refuse later ones of another form.

        Args:
            values: the entries of items, by path, each with the dimensions of the batch first.
            batch_dims: how many those are.

        Raises:
            SpecError: other keys, shapes or dtypes than the first, or an entry that is no tensor.
            StorageError: there is not enough memory.
        """
        if self.entries is None:
            self._prepare_first(entries_of(values, batch_dims))
        fits = len(values) == len(self.entries) and all(
            (value := values.get(key)) is not None and value.dtype is dtype and value.shape[batch_dims:] == shape
            for key, shape, dtype in self.entries
        )
        if not fits:
            require_same_entries(type(self).__name__, entries_of(values, batch_dims), self.entries)

    def _prepare_first(self, entries: list[Entry]) -> None:
        self._allocate(entries)
        self.entries = entries

    @abstractmethod
    def _allocate(self, entries: list[Entry]) -> None:
        """Make memory for items with these entries."""

    def check(self, incoming: Incoming) -> None:  # noqa: B027 - most storages take what has the right form
        """Refuse steps that would not come out as they go in.

        Raises:
            SpecError: saying why.
        """

    def before_write(self, places: np.ndarray) -> None:  # noqa: B027 - items know nothing of each other in most storages
        """Keep what other items need of those that are about to be overwritten."""

    def after_write(self, places: np.ndarray, incoming: Incoming, links: Links, first: int) -> None:  # noqa: B027
        """Take note of how new items, numbered from ``first`` on, follow others."""

    @abstractmethod
    def write(self, places: np.ndarray, values: dict[tuple[str, ...], Tensor]) -> None:
        """Copy items into places; see :meth:`Records.write`."""

    @abstractmethod
    def read(self, places: np.ndarray) -> TensorDict:
        """Copy items out, ``[*places.shape]``."""

    def clear(self) -> None:
        """Forget every item; the memory stays."""
        self.ledger.clear()

    @property
    @abstractmethod
    def layout(self) -> str:
        """In words how items lie here; what was captured goes into storages of the same layout."""

    @abstractmethod
    def state(self, num_places: int) -> dict:
        """Return what lies in the first places, as tensors: the memory itself where that is on the CPU."""

    @abstractmethod
    def load(self, state: dict) -> None:
        """Restore :meth:`state`."""

    def close(self) -> None:  # noqa: B027 - most storages hold nothing but memory
        """Let go of files."""


class ListStorage(Storage):
    """Items one by one, each a TensorDict of its own: nothing is allocated ahead, and the slowest to sample from."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._items: list[dict[tuple[str, ...], Tensor] | None] = []

    def _allocate(self, entries: list[Entry]) -> None:
        self._items = []

    def write(self, places: np.ndarray, values: dict[tuple[str, ...], Tensor]) -> None:
        """Keep a copy of each item."""
        flat = {}
        for entry in self.entries:
            value = values[entry.key]
            flat[entry.key] = value.transpose(0, 1).flatten(0, 1) if value.ndim > len(entry.shape) + 1 else value
        missing = int(places.max()) + 1 - len(self._items)
        self._items += [None] * max(missing, 0)
        for row, place in enumerate(places.tolist()):
            self._items[place] = {key: value[row].clone() for key, value in flat.items()}

    def read(self, places: np.ndarray) -> TensorDict:
        """Stack items, ``[*places.shape]``."""
        items = [self._items[place] for place in places.reshape(-1).tolist()]
        shape = torch.Size(places.shape)
        stacked = {entry.key: torch.stack([item[entry.key] for item in items]) for entry in self.entries}
        return nested({key: value.view((*shape, *value.shape[1:])) for key, value in stacked.items()}, shape)

    def make_empty_copy(self) -> ListStorage:
        """Return an empty list of the same capacity."""
        return ListStorage(self.capacity)

    @property
    def layout(self) -> str:
        """One by one."""
        return "items"

    def state(self, num_places: int) -> dict:
        """Return the items, stacked."""
        num = min(num_places, len(self._items))
        example = next((item for item in self._items if item is not None), {})
        return {
            key: torch.stack([torch.zeros_like(value) if item is None else item[key] for item in self._items[:num]])
            for key, value in example.items()
        }

    def load(self, state: dict) -> None:
        """Restore the items."""
        # Older saves wrote a key as text.
        columns = {tuple(key.split("/")) if isinstance(key, str) else key: value for key, value in state.items()}
        num = len(next(iter(columns.values()))) if columns else 0
        self._items = [{key: value[row].clone() for key, value in columns.items()} for row in range(num)]


class TensorStorage(Storage):
    """Items in memory that is made at the first one, on any device; see :class:`~torchrl.data.replay.records.Records`.

    Args:
        capacity: number of items.
        device: where the memory lies.
        frames: observations of which each frame is stored once.

    Raises:
        ConfigError: a capacity that is none.
        StorageError: from the first items: they would not fit into the memory that is free.
    """

    def __init__(
        self, capacity: int, *, device: torch.device | str = "cpu", frames: Sequence[StackedFrames] = ()
    ) -> None:
        super().__init__(capacity)
        self.device = torch.device(device)
        self.frames = [frames] if isinstance(frames, StackedFrames) else list(frames)
        self.needs_order = bool(self.frames)
        self._records: Records | None = None
        for one in self.frames:
            one.bind(self.capacity)

    def _allocate(self, entries: list[Entry]) -> None:
        num_bytes = _announce(self, entries)
        if self.device.type == "cpu":
            _require_memory("TensorStorage", num_bytes, self.capacity)
        self._records = Records(self.capacity, entries, self._make)

    def _make(self, name: str, shape: tuple, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def write(self, places: np.ndarray, values: dict[tuple[str, ...], Tensor]) -> None:
        """Copy items into places; see :meth:`Records.write`."""
        for one in self.frames:
            values = one.reduce(values)
        self._records.write(places, values)

    def read(self, places: np.ndarray) -> TensorDict:
        """Copy items out, ``[*places.shape]``, on the storage's device."""
        items = self._records.read(torch.from_numpy(places).to(self.device))
        for one in self.frames:
            stacks = one.read(places.reshape(-1), self.ledger, self._records.views[one.key])
            for key, value in stacks.items():
                items.set(key, value.unflatten(0, places.shape) if places.ndim != 1 else value)
        return items

    def prepare(self, values: dict[tuple[str, ...], Tensor], batch_dims: int) -> None:
        """Make the memory at the first items; see :meth:`Storage.prepare`."""
        for one in self.frames:
            one.require_form(values, batch_dims)
            values = one.reduce(values)
        super().prepare(values, batch_dims)

    def check(self, incoming: Incoming) -> None:
        """Refuse observations that are no stacks of frames; see :class:`StackedFrames`."""
        for one in self.frames:
            one.check(incoming)

    def before_write(self, places: np.ndarray) -> None:
        """Keep the frames of old steps that later ones need."""
        for one in self.frames:
            one.before_write(places, self.ledger, self._records.views[one.key])

    def after_write(self, places: np.ndarray, incoming: Incoming, links: Links, first: int) -> None:
        """Take in the frames that no other step has."""
        for one in self.frames:
            one.after_write(places, incoming, links, first, self.ledger)

    def clear(self) -> None:
        """Forget every item."""
        super().clear()
        for one in self.frames:
            one.bind(self.capacity)

    def make_empty_copy(self) -> TensorStorage:
        """Return an empty storage of the same capacity on the same device, which stacks the same frames."""
        frames = [StackedFrames(one.key, num_frames=one.num_frames, dim=one.dim) for one in self.frames]
        return TensorStorage(self.capacity, device=self.device, frames=frames)

    @property
    def layout(self) -> str:
        """Records, and what is rebuilt from frames."""
        return ", ".join(["records", *(f"frames of {'/'.join(one.key)} × {one.num_frames}" for one in self.frames)])

    def state(self, num_places: int) -> dict:
        """Return the memory of the first places."""
        memory = {} if self._records is None else self._records.memory
        items = {name: _first(value, num_places) for name, value in memory.items()}
        return {"memory": items, "frames": [one.state() for one in self.frames]}

    def load(self, state: dict) -> None:
        """Restore the memory."""
        for name, value in state["memory"].items():
            self._records.memory[name][: len(value)] = value
        for one, frames in zip(self.frames, state["frames"], strict=True):
            one.load(frames)


class MemmapStorage(TensorStorage):
    """Items in files of a folder, which any process may open, now or later.

    The files are tensordict's memory-mapped tensors. Their size is fixed when the first item comes, and the disk is
    asked for all of it then. What a killed process wrote last is there, or not at all: see
    :class:`~torchrl.data.replay.ledger.Ledger`. (A power cut is another matter: ``ReplayBuffer.save`` is for that.)

    Args:
        capacity: number of items.
        folder: where the files lie; made if it is not there. ``/dev/shm/...`` keeps them in memory.

    Raises:
        ConfigError: a capacity that is none.
        StorageError: there is such a storage already, or the folder cannot be written to, or the disk is full.
    """

    def __init__(self, capacity: int, folder: str | os.PathLike) -> None:
        super().__init__(capacity)
        self.needs_order = True  # or nobody could tell what a killed writer left whole
        self.folder = Path(folder)
        self._depth = 0
        if (self.folder / LAYOUT).exists():
            hint = "MemmapStorage.open(folder) goes on with it; take another folder, or remove this one."
            raise StorageError(explain("MemmapStorage", expected="an empty folder", got=str(folder), hint=hint))
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.folder / "lock").open("ab")

    @classmethod
    def open(cls, folder: str | os.PathLike) -> MemmapStorage:
        """Open what this or another process keeps in a folder.

        Raises:
            StorageError: there is no storage, or none of this version.
        """
        layout = _read_layout(Path(folder) / LAYOUT)
        storage = cls.__new__(cls)
        TensorStorage.__init__(storage, layout["capacity"])
        storage.needs_order = True
        storage.folder = Path(folder)
        storage._depth = 0
        with _explained(storage.folder):
            storage._lock_file = (storage.folder / "lock").open("ab")
            storage._open_memory(layout)
        return storage

    def make_empty_copy(self) -> MemmapStorage:
        """Refuse: other files need another folder.

        Raises:
            StorageError: always.
        """
        return Storage.make_empty_copy(self)

    def __reduce__(self) -> tuple:
        with self.locked():
            self.refresh()
        if self.entries is None:
            hint = "Add one item before, or call prepare(items)."
            expected = "a storage whose memory is made, to hand it to another process"
            raise StorageError(explain("MemmapStorage", expected=expected, got="an empty one", hint=hint))
        return MemmapStorage.open, (str(self.folder),)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else out: other threads by a lock, other processes by the kernel's lock on a file.

        The kernel lets go of it when a process ends in whatever way.
        """
        with self._lock:
            if not self._depth:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def refresh(self) -> None:
        """Attach to the memory if another process has made it meanwhile."""
        if self.entries is None and (self.folder / LAYOUT).exists():
            self._open_memory(_read_layout(self.folder / LAYOUT))

    def _prepare_first(self, entries: list[Entry]) -> None:
        with self.locked():
            self.refresh()
            if self.entries is None:
                super()._prepare_first(entries)

    def _allocate(self, entries: list[Entry]) -> None:
        _announce(self, entries)
        with _explained(self.folder):
            sizes: dict[str, int] = {}

            def reserve(name: str, shape: tuple, dtype: torch.dtype) -> Tensor:
                sizes[name] = torch.Size(shape).numel() * dtype.itemsize
                return torch.empty(shape, dtype=dtype, device="meta")

            Records(self.capacity, entries, reserve)
            Ledger(self.capacity, lambda name, shape, dtype: _reserve_column(sizes, name, shape, dtype))
            try:
                for name, size in sizes.items():
                    _reserve(self.folder / f"{name}.memmap", size)
            except OSError:
                for name in sizes:
                    (self.folder / f"{name}.memmap").unlink(missing_ok=True)
                raise
            layout = {
                "format": FORMAT,
                "capacity": self.capacity,
                "entries": [[list(e.key), list(e.shape), str(e.dtype).removeprefix("torch.")] for e in entries],
            }
            with write_whole(self.folder / LAYOUT) as path:
                path.write_text(json.dumps(layout, indent=1))
            self._open_memory(layout)

    def _open_memory(self, layout: dict) -> None:
        self.entries = [Entry(tuple(key), tuple(shape), getattr(torch, name)) for key, shape, name in layout["entries"]]
        self._records = Records(self.capacity, self.entries, self._make)
        self.ledger = Ledger(self.capacity, self._column)

    def _make(self, name: str, shape: tuple, dtype: torch.dtype) -> Tensor:
        path, shape = self.folder / f"{name}.memmap", torch.Size(shape)
        num_bytes, size = shape.numel() * dtype.itemsize, path.stat().st_size
        if size != num_bytes:
            raise StorageError(explain("MemmapStorage", expected=f"{num_bytes} bytes in {path}", got=f"{size} bytes"))
        mapped = MemoryMappedTensor.from_filename(path, dtype=dtype, shape=shape)
        return mapped.as_subclass(Tensor)  # the same memory, without a subclass's overhead

    def _column(self, name: str, shape: tuple, dtype: type) -> np.ndarray:
        return self._make(name, shape, torch.from_numpy(np.empty(0, dtype)).dtype).numpy()

    def close(self) -> None:
        """Let go of the files, which stay; may be called twice."""
        self._records = None
        self._lock_file.close()


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


def _first(memory: Tensor, num: int) -> Tensor:
    """Return the first rows as a tensor of their own extent, since torch saves a view with all that it is a view of."""
    if memory.device.type != "cpu":
        return memory[:num].cpu()
    return torch.from_numpy(memory.view(torch.uint8).numpy()[:num]).view(memory.dtype)


def _reserve_column(sizes: dict[str, int], name: str, shape: tuple, dtype: type) -> np.ndarray:
    sizes[name] = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.empty(0, dtype)


def _reserve(path: Path, num_bytes: int) -> None:
    """Make a file of zeros whose blocks are the file's own: a full disk shows here, not in the middle of a write."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say what a folder's owner can do about an error of the system."""
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


def _announce(storage: Storage, entries: Sequence[Entry]) -> int:
    """Say how much memory the items will take, and return it in bytes."""
    per_item = sum(entry.num_bytes for entry in entries)
    num_bytes = storage.capacity * per_item
    log.info(
        "%s: %.2f GB for %s items of %s bytes", type(storage).__name__, num_bytes / 1e9, storage.capacity, per_item
    )
    return num_bytes


def _require_memory(who: str, num_bytes: int, num_items: int) -> None:
    if num_bytes > (free := _free_memory()):
        hint = "Take a smaller capacity, or a MemmapStorage."
        expected = f"at most {free / 1e9:.1f} GB, the memory that is free"
        got = f"{num_bytes / 1e9:,.1f} GB for {num_items:,} items"
        raise StorageError(explain(who, expected=expected, got=got, hint=hint))


def _free_memory() -> int:
    """Return how many bytes the system could hand out now; a very large number where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 2**63
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
