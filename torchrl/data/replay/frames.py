"""Store each frame of stacked observations once; a step's stack and next stack are rebuilt when they are read.

A step stores its newest frame only. Its older frames are those of the steps before it, its next frame that of the step
after it. Where that other step is missing (at an episode's last step, the newest and the oldest steps of the ring), the
frames are stored in a *pool*, a second memory. An episode of three steps with stacks of two, whose last step shows f2
and leads to f3::

    step           0        1        2
    place          f0       f1       f2
    stack          f0 f0    f0 f1    f1 f2      the first frame stands for those before it
    next stack     f0 f1    f1 f2    f2 f3      f3 lies in the pool: no step keeps it

The address of a frame is a place, or -1 - c for cell c of the pool, or ``BLANK`` for a frame of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from torchrl.counts import is_count
from torchrl.data.replay.incoming import Incoming
from torchrl.data.replay.lanes import Links
from torchrl.data.replay.ledger import Ledger, index_dtype
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import as_path

NONE = -1
BLANK = np.iinfo(np.int64).min
Start = Literal["repeat", "zeros"]
Values = dict[tuple[str, ...], Tensor]


class StackedFrames:
    """Let a storage keep each frame of a stacked observation once, and rebuild the stacks when items are read.

    A stack has the oldest frame first, as :class:`~torchrl.envs.transforms.FrameStack` makes it; at the start of an
    episode its first frame stands for those before it, or zeros do. ``num_frames=1`` works for any observation:
    ``("next", key)`` is then read from the following step instead of stored. Batches must have ``is_init`` and time as
    their last dimension. The storage checks all stacks of the first batch, of later batches those of each row's last
    two steps.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> frames = StackedFrames("observation", num_frames=1, dim=-1)  # the next observation is that of the next step
    >>> buffer = ReplayBuffer(TensorStorage(100, frames=frames))
    >>> _ = buffer.extend(batch)  # [2, 8]
    >>> torch.equal(buffer[:2]["next", "observation"], batch["next", "observation"][:, 0])
    True
    >>> frames.num_extra <= 2 + int(batch["next", "done"].sum())  # of the newest steps and of ends
    True

    Args:
        key: of the observation; ``("next", key)`` is rebuilt as well.
        num_frames: how many frames a stack has.
        dim: the dimension of one observation along which frames are joined, negative.
        start: what stands before an episode's first frame: the same frame (``"repeat"``), or ``"zeros"``, as in the
            stacks of ale-py's vector environment.

    Raises:
        ConfigError: ``num_frames`` is not positive, ``dim`` not negative, or ``start`` another word.
    """

    def __init__(
        self,
        key: str | tuple[str, ...] = "pixels",
        *,
        num_frames: int = 4,
        dim: int = -3,
        start: Start = "repeat",
    ) -> None:
        if not is_count(num_frames) or dim >= 0:
            expected, got = "num_frames of at least 1 and a negative dim", f"num_frames={num_frames}, dim={dim}"
            raise ConfigError(explain("StackedFrames", expected=expected, got=got))
        if start not in get_args(Start):
            raise ConfigError(explain("StackedFrames", expected=f"start of {get_args(Start)}", got=repr(start)))
        self.key = as_path(key)
        self.next_key = ("next", *self.key)
        self.num_frames = num_frames
        self.dim = dim
        self.start = start
        self._is_checked = False

    def make_empty_copy(self) -> StackedFrames:
        """Return one for another storage, with the same arguments."""
        return StackedFrames(self.key, num_frames=self.num_frames, dim=self.dim, start=self.start)

    @property
    def layout(self) -> str:
        """A text: which observation is rebuilt, of how many frames, and what stands before the first one."""
        before = " after zeros" if self.start == "zeros" else ""
        return f"frames of {'/'.join(self.key)} × {self.num_frames}{before}"

    def bind(self, capacity: int) -> None:
        """Make empty tables of where the frames of ``capacity`` places lie."""
        self._pool = _Pool()
        self._is_start = np.zeros(capacity, bool)
        dtype = index_dtype(capacity)
        self._after = np.full(capacity, NONE, dtype)  # the place of the next step of the episode
        self._next_at = np.full(capacity, NONE, dtype)  # the cell of the newest frame of what comes next
        self._older_at = np.full((capacity, self.num_frames - 1), NONE, dtype)  # cells of the older ones

    def reduce(self, values: Values) -> Values:
        """Return the entries to store: the newest frame instead of the stack, no next stack; views."""
        if self.next_key not in values:  # that is done already
            return values
        rest = {key: value for key, value in values.items() if key not in (self.key, self.next_key)}
        return {**rest, self.key: self._newest(values[self.key])}

    def require_form(self, values: Values, batch_dims: int) -> None:
        """Refuse items without a stack or next stack, or whose size does not divide into ``num_frames`` frames.

        Raises:
            SpecError: the entries are not there, or cannot be taken apart.
        """
        if batch_dims == 1 and self.next_key not in values:  # a state, whose stacks were taken apart before
            return
        stack, after = values.get(self.key), values.get(self.next_key)
        name = "/".join(self.key)
        if stack is None or after is None or ("is_init",) not in values:
            hint = "Collect with the environment's FrameStack, or leave StackedFrames out."
            expected, got = f"the keys {name!r}, 'next/{name}' and 'is_init'", sorted("/".join(key) for key in values)
            raise SpecError(explain("StackedFrames", expected=expected, got=got, hint=hint))
        shape = stack.shape[batch_dims:]
        if len(shape) < -self.dim or shape[self.dim] % self.num_frames or after.shape != stack.shape:
            expected = f"{name!r} as {self.num_frames} frames joined along {self.dim}"
            raise SpecError(explain("StackedFrames", expected=expected, got=f"shape {list(shape)}"))

    def _newest(self, stack: Tensor) -> Tensor:
        size = stack.shape[self.dim] // self.num_frames
        return stack.narrow(self.dim, -size + stack.shape[self.dim], size)

    def check(self, incoming: Incoming) -> None:
        """Refuse a batch whose stacks, rebuilt from single frames, would differ; skip batches with masked steps.

        Raises:
            SpecError: the steps of an episode are no stacks of the same frames.
        """
        if incoming.is_masked:
            return
        stack, after = incoming.values[self.key], incoming.values[self.next_key]
        starts = incoming.values["is_init",].reshape(stack.shape[:2])
        if self._is_checked:
            stack, after, starts = stack[:, -2:], after[:, -2:], starts[:, -2:]
        self._is_checked = True
        size = stack.shape[self.dim] // self.num_frames
        rest = size * (self.num_frames - 1)
        same = torch.equal(after.narrow(self.dim, 0, rest), stack.narrow(self.dim, size, rest))
        goes_on = ~starts[:, 1:]
        same = same and torch.equal(after[:, :-1][goes_on], stack[:, 1:][goes_on])
        same = same and self._begin_alike(stack[starts], size)
        if not same:
            stands = "zeros stand before" if self.start == "zeros" else "those before it are the same as"
            hint = (
                f"Frames are oldest first, {stands} the first frame of an episode, and is_init says where one begins."
            )
            hint += " The other way to begin is start=" + ('"repeat".' if self.start == "zeros" else '"zeros".')
            expected = "every stack to be the one before it, moved on by one frame"
            raise SpecError(explain("StackedFrames", expected=expected, got="another one", hint=hint))

    def _begin_alike(self, first: Tensor, size: int) -> bool:
        """Answer whether the first stacks of episodes, ``[n, ...]``, begin as ``start`` says."""
        older = first.narrow(self.dim, 0, size * (self.num_frames - 1))
        if self.start == "zeros":
            return not older.any()
        return torch.equal(older, first.narrow(self.dim, size, size * (self.num_frames - 1)))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def before_write(self, places: np.ndarray, ledger: Ledger, memory: Tensor) -> None:
        """Copy into the pool the frames of steps about to be overwritten that other steps' stacks need."""
        old = places[ledger.ids_at(places) >= 0]
        if not len(old):
            return
        heirs = self._after[old]
        heirs = heirs[heirs >= 0]
        heirs = heirs[~np.isin(heirs, old)]
        if len(heirs) and self.num_frames > 1:
            heirs = heirs[self._older_at[heirs, 0] == NONE]
            older = self._addresses(heirs, ledger)[:, :-1]
            self._older_at[heirs] = self._pool.put(self._gather(older, memory)).reshape(older.shape)
        for column in (self._next_at, self._older_at):
            taken = column[old]
            self._pool.free(taken)
            column[old] = NONE

    def after_write(self, places: np.ndarray, incoming: Incoming, links: Links, first: int, ledger: Ledger) -> None:
        """Note which steps the new items follow, and put into the pool their frames that no stored step has.

        Args:
            places: the places of new items, ``[n]``.
            incoming: their entries.
            links: what came before each of them, ``[n]``.
            first: the id of the first of them.
            ledger: of the storage, which has given out their ids.
        """
        values = incoming.flat([self.key, self.next_key, ("is_init",)])
        is_init = values["is_init",].reshape(-1).cpu().numpy()
        before = np.arange(first, first + len(places)) - links.gap
        follows = (links.gap > 0) & ~is_init & (before >= ledger.oldest)
        earlier = ledger.place_of(before[follows])
        self._after[places] = NONE
        self._after[earlier] = places[follows]
        taken = self._next_at[earlier]
        self._pool.free(taken)
        self._next_at[earlier] = NONE
        self._is_start[places] = is_init
        last = np.flatnonzero(self._after[places] == NONE)
        self._next_at[places[last]] = self._pool.put(self._newest(values[self.next_key][torch.from_numpy(last)]))
        heads = np.flatnonzero(~follows & ~is_init)
        if len(heads) and self.num_frames > 1:
            stack = values[self.key][torch.from_numpy(heads)]
            size = stack.shape[self.dim] // self.num_frames
            older = stack.narrow(self.dim, 0, stack.shape[self.dim] - size)
            frames = older.unflatten(self.dim, (self.num_frames - 1, size)).movedim(self.dim - 1, 1)
            self._older_at[places[heads]] = self._pool.put(frames.flatten(0, 1)).reshape(len(heads), -1)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, places: np.ndarray, ledger: Ledger, memory: Tensor) -> Values:
        """Rebuild the stacks and next stacks of the items in these places.

        Args:
            places: places, int64 ``[n]``.
            ledger: of the storage.
            memory: the newest frame of every place, ``[C, ...]``.

        Returns:
            Under the key the stacks, and under ``("next", key)`` the next ones, ``[n, ...]``: views of one tensor.
        """
        next_at, after = self._next_at[places], self._after[places]
        following = np.where(next_at >= 0, -next_at - 1, after)
        addresses = np.concatenate((self._addresses(places, ledger), following[:, None]), 1)
        frames = self._gather(addresses, memory).unflatten(0, addresses.shape)
        at = frames.ndim + self.dim
        joined = frames.movedim(1, at - 1).flatten(at - 1, at)
        size = frames.shape[at]
        width = size * self.num_frames
        return {self.key: joined.narrow(at - 1, 0, width), self.next_key: joined.narrow(at - 1, size, width)}

    def _addresses(self, places: np.ndarray, ledger: Ledger) -> np.ndarray:
        """Return the addresses of the frames of the items' stacks, oldest first, ``[n, num_frames]``."""
        addresses = np.empty((len(places), self.num_frames), np.int64)
        at = places.astype(np.int64)
        addresses[:, -1] = at
        num_taken = np.zeros(len(places), np.int64)
        for column in range(self.num_frames - 2, -1, -1):
            has_older = self._older_at[at, 0] >= 0
            ends = ~has_older & self._is_start[at]  # nothing is older
            moves = ~has_older & ~ends
            at[moves] = ledger.place_of(ledger.ids_at(at[moves]) - ledger.gap[at[moves]])
            num_taken += has_older
            older = self._older_at[at, -num_taken]  # 0 where none is taken, which is not looked at
            addresses[:, column] = np.where(has_older, -1 - older, np.where(ends & (self.start == "zeros"), BLANK, at))
        return addresses

    def _gather(self, addresses: np.ndarray, memory: Tensor) -> Tensor:
        """Copy the frames at these addresses, from the storage or the pool, ``[addresses.size, ...]``."""
        flat = addresses.reshape(-1)
        frames = memory.index_select(0, torch.from_numpy(np.maximum(flat, 0)).to(memory.device))
        pooled, blank = np.flatnonzero((flat < 0) & (flat != BLANK)), np.flatnonzero(flat == BLANK)
        if len(blank):
            frames[torch.from_numpy(blank).to(memory.device)] = 0
        if len(pooled):
            frames[torch.from_numpy(pooled).to(memory.device)] = self._pool.read(-1 - flat[pooled])
        return frames

    @property
    def num_extra(self) -> int:
        """Number of frames in the pool."""
        return self._pool.num_used

    def state(self) -> dict:
        """Return copies of the tables of frames' addresses and of the pool, as tensors."""
        columns = {name: torch.from_numpy(column.copy()) for name, column in self._columns().items()}
        return {**columns, **self._pool.state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        for name, column in self._columns().items():
            column[:] = state[name].numpy()
        self._pool.load(state)

    def _columns(self) -> dict[str, np.ndarray]:
        names = ("_is_start", "_after", "_next_at", "_older_at")
        return {name.lstrip("_"): getattr(self, name) for name in names}


class _Pool:
    """Hold single frames in numbered cells of a memory that grows by a half when it is full."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._free = np.empty(0, np.int64)

    @property
    def num_used(self) -> int:
        """How many frames the pool holds."""
        return 0 if self._memory is None else len(self._memory) - len(self._free)

    def put(self, frames: Tensor) -> np.ndarray:
        """Copy frames ``[n, ...]`` into free cells; return the cells' numbers."""
        num = len(frames)
        if num > len(self._free):
            size = 0 if self._memory is None else len(self._memory)
            more = max(num - len(self._free), size // 2, 64)
            memory = frames.new_zeros((size + more, *frames.shape[1:]))
            if size:
                memory[:size] = self._memory
            self._memory = memory
            self._free = np.concatenate((np.arange(size, size + more)[::-1], self._free))
        self._free, cells = self._free[: len(self._free) - num], self._free[len(self._free) - num :].copy()
        self._memory[torch.from_numpy(cells).to(frames.device)] = frames
        return cells

    def read(self, cells: np.ndarray) -> Tensor:
        """Return copies of the frames in these cells."""
        return self._memory[torch.from_numpy(cells).to(self._memory.device)]

    def free(self, cells: np.ndarray) -> None:
        """Mark cells as free; -1 stands for no cell."""
        self._free = np.concatenate((self._free, cells[cells >= 0]))

    def state(self) -> dict:
        """Return copies of the frames and of the numbers of free cells, as tensors."""
        memory = torch.empty(0) if self._memory is None else self._memory.clone()
        return {"pool": memory, "free": torch.from_numpy(self._free.copy())}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._memory = state["pool"].clone() if state["pool"].numel() else None
        self._free = state["free"].numpy().copy()
