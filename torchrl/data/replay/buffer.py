"""The replay buffer: it ties together a storage, a writer that chooses places and a sampler that draws them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.counts import is_count
from torchrl.data.batch_functions import BatchFunction, apply_function, require_batch_function
from torchrl.data.replay.ahead import SamplesAhead
from torchrl.data.replay.incoming import FACTS, MASK, Incoming, items_of
from torchrl.data.replay.lanes import Lanes, Links
from torchrl.data.replay.prioritized import read_priority, resolve_priority
from torchrl.data.replay.records import Entry
from torchrl.data.replay.samplers import Draw, Follower, Sampler, SamplerWithoutReplacement, UniformSampler
from torchrl.data.replay.saving import PIECES, load_from, load_pieces, save_pieces, save_to, to_arrays, to_tensors
from torchrl.data.replay.storages import Storage
from torchrl.data.replay.writers import RingWriter, Writer, last_of_each
from torchrl.errors import CheckpointError, ConfigError, SpecError, explain
from torchrl.unchecked import new_tensordict, put


class ReplayBuffer:
    """Keep steps with any keys, up to the capacity of a storage, and return samples of them for training.

    An *item* is one step, a TensorDict without batch dimensions. In a batch ``[*B, T]`` of a collector the last
    dimension is time; where items have ``is_init`` the buffer notes which step came before which, so that slices of
    time can be drawn. Steps whose ``("collector", "mask")`` is false are left out.

    A sample has under ``"replay"``: ``index``, the *place* of each item (its position in the storage, below
    ``len(buffer)``); ``id``, its number in the order of writing, which is never used twice; and what the sampler adds,
    such as ``weight``.

    Threads may add and sample at the same time. Several processes may, where the storage is a
    :class:`~torchrl.data.replay.MemmapStorage` and the writer a :class:`~torchrl.data.replay.RingWriter`: a copy of the
    buffer in another process uses the same files, and has a sampler of its own.

    >>> _ = buffer.extend(batch)  # [2, 8]: 16 steps
    >>> sample = buffer.sample()
    >>> len(buffer), sample.batch_size, sample["next", "reward"].shape
    (16, torch.Size([4]), torch.Size([4, 1]))

    Args:
        storage: where items lie.
        sampler: which items are drawn; None draws uniformly.
        writer: where new items go; None replaces the oldest.
        batch_size: number of items of a sample; None leaves it to each call.
        prefetch: how many samples a thread prepares ahead while the caller uses the last one. Their items are drawn
            early, so items and priorities that come later do not count.
        transform: a function applied to each sample, for example :class:`~torchrl.data.MultiStep` on slices; no
            transform of environments, which would change every entry.
        seed: of the random draws; None draws a seed.

    Raises:
        ConfigError: parts that do not fit each other, or a number that is too small.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        sampler: Sampler | None = None,
        writer: Writer | None = None,
        batch_size: int | None = None,
        prefetch: int = 0,
        transform: BatchFunction | None = None,
        seed: int | None = None,
    ) -> None:
        self.storage = storage
        self.sampler = UniformSampler() if sampler is None else sampler
        self.writer = RingWriter() if writer is None else writer
        self.batch_size = None if batch_size is None else _require_batch_size(batch_size)
        self.prefetch = prefetch
        self.transform = transform
        require_batch_function("ReplayBuffer, transform", transform)
        _require_parts(self.storage, self.sampler, self.writer)
        if not is_count(prefetch, least=0):
            raise ConfigError(explain("ReplayBuffer", expected="a prefetch of 0 or more samples", got=repr(prefetch)))
        self._seed = seed
        self._generator = np.random.default_rng(seed)
        # Whether a sampler here, or in a process that opens the files, needs the links between steps.
        self._keeps_chains = self.sampler.needs_order or self.storage.needs_order
        self._lanes, self._ahead = Lanes(), SamplesAhead()
        self._mark = secrets.token_hex(4)  # as long as an id stands for one item
        self.sampler.bind(storage.capacity)
        with storage.lock:
            self._follower = Follower(self.sampler, storage.ledger)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def add(self, item: TensorDictBase) -> int:
        """Add one item, of batch size ``[]``; return its place, or -1 if the writer rejects it.

        Raises:
            SpecError: other keys, shapes or dtypes than the first item; nothing is added.
        """
        if not isinstance(item, TensorDictBase):
            raise SpecError(explain("add", expected="a TensorDict of batch size []", got=type(item).__name__))
        if item.batch_dims:
            hint = "extend(batch) adds them all."
            raise SpecError(explain("add", expected="one item, of batch size []", got=list(item.batch_size), hint=hint))
        return int(self.extend(item.unsqueeze(0))[0])

    def extend(self, batch: TensorDictBase) -> Tensor:
        """Add the items of a batch: N transitions ``[N]``, or ``[*B, T]``; its entries under ``"replay"`` are left out.

        Returns:
            The places of the n items, int64 ``[n]``, in the order of writing; -1 where the writer rejected one.

        Raises:
            SpecError: no batch, more items than the capacity (where the oldest are replaced), or other entries than the
                first; nothing is added.
            StorageError: there is not enough memory for the first items.
        """
        incoming = Incoming(batch)
        if incoming.num > self.storage.capacity and self.writer.keeps_order:
            expected = f"at most {self.storage.capacity} items, the capacity"
            raise SpecError(explain("extend", expected=expected, got=incoming.num, hint="Add them in several parts."))
        self.storage.prepare(incoming.values, batch_dims=2)
        self.storage.check(incoming)
        if not incoming.num:
            return torch.empty(0, dtype=torch.int64)
        with self.storage.lock:
            places = self._write_in_turn(incoming) if self.writer.keeps_order else self._write_anywhere(incoming)
        return torch.from_numpy(places)

    def _write_in_turn(self, incoming: Incoming) -> np.ndarray:
        ledger = self.storage.ledger
        places = self.writer.choose_places({}, incoming.num, ledger)
        self.storage.before_write(places)
        first = ledger.claim(places)
        self.storage.write(places, incoming.steps())
        links = incoming.links(self._lanes, first) if self._keeps_chains else Links.none(incoming.num)
        self.storage.after_write(places, incoming, links, first)
        ledger.commit(places, links)
        self._follower.catch_up(ledger, places)
        return places

    def _write_anywhere(self, incoming: Incoming) -> np.ndarray:
        ledger, values = self.storage.ledger, incoming.flat()
        chosen = self.writer.choose_places(values, incoming.num, ledger)
        admitted = last_of_each(chosen)
        places = chosen[admitted]
        if len(places):
            ledger.claim(places)
            self.storage.write(places, {key: value[admitted] for key, value in values.items()})
            ledger.commit(places, Links.none(len(places)))
            self._follower.catch_up(ledger, places)
        return chosen

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def sample(self, batch_size: int | None = None) -> TensorDictBase:
        """Draw items and return copies of them: ``[batch_size]``, or N slices, ``[N, T]``.

        Of slices ``batch_size`` is the number of all steps, N · T.
        A :class:`SamplerWithoutReplacement` returns fewer at the end of a round.

        Raises:
            ConfigError: no batch size was given, or the buffer has nothing to draw.
        """
        num = self.batch_size if batch_size is None else _require_batch_size(batch_size)
        if num is None:
            hint = "Give it to sample() or to ReplayBuffer()."
            raise ConfigError(explain("sample", expected="a batch_size", got="none", hint=hint))
        with self.storage.lock:
            if not self.prefetch:
                return self._read(*self._draw(num))
            self._ahead.keep_only(num)
            while len(self._ahead) < self.prefetch + 1:
                self._ahead.add(self._read_later, num, *self._draw(num))
            sample = self._ahead.take()
            self._ahead.add(self._read_later, num, *self._draw(num))
        return sample.result()

    def _draw(self, num: int) -> tuple[Draw, np.ndarray]:
        """Let the sampler draw ``num`` items; return the draw and the items' ids. The caller must hold the lock."""
        ledger = self.storage.ledger
        self._follower.catch_up(ledger)
        if not len(ledger):
            hint = "Add something before: add(item) or extend(batch)."
            raise ConfigError(explain("sample", expected="a buffer with items", got="an empty one", hint=hint))
        draw = self.sampler.draw(num, ledger, self._generator)
        if not (isinstance(draw, Draw) and isinstance(draw.places, np.ndarray) and draw.places.dtype.kind == "i"):
            places = getattr(draw, "places", draw)
            got = f"{type(draw).__name__} of {getattr(places, 'dtype', type(places).__name__)}"
            who, hint = f"{type(self.sampler).__name__}.draw", "Write return Draw(places)."
            raise ConfigError(explain(who, expected="a Draw of places, a numpy array of int64", got=got, hint=hint))
        # A number tells the place only where places are used in turn.
        has_ids = draw.ids is not None and self.writer.keeps_order
        ids = draw.ids if has_ids else ledger.ids_at(draw.places)
        if draw.mask is None and ids.size and ids.min() < 0:
            got = f"place {int(draw.places.reshape(-1)[ids.argmin()])}, which is empty"
            who, hint = f"{type(self.sampler).__name__}.draw", "ledger.live_places are those that hold one."
            raise ConfigError(explain(who, expected="places that hold items", got=got, hint=hint))
        return draw, ids

    def _read(self, draw: Draw, ids: np.ndarray) -> TensorDictBase:
        """Copy the items of a draw out of the storage, and apply the transform."""
        sample, send = self.storage.read(draw.places), self.storage.send
        shape = sample.batch_size
        facts = {"index": send(draw.places), "id": send(ids)}
        for name, fact in draw.facts.items():
            value = send(fact)
            facts[name] = value if value.shape == shape else value.unsqueeze(-1).expand(shape)
        put(sample, FACTS, new_tensordict(facts, shape))
        if draw.mask is not None:
            sample.set(MASK, send(draw.mask))
        return sample if self.transform is None else apply_function("ReplayBuffer, transform", self.transform, sample)

    def _read_later(self, num: int, draw: Draw, ids: np.ndarray) -> TensorDictBase:
        """Copy the items of an earlier draw; if one of them has been overwritten since, draw again."""
        with self.storage.lock:
            if not np.array_equal(self.storage.ledger.ids_at(draw.places), ids):
                draw, ids = self._draw(num)
            return self._read(draw, ids)

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Yield samples without end; with a :class:`SamplerWithoutReplacement` begin a new round, and end with it.

        Raises:
            ConfigError: the buffer was built without ``batch_size``, or has nothing to draw.
        """
        sampler = self.sampler if isinstance(self.sampler, SamplerWithoutReplacement) else None
        if sampler is not None:
            with self.storage.lock:
                self._ahead.clear()
                sampler.clear()
                this_round = sampler.num_rounds + 1
        yield self.sample()
        while sampler is None or self._has_more(this_round):
            yield self.sample()

    def _has_more(self, this_round: int) -> bool:
        with self.storage.lock:
            if (next_round := self._ahead.next_round) is not None:
                return next_round == this_round
            return self.sampler.has_more(self.batch_size, self.storage.ledger)

    # ---- everything else ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many items the buffer holds."""
        with self.storage.lock:
            return len(self.storage.ledger)

    def __getitem__(self, index: Any) -> TensorDict:
        """Return copies of items by place (as in ``("replay", "index")``): an int, a slice, a list or a tensor.

        Raises:
            IndexError: there is no such item.
        """
        with self.storage.lock:
            if not (num := len(self.storage.ledger)):
                raise IndexError("the buffer is empty")
            places = np.arange(num)[index.cpu().numpy() if isinstance(index, Tensor) else index]
            return self.storage.read(np.asarray(places))

    def update_priority(self, which: TensorDictBase | Tensor, priority: Tensor | float | None = None) -> None:
        """Set the priorities of sampled items; skip those that have been overwritten since they were sampled.

        Args:
            which: a sample; or places, int64 ``[n]``, which stand for the items that are there now.
            priority: ``[n]`` or ``[n, 1]``, or one number for all; for prioritised slices one for each of N, ``[N]``.
                None takes the sample's entry ``"priority"``.

        Raises:
            SpecError: negative, or not one for each item.
            NonFiniteError: NaN or infinite.
            KeyMissing: no priority.
            ConfigError: the sampler has no priorities.
        """
        places, ids = items_of(which)
        values = read_priority(resolve_priority(which, priority), len(places))
        with self.storage.lock:
            ledger = self.storage.ledger
            self._follower.catch_up(ledger)
            is_there = ledger.holds(places, ids)
            places, values = places[is_there], values[is_there]
            self.sampler.update_priority(places, values)
            if self.writer.asks_priority and len(places):
                self.writer.on_priority(places, values)

    def empty(self) -> None:
        """Remove every item; the memory stays allocated."""
        with self.storage.lock:
            self._ahead.clear()
            self.storage.clear()
            self.sampler.clear()
            self.writer.clear()
            self._lanes.clear()
            self._follower.skip(self.storage.ledger)

    def state_dict(self) -> dict:
        """Return a copy of all items and of the parts' states; a buffer that loads it draws the same samples.

        (With ``prefetch`` not always: a prepared sample whose items are overwritten before they are read is redrawn.)
        """
        with self.storage.lock:
            return deepcopy(self._state())

    def _state(self) -> dict:
        """Return the state without copying the storage's memory. The caller must hold the lock."""
        self._follower.catch_up(self.storage.ledger)
        entries, ledger = self.storage.entries, self.storage.ledger
        return {
            **self._kinds(),
            "entries": None if entries is None else [entry.describe() for entry in entries],
            "items": {} if entries is None else self.storage.state(ledger.num_used),
            "ledger": to_tensors(ledger.state()),
            "sampler": self.sampler.state_dict(),
            "writer": self.writer.state_dict(),
            "lanes": [to_tensors(ends) for ends in self._lanes.state()],
            "ahead": self._ahead.state(),
            "generator": self._generator.bit_generator.state,
            "transform": self.transform.state_dict() if hasattr(self.transform, "state_dict") else {},
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            CheckpointError: the state is of a buffer with another capacity or other parts.
        """
        with self.storage.lock:
            self._ahead.clear()
            own = self._kinds()
            theirs = {name: state[name] for name in own}
            if own != theirs:
                raise CheckpointError(explain("ReplayBuffer.load", expected=f"a save of {own}", got=f"one of {theirs}"))
            if state["entries"] is not None:
                entries = [Entry.of(described) for described in state["entries"]]
                self.storage.prepare({e.key: torch.empty((0, *e.shape), dtype=e.dtype) for e in entries}, batch_dims=1)
                self.storage.load(state["items"])
            self._mark = secrets.token_hex(4)
            self.storage.ledger.load(to_arrays(state["ledger"]))
            load_pieces(self.storage, state.get(PIECES, ()))
            self.sampler.clear()
            self.sampler.on_write(self.storage.ledger.live_places, self.storage.ledger)
            self.sampler.load_state_dict(state["sampler"])
            self.writer.load_state_dict(state["writer"])
            self._generator.bit_generator.state = state["generator"]
            if transform := state.get("transform"):  # not in saves of earlier versions
                self.transform.load_state_dict(transform)
            self._lanes.load([to_arrays(ends) for ends in state["lanes"]])
            self._follower.skip(self.storage.ledger)
            self._ahead.load(self._read_later, state["ahead"] if self.prefetch else [])

    def _kinds(self) -> dict[str, int | str]:
        """Return names of the capacity, the storage's layout and the parts' classes: a state fits equal ones only."""
        return {
            "capacity": self.storage.capacity,
            "layout": self.storage.layout,
            "sampler_class": type(self.sampler).__name__,
            "writer_class": type(self.writer).__name__,
        }

    def save(self, folder: str) -> None:
        """Write items and state to a folder; an earlier save there stays until the new one is whole.

        Other threads and processes cannot add or sample meanwhile. Items are not copied in memory first, except those
        of a :class:`ListStorage` or on another device.

        Raises:
            CheckpointError: the folder cannot be written to, or the disk is full; the last save is unchanged.
        """
        with self.storage.lock:
            save_to(folder, self._state())

    def save_in_pieces(self, folder: str | os.PathLike, *, since: str | os.PathLike | None = None) -> None:
        """Write items and state to a folder; of items that an earlier save holds, only links to its files.

        Items lie in files of their own then, which never change: what is overwritten in the buffer later stays in them.
        So the earlier folder may go, and a memory-mapped buffer may go on in its own files. Where places are not used
        in turn, or items are no tensors (:class:`ListStorage`), every item is written, as by :meth:`save`.

        >>> _ = buffer.extend(batch)
        >>> buffer.save_in_pieces(folder / "first")
        >>> _ = buffer.extend(batch)
        >>> buffer.save_in_pieces(folder / "second", since=folder / "first")  # writes 16 items, links 16
        >>> sorted(path.name.split("-")[1] for path in (folder / "second").glob("items-*"))
        ['0', '16']

        Args:
            folder: a new folder, on the same disk as ``since``.
            since: of an earlier save of this buffer in this process; others, and saves from before a :meth:`load`, are
                not used. None writes every item.

        Raises:
            CheckpointError: the folder cannot be written to, or the disk is full.
        """
        with self.storage.lock:
            state = self._state()
            if self.writer.keeps_order and self.storage.has_rows and self.storage.entries is not None:
                state["items"]["memory"] = {}
                state[PIECES] = save_pieces(folder, self.storage, since=since, mark=self._mark)
            save_to(folder, state)

    def load(self, folder: str | os.PathLike) -> None:
        """Restore what :meth:`save` or :meth:`save_in_pieces` wrote.

        Raises:
            CheckpointError: there is no whole save, or it does not fit this buffer.
        """
        self.load_state_dict(load_from(folder))

    def close(self) -> None:
        """End the prefetching thread, and close the storage's files; may be called twice."""
        self._ahead.close()
        self.storage.close()

    def __deepcopy__(self, memo: dict) -> ReplayBuffer:
        """Return an independent buffer with the same items, which draws the same samples from now on.

        Raises:
            StorageError: the items lie in files, which another buffer would write to as well.
        """
        with self.storage.lock:
            parts = {name: deepcopy(getattr(self, name), memo) for name in ("sampler", "writer", "transform")}
            numbers = {"batch_size": self.batch_size, "prefetch": self.prefetch, "seed": self._seed}
            twin = type(self)(self.storage.make_empty_copy(), **parts, **numbers)
            twin.load_state_dict(self.state_dict())
        memo[id(self)] = twin
        return twin

    def __getstate__(self) -> dict:
        names = ("storage", "sampler", "writer", "batch_size", "prefetch", "transform")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state.pop("storage"), **state)

    def __repr__(self) -> str:
        storage, sampler, writer = (type(part).__name__ for part in (self.storage, self.sampler, self.writer))
        return f"ReplayBuffer({storage}({self.storage.capacity}), {sampler}, {writer}, len={len(self)})"


def _require_parts(storage: object, sampler: object, writer: object) -> None:
    for part, kind in ((storage, Storage), (sampler, Sampler), (writer, Writer)):
        if not isinstance(part, kind):
            hint = "Make one: TensorStorage(capacity), UniformSampler(), RingWriter()."
            raise ConfigError(explain("ReplayBuffer", expected=f"a {kind.__name__}", got=repr(part), hint=hint))
    for part in () if writer.keeps_order else (sampler, storage):
        if part.needs_order:
            expected, got = f"a RingWriter with a {type(part).__name__}", type(writer).__name__
            raise ConfigError(explain("ReplayBuffer", expected=expected, got=got))


def _require_batch_size(value: object) -> int:
    if not is_count(value):
        raise ConfigError(explain("ReplayBuffer", expected="a batch_size of at least 1", got=repr(value)))
    return int(value)
