"""Storages, which keep items in numbered places, in a Python list or in tensors. Writers and samplers choose places."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.counts import is_count
from torchrl.data.replay.frames import StackedFrames
from torchrl.data.replay.incoming import Incoming
from torchrl.data.replay.lanes import Links
from torchrl.data.replay.ledger import Ledger
from torchrl.data.replay.records import Entry, Records, entries_of, nest, require_same_entries
from torchrl.errors import ConfigError, StorageError, explain
from torchrl.misspelling import Extensible

log = logging.getLogger("torchrl.data.replay")


class Storage(Extensible, ABC):
    """Base class of storages, which keep items in places and note in a ledger which item lies in each.

    To write items a :class:`~torchrl.data.replay.ReplayBuffer` takes the ``lock`` and calls ``prepare``, ``check``,
    ``before_write``, ``write`` and ``after_write``, in this order.

    >>> storage = TensorStorage(100)
    >>> isinstance(storage, Storage), storage.capacity, len(storage.ledger)
    (True, 100, 0)

    Args:
        capacity: number of places.

    Attributes:
        lock: a re-entrant lock for ``with``; keeps out other threads, and other processes that share the memory.

    Raises:
        ConfigError: ``capacity`` is not a positive integer.
        StorageError: the ledger does not fit into memory; it takes 16 bytes per place.
    """

    _former_names = {"keep_what_others_need": "before_write", "wrote": "after_write"}
    device = torch.device("cpu")  # where the items lie
    has_rows = False  # whether ``rows`` returns the items of neighbouring places, to be saved in pieces
    needs_order = False  # whether chains of steps must lose their oldest first, as with a RingWriter

    def __init__(self, capacity: int) -> None:
        if not is_count(capacity):
            raise ConfigError(explain(type(self).__name__, expected="a capacity of at least 1", got=repr(capacity)))
        self.capacity = int(capacity)
        self.entries: list[Entry] | None = None
        _require_memory(type(self).__name__, Ledger.BYTES_PER_ITEM * self.capacity, self.capacity)
        self.ledger = Ledger(self.capacity, lambda name, shape, dtype: np.zeros(shape, dtype))
        self.lock: AbstractContextManager = threading.RLock()

    def make_empty_copy(self) -> Storage:
        """Return an empty storage of this kind and size, with memory of its own.

        Raises:
            StorageError: this kind of storage cannot be copied.
        """
        hint = "Make the second one yourself: buffer.save(folder), then load(folder) into a buffer over it."
        expected = "a storage in memory, which can be copied"
        raise StorageError(explain(type(self).__name__, expected=expected, got=f"{self!r}", hint=hint))

    def __reduce__(self) -> tuple:
        hint = "MemmapStorage(capacity, folder) is shared; a folder in /dev/shm keeps it in memory."
        expected = "a buffer whose memory can be shared, to send it to another process"
        raise ConfigError(explain("ReplayBuffer", expected=expected, got=type(self).__name__, hint=hint))

    def prepare(self, values: dict[tuple[str, ...], Tensor], batch_dims: int) -> None:
        """Allocate memory for the first items' keys, shapes and dtypes; refuse later items with others.

        Args:
            values: the entries of items, by path, each with the dimensions of the batch first.
            batch_dims: how many dimensions the batch has.

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
        """Refuse steps that reading could not return unchanged; the default accepts all.

        Raises:
            SpecError: saying why.
        """

    def before_write(self, places: np.ndarray) -> None:  # noqa: B027 - in most storages items do not depend on others
        """Save data of items about to be overwritten that other items need; the default does nothing."""

    def after_write(self, places: np.ndarray, incoming: Incoming, links: Links, first: int) -> None:  # noqa: B027
        """Note which items the new ones, with ids from ``first`` on, follow in time; the default does nothing."""

    @abstractmethod
    def write(self, places: np.ndarray, values: dict[tuple[str, ...], Tensor]) -> None:
        """Copy items into places, over what lies there; the ledger is not told. See :meth:`Records.write`."""

    @abstractmethod
    def read(self, places: np.ndarray) -> TensorDict:
        """Return copies of the items in these places, ``[*places.shape]``."""

    def send(self, column: np.ndarray) -> Tensor:
        """Convert a numpy array to a tensor on the device of the items."""
        value = torch.from_numpy(column)
        return value if self.device.type == "cpu" else value.to(self.device)

    def clear(self) -> None:
        """Remove every item; the memory stays allocated."""
        self.ledger.clear()

    @property
    @abstractmethod
    def layout(self) -> str:
        """A text that names how items are stored; a saved state fits only storages of the same layout."""

    @abstractmethod
    def state(self, num_places: int) -> dict:
        """Return the items in the first ``num_places`` places, as tensors that may share the storage's memory."""

    @abstractmethod
    def load(self, state: dict) -> None:
        """Restore :meth:`state`."""

    def rows(self, place: int, num: int) -> dict[str, Tensor]:
        """Return the memory of ``num`` items from a place on; a storage whose :attr:`has_rows` is true has it."""
        raise NotImplementedError

    def load_rows(self, place: int, rows: dict[str, Tensor]) -> None:
        """Restore :meth:`rows`."""
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most storages hold nothing but memory
        """Close files, if the storage has any."""


