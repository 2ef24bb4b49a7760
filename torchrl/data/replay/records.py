"""Memory for items: the small entries of an item lie in one record, so that one read fetches them all.

Knows tensors, not their meaning: no ids, no order, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tensordict import LazyStackedTensorDict, TensorDict, TensorDictBase, is_non_tensor
from torch import Tensor

from torchrl.errors import SpecError, explain
from torchrl.layouts import describe_differences
from torchrl.unchecked import new_tensordict

LARGE = 1024  # bytes; entries from here on have memory of their own
WORD = 8  # bytes; records are read in words
ALIGNED = 64  # bytes; torch's memory begins at a multiple of them
RECORDS = "records"
Make = Callable[[str, tuple, torch.dtype], Tensor]


class Entry(NamedTuple):
    """The key, shape and dtype of one entry that every item has.

    Attributes:
        key: where it lies in a TensorDict.
        shape: of one item.
        dtype: of its numbers.
    """

    key: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, described: list) -> Entry:
        """Return the entry that :meth:`describe` wrote."""
        key, shape, name = described
        return cls(tuple(key), tuple(shape), getattr(torch, name))

    def describe(self) -> list:
        """Return key, shape and dtype as lists and text, for JSON."""
        return [list(self.key), list(self.shape), str(self.dtype).removeprefix("torch.")]

    @property
    def num(self) -> int:
        """How many numbers the entry holds in one item."""
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """How many bytes the entry takes in one item."""
        return self.num * self.dtype.itemsize


def values_of(items: TensorDictBase) -> dict[tuple[str, ...], Tensor]:
    """Return the leaves of a batch in a flat dict by path; :func:`entries_of` checks that they are tensors.

    Raises:
        SpecError: a lazy stack whose parts differ in entries or shapes.
    """
    values: dict[tuple[str, ...], Tensor] = {}
    _walk(items, (), values)
    return values


def _walk(items: TensorDictBase, path: tuple[str, ...], values: dict) -> None:
    if isinstance(items, LazyStackedTensorDict):
        _require_same_parts(items, path)
    for key, value in items.items():
        if isinstance(value, TensorDictBase) and not is_non_tensor(value):
            _walk(value, (*path, key), values)
        else:
            values[(*path, key)] = value


def _require_same_parts(stack: LazyStackedTensorDict, path: tuple[str, ...]) -> None:
    """Refuse a lazy stack whose parts differ in their entries or shapes."""
    keys = [set(part.keys()) for part in stack.tensordicts]
    uneven = sorted(set().union(*keys).difference(set(stack.keys())))
    for key in () if uneven else stack.keys():
        shapes = [part.get(key).shape for part in stack.tensordicts]
        if any(shape != shapes[0] for shape in shapes):
            uneven.append(key)
    if uneven:
        got = (
            ", ".join(repr("/".join((*path, key))) for key in uneven) + " in some of its parts only, or of other shapes"
        )
        raise SpecError(explain("replay", expected="a stack of parts with the same entries", got=got))


def entries_of(values: dict[tuple[str, ...], Tensor], batch_dims: int) -> list[Entry]:
    """List key, shape and dtype of each entry of a batch's items, sorted by key.

    Args:
        values: see :func:`values_of`.
        batch_dims: how many leading dimensions are the batch's.

    Raises:
        SpecError: an entry is no tensor.
    """
    for path, value in values.items():
        if not isinstance(value, Tensor):
            who = f"replay, key {'/'.join(path)!r}"
            raise SpecError(explain(who, expected="tensors", got=type(value).__name__, hint="Leave it out."))
    entries = [Entry(path, tuple(value.shape[batch_dims:]), value.dtype) for path, value in values.items()]
    return sorted(entries, key=lambda entry: entry.key)


class Records:
    """Hold memory for ``capacity`` items of given entries, and copy items in and out by place.

    Args:
        capacity: number of items.
        entries: see :func:`entries_of`.
        make: ``make(name, shape, dtype)`` returns zeroed memory, or existing memory of that name.
    """

    def __init__(self, capacity: int, entries: Sequence[Entry], make: Make) -> None:
        self.entries = list(entries)
        # Wide numbers first: then every group of a dtype begins at a multiple of its size.
        small = [entry for entry in entries if entry.num_bytes < LARGE]
        small.sort(key=lambda entry: (-entry.dtype.itemsize, str(entry.dtype)))
        self._large = [entry for entry in entries if entry.num_bytes >= LARGE]
        self.num_words = -(-sum(entry.num_bytes for entry in small) // WORD)
        self.memory: dict[str, Tensor] = {}
        if self.num_words:
            self.memory[RECORDS] = make(RECORDS, (capacity, self.num_words), torch.int64)
        for index, entry in enumerate(self._large):
            self.memory[f"large-{index}"] = make(f"large-{index}", (capacity, *entry.shape), entry.dtype)
        self._groups = _groups(small)
        self._names = {entry.key: f"large-{index}" for index, entry in enumerate(self._large)}
        self._key_of = {name: key for key, name in self._names.items()}
        self.views = self._by_key(self.memory)
        self.device = next(iter(self.memory.values())).device if self.memory else torch.device("cpu")
        self._small = [entry for group in self._groups for entry in group.entries]
        self._tree = _tree_of([entry.key for entry in self._small + self._large])
        is_for_numpy = self.device.type == "cpu" and all(
            entry.num and _numpy_dtype(entry.dtype) for entry in self._small
        )
        self._array = self.memory[RECORDS].numpy() if self._small and is_for_numpy else None
        self._unpacking = _Unpacking(self._small, self.num_words, torch.Size())

    @property
    def bytes_per_item(self) -> int:
        """How many bytes an item takes."""
        return self.num_words * WORD + sum(entry.num_bytes for entry in self._large)

    def read(self, places: np.ndarray) -> TensorDict:
        """Return copies of the items in these places, in contiguous tensors.

        Args:
            places: int64, of any shape.

        Returns:
            ``[*places.shape]``.
        """
        shape, columns = torch.Size(places.shape), []
        if self._array is not None:
            if self._unpacking.shape != shape:
                self._unpacking = _Unpacking(self._small, self.num_words, shape)
            columns = self._unpacking.copy_columns(self._array.take(places, 0))
        if self._array is None or self._large:
            flat = torch.from_numpy(places.reshape(-1)).to(self.device)
            if self._array is None and self._small:
                records = self.memory[RECORDS].index_select(0, flat)
                columns = [column for group in self._groups for column in group.copy_columns(records)]
                columns = [column.view(shape + entry.shape) for column, entry in zip(columns, self._small, strict=True)]
            for name in self._key_of:
                value = self.memory[name].index_select(0, flat)
                columns.append(value if len(shape) == 1 else value.view(shape + value.shape[1:]))
        return _fill(self._tree, columns, shape)

    @torch.no_grad()
    def write(self, places: np.ndarray, values: dict[tuple[str, ...], Tensor]) -> None:
        """Copy items into these places.

        Args:
            places: int64 ``[n]``.
            values: at each key ``[n, ...]``, or ``[B, T, ...]`` with T · B = n, whose step t of row b goes to
                ``places[t * B + b]``.
        """
        first, num = int(places[0]), len(places)
        example = self.entries[0]
        lead = values[example.key].shape[: values[example.key].ndim - len(example.shape)]
        is_one_stretch = bool((places[1:] - places[:-1] == 1).all())
        at = None if is_one_stretch else torch.from_numpy(places).to(self.device)
        for name, memory in self.memory.items():
            target = memory.narrow(0, first, num) if is_one_stretch else memory.new_zeros(num, *memory.shape[1:])
            by_row = target if len(lead) == 1 else target.unflatten(0, (lead[1], lead[0])).transpose(0, 1)
            if name == RECORDS:
                self._pack(by_row, values)
            else:
                by_row.copy_(values[self._key_of[name]])
            if not is_one_stretch:
                memory.index_copy_(0, at, target)

    def _pack(self, records: Tensor, values: dict[tuple[str, ...], Tensor]) -> None:
        """Copy small entries ``[*n, ...]`` into records ``[*n, num_words]``."""
        lead = records.shape[:-1]
        for group in self._groups:
            part = group.within(records)
            columns = [
                values[entry.key] if len(entry.shape) == 1 else values[entry.key].reshape(*lead, entry.num)
                for entry in group.entries
            ]
            if len(columns) > 1 and columns[0].device == records.device:
                torch.cat(columns, -1, out=part)
            else:
                part.copy_(columns[0] if len(columns) == 1 else torch.cat(columns, -1))

    def _by_key(self, memory: dict[str, Tensor]) -> dict[tuple[str, ...], Tensor]:
        """Return views of the entries inside memory ``[*n, ...]``, by key."""
        views = {key: memory[name] for key, name in self._names.items()}
        for group in self._groups:
            part = group.within(memory[RECORDS])
            for entry, value in zip(group.entries, part.split(group.sizes, -1), strict=True):
                is_flat = len(entry.shape) == 1
                views[entry.key] = (
                    value if is_flat else value.unflatten(-1, entry.shape) if entry.shape else value[..., 0]
                )
        return views


class _Group(NamedTuple):
    """Hold the entries of one dtype, which are adjacent in a record, from number ``start`` on, ``num`` in all."""

    dtype: torch.dtype
    entries: list[Entry]
    sizes: list[int]
    start: int
    num: int

    def within(self, records: Tensor) -> Tensor:
        """Return the numbers of the group in records ``[*n, num_words]``, a view ``[*n, num]``."""
        part = records if self.dtype is records.dtype else records.view(self.dtype)
        return part if self.num == part.shape[-1] else part.narrow(-1, self.start, self.num)

    def copy_columns(self, records: Tensor) -> Sequence[Tensor]:
        """Copy the entries out of records ``[n, num_words]``, each ``[n, its size]`` and contiguous."""
        part = self.within(records)
        return [part.contiguous()] if len(self.sizes) == 1 else torch.split_with_sizes_copy(part, self.sizes, 1)


class _Unpacking:
    """Copy the entries out of records ``[*shape, num_words]`` by numpy, in a third of the time of torch's calls.

    Each entry is a span of bytes to numpy, copied as one. The copies lie in one piece of torch's memory, since numpy's
    is not aligned as torch's is.
    """

    def __init__(self, entries: Sequence[Entry], num_words: int, shape: torch.Size) -> None:
        self.shape = shape
        self._columns, start = [], 0
        spans = [np.dtype((np.void, entry.num_bytes)) for entry in entries]
        for at, (entry, span) in enumerate(zip(entries, spans, strict=True)):
            self._columns.append((str(at), span, shape + entry.shape, _numpy_dtype(entry.dtype), start))
            start += -(-shape.numel() * entry.num_bytes // ALIGNED) * ALIGNED
        self._num_bytes = start
        form = [(str(at), span) for at, span in enumerate(spans)]
        rest = num_words * WORD - sum(entry.num_bytes for entry in entries)
        self._record = np.dtype([*form, ("rest", np.void, rest)] if rest else form)

    def copy_columns(self, records: np.ndarray) -> list[Tensor]:
        """Return a contiguous copy of each entry."""
        spans = records.view(self._record)[..., 0]
        memory = torch.empty(self._num_bytes, dtype=torch.uint8).numpy()
        columns = []
        for name, span, shape, dtype, start in self._columns:
            np.ndarray(self.shape, span, memory, start)[...] = spans[name]
            columns.append(torch.from_numpy(np.ndarray(shape, dtype, memory, start)))
        return columns


def _numpy_dtype(dtype: torch.dtype) -> np.dtype | None:
    """Return numpy's name for a dtype; None where it has none."""
    try:
        return torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError:
        return None