class ListStorage(Storage):
    """Keep each item by itself in a Python list: needs no memory ahead, but is the slowest storage to sample from.

    >>> from torchrl.data.replay import ReplayBuffer
    >>> buffer = ReplayBuffer(ListStorage(10))
    >>> buffer.add(TensorDict({"x": torch.tensor(2.0)}))
    0
    >>> buffer[0]["x"]
    tensor(2.)
    """

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
        """Return the items in these places, stacked, ``[*places.shape]``."""
        items = [self._items[place] for place in places.reshape(-1).tolist()]
        shape = torch.Size(places.shape)
        stacked = {entry.key: torch.stack([item[entry.key] for item in items]) for entry in self.entries}
        return nest({key: value.view((*shape, *value.shape[1:])) for key, value in stacked.items()}, shape)

    def make_empty_copy(self) -> ListStorage:
        return ListStorage(self.capacity)

    @property
    def layout(self) -> str:
        """A text: items are stored one by one."""
        return "items"

    def state(self, num_places: int) -> dict:
        """Return the items in the first ``num_places`` places, stacked."""
        num = min(num_places, len(self._items))
        example = next((item for item in self._items if item is not None), {})
        return {
            key: torch.stack([torch.zeros_like(value) if item is None else item[key] for item in self._items[:num]])
            for key, value in example.items()
        }

    def load(self, state: dict) -> None:
        # Older saves wrote a key as text.
        columns = {tuple(key.split("/")) if isinstance(key, str) else key: value for key, value in state.items()}
        num = len(next(iter(columns.values()))) if columns else 0
        self._items = [{key: value[row].clone() for key, value in columns.items()} for row in range(num)]


class TensorStorage(Storage):
    """Keep items in tensors on any device, allocated at the first item, all of the capacity at once.

    >>> from torchrl.data.replay import ReplayBuffer
    >>> buffer = ReplayBuffer(TensorStorage(10))
    >>> _ = buffer.extend(batch[:, :4]), buffer.extend(batch[:, 4:])  # 8 items each: the oldest 6 make way
    >>> len(buffer)
    10

    Args:
        capacity: number of items.
        device: where the memory lies.
        frames: observations of which each frame is stored once.

    Raises:
        ConfigError: a capacity below 1.
        StorageError: from the first items: they would not fit into the memory that is free.
    """

    has_rows = True

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
        num_bytes = self._log_size(entries)
        if self.device.type == "cpu":
            _require_memory("TensorStorage", num_bytes, self.capacity)
        self._records = Records(self.capacity, entries, self._make)

    def _log_size(self, entries: Sequence[Entry]) -> int:
        """Log how much memory the items will take, and return it in bytes."""
        per_item = sum(entry.num_bytes for entry in entries)
        num_bytes, name = self.capacity * per_item, type(self).__name__
        log.info("%s: %.2f GB for %s items of %s bytes", name, num_bytes / 1e9, self.capacity, per_item)
        return num_bytes

    def _make(self, name: str, shape: tuple, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def write(self, places: np.ndarray, values: dict[tuple[str, ...], Tensor]) -> None:
        for one in self.frames:
            values = one.reduce(values)
        self._records.write(places, values)

    def read(self, places: np.ndarray) -> TensorDict:
        """Return copies of the items in these places, ``[*places.shape]``, on the storage's device."""
        items = self._records.read(places)
        for one in self.frames:
            stacks = one.read(places.reshape(-1), self.ledger, self._records.views[one.key])
            for key, value in stacks.items():
                items.set(key, value.unflatten(0, places.shape) if places.ndim != 1 else value)
        return items

    def prepare(self, values: dict[tuple[str, ...], Tensor], batch_dims: int) -> None:
        for one in self.frames:
            one.require_form(values, batch_dims)
            values = one.reduce(values)
        super().prepare(values, batch_dims)

    def check(self, incoming: Incoming) -> None:
        """Refuse entries named in ``frames`` that are no stacks of frames; see :class:`StackedFrames`."""
        for one in self.frames:
            one.check(incoming)

    def before_write(self, places: np.ndarray) -> None:
        """Save the frames of steps about to be overwritten that later steps' stacks need."""
        for one in self.frames:
            one.before_write(places, self.ledger, self._records.views[one.key])

    def after_write(self, places: np.ndarray, incoming: Incoming, links: Links, first: int) -> None:
        """Note which items the new ones follow, and store their frames that no other step has."""
        for one in self.frames:
            one.after_write(places, incoming, links, first, self.ledger)

    def clear(self) -> None:
        super().clear()
        for one in self.frames:
            one.bind(self.capacity)

    def make_empty_copy(self) -> TensorStorage:
        """Return an empty storage of the same capacity on the same device, which stacks the same frames."""
        frames = [one.make_empty_copy() for one in self.frames]
        return TensorStorage(self.capacity, device=self.device, frames=frames)

    @property
    def layout(self) -> str:
        """A text: items are stored in records, and which observations are rebuilt from frames."""
        return ", ".join(["records", *(one.layout for one in self.frames)])

    def state(self, num_places: int) -> dict:
        """Return the memory of the first ``num_places`` places, and the state of the stacked frames."""
        items = {} if self._records is None else self.rows(0, num_places)
        return {"memory": items, "frames": [one.state() for one in self.frames]}

    def load(self, state: dict) -> None:
        self.load_rows(0, state["memory"])
        for one, frames in zip(self.frames, state["frames"], strict=True):
            one.load(frames)

    def rows(self, place: int, num: int) -> dict[str, Tensor]:
        """Return the memory of ``num`` items from a place on, without a copy where it is on the CPU."""
        return {name: _rows_of(value, place, num) for name, value in self._records.memory.items()}

    def load_rows(self, place: int, rows: dict[str, Tensor]) -> None:
        for name, value in rows.items():
            self._records.memory[name][place : place + len(value)] = value


def _rows_of(memory: Tensor, first: int, num: int) -> Tensor:
    """Return rows of a memory as a tensor that torch saves alone: of a view it would save the whole memory."""
    if memory.device.type != "cpu":
        return memory[first : first + num].cpu()
    return torch.from_numpy(memory.view(torch.uint8).numpy()[first : first + num]).view(memory.dtype)


def _require_memory(who: str, num_bytes: int, num_items: int) -> None:
    if num_bytes > (free := _free_memory()):
        hint = "Take a smaller capacity, or a MemmapStorage."
        expected = f"at most {free / 1e9:.1f} GB, the memory that is free"
        got = f"{num_bytes / 1e9:,.1f} GB for {num_items:,} items"
        raise StorageError(explain(who, expected=expected, got=got, hint=hint))


def _free_memory() -> int:
    """Return how many bytes of memory are free; a very large number where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 2**63
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