def _groups(entries: Sequence[Entry]) -> list[_Group]:
    groups, offset = [], 0
    for dtype in dict.fromkeys(entry.dtype for entry in entries):
        members = [entry for entry in entries if entry.dtype is dtype]
        sizes = [entry.num for entry in members]
        groups.append(_Group(dtype, members, sizes, offset // dtype.itemsize, sum(sizes)))
        offset += sum(sizes) * dtype.itemsize
    return groups


def nest(values: dict[tuple[str, ...], Tensor], batch_size: torch.Size) -> TensorDict:
    """Build a nested TensorDict from tensors by path."""
    return _fill(_tree_of(values), list(values.values()), batch_size)


def _tree_of(paths: Iterable[tuple[str, ...]]) -> dict:
    """Return nested dicts with a path's number where it ends."""
    tree: dict = {}
    for at, (*folders, name) in enumerate(paths):
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = at
    return tree


def _fill(tree: dict, values: Sequence[Tensor], batch_size: torch.Size) -> TensorDict:
    """Build TensorDicts like a tree, with the values that its numbers stand for."""
    entries = {key: values[at] if type(at) is int else _fill(at, values, batch_size) for key, at in tree.items()}
    return new_tensordict(entries, batch_size)


def require_same_entries(who: str, entries: Sequence[Entry], expected: Sequence[Entry]) -> None:
    """Refuse items with other keys, shapes or dtypes than the first.

    Raises:
        SpecError: naming each difference.
    """
    if list(entries) == list(expected):
        return
    came, due = ({entry.key: (entry.shape, entry.dtype, None) for entry in each} for each in (entries, expected))
    expected_text = "items with the keys, shapes and dtypes of the first"
    hint = "Use select() or exclude() on what you add, or another buffer."
    raise SpecError(explain(who, expected=expected_text, got=describe_differences(came, due), hint=hint))
