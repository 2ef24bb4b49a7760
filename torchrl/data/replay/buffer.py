"""The replay buffer: what ties a storage, a writer that chooses places and a sampler that draws them together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.data.batch_functions import BatchFunction, apply_function, require_batch_function
from torchrl.data.replay.incoming import FACTS, MASK, Incoming
from torchrl.data.replay.lanes import Lanes, Links
from torchrl.data.replay.prioritized import checked_priority
from torchrl.data.replay.samplers import Draw, Sampler, SamplerWithoutReplacement, UniformSampler
from torchrl.data.replay.saving import load_from, save_to
from torchrl.data.replay.storages import MemmapStorage, Storage
from torchrl.data.replay.writers import REFUSED, RingWriter, Writer
from torchrl.errors import CheckpointError, ConfigError, KeyMissing, SpecError, explain
from torchrl.unchecked import new_tensordict, put


class ReplayBuffer:
    """Keeps items, whatever their keys, and hands out samples of them.

    An item is one step: what a TensorDict holds beside its batch dimensions. In a batch ``[*B, T]`` of a collector the
    last dimension is time, and what came before what is noted as long as items come with ``is_init``, so that slices of
    time can be drawn. Steps whose ``("collector", "mask")`` is false are left out.

    A sample holds under ``"replay"``: ``index``, the place of each item, below ``len(buffer)``; ``id``, the number
    under which it was written, which never comes again; and what the sampler adds, such as ``weight``.

    Threads may add and sample at the same time. Several processes may, where the storage is a
    :class:`~torchrl.data.replay.MemmapStorage` and the writer a :class:`~torchrl.data.replay.RingWriter`: a buffer that
    is sent to a process goes on with the same files, and a sampler of its own.

    Args:
        storage: where items lie.
        sampler: which items are drawn; None draws uniformly.
        writer: where new items go; None replaces the oldest.
        batch_size: number of items of a sample; None leaves it to each call.
        prefetch: number of samples that a thread makes ahead, while the caller works on the last. They are drawn at
            once, so they do not know later items and priorities.
        transform: a function applied to each sample, for example :class:`~torchrl.data.MultiStep` on slices; no
            transform of environments, which would change every entry.
        seed: of the stream of draws; None draws one.

    Raises:
        ConfigError: parts that do not go together, or a number that is none.
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
        self.batch_size = None if batch_size is None else _checked_number("batch_size", batch_size)
        self.prefetch = prefetch
        self.transform = transform
        require_batch_function("ReplayBuffer, transform", transform)
        _require_parts(self.storage, self.sampler, self.writer)
        if not isinstance(prefetch, Integral) or prefetch < 0:
            raise ConfigError(explain("ReplayBuffer", expected="a prefetch of 0 or more samples", got=repr(prefetch)))
        self._seed = seed
        self._generator = np.random.default_rng(seed)
        # Whether a sampler here, or in a process that opens the files, needs the links between steps.
        self._keeps_chains = self.sampler.needs_order or self.storage.needs_order
        self._lanes = Lanes()
        self._seen_written = self._seen_claimed = 0  # what the sampler knows of
        self._pending: deque[_Ahead] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self.sampler.bind(storage.capacity)
        with storage.locked():
            self._seen_written = self._seen_claimed = storage.ledger.oldest

    # ---- writing -----------------------------------------------------------------------------------------------------

    def add(self, item: TensorDictBase) -> int:
        """Add one item, of batch size ``[]``; return its place, -1 if the writer does not let it in.

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
        """Add the items of a batch, ``[N]`` or ``[*B, T]``; its entries under ``"replay"`` are left out.

        Returns:
            Their places, int64 ``[n]``, in the order in which they were written; -1 where one was not let in.

        Raises:
            SpecError: no batch, more items than there are places, or another form than the first; nothing is added.
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
        with self.storage.locked():
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
        self._update_sampler(places)
        return places

    def _write_anywhere(self, incoming: Incoming) -> np.ndarray:
        ledger, values = self.storage.ledger, incoming.flat()
        chosen = self.writer.choose_places(values, incoming.num, ledger)
        admitted = _last_of_each(chosen)
        places = chosen[admitted]
        if len(places):
            ledger.claim(places)
            self.storage.write(places, {key: value[admitted] for key, value in values.items()})
            ledger.commit(places, Links.none(len(places)))
            self._update_sampler(places)
        return chosen

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def sample(self, batch_size: int | None = None) -> TensorDictBase:
        """Return a sample of ``batch_size`` items, the caller's own: ``[batch_size]``, or ``[N, T]`` for slices.

        Raises:
            ConfigError: no batch size, or nothing to draw.
        """
        num = self.batch_size if batch_size is None else _checked_number("batch_size", batch_size)
        if num is None:
            hint = "Give it to sample() or to ReplayBuffer()."
            raise ConfigError(explain("sample", expected="a batch_size", got="none", hint=hint))
        if not self.prefetch:
            with self.storage.locked():
                return self._finished(*self._drawn(num))
        with self.storage.locked():
            if self._pending and self._pending[0].num != num:
                self._forget_pending()
            while len(self._pending) < self.prefetch + 1:
                self._submit(num)
            ahead = self._pending.popleft()
            self._submit(num)
        return ahead.sample.result()

    def _drawn(self, num: int) -> tuple[Draw, np.ndarray]:
        """Draw; return the draw and the numbers of its items. The caller holds the lock."""
        self.storage.refresh()
        ledger = self.storage.ledger
        self._update_sampler()
        if not len(ledger):
            hint = "Add something before: add(item) or extend(batch)."
            raise ConfigError(explain("sample", expected="a buffer with items", got="an empty one", hint=hint))
        draw = self.sampler.draw(num, ledger, self._generator)
        return draw, ledger.ids_at(draw.places)

    def _finished(self, draw: Draw, ids: np.ndarray) -> TensorDictBase:
        """Read what was drawn."""
        sample = self.storage.read(draw.places)
        shape = sample.batch_size
        facts = {"index": self._sent(draw.places), "id": self._sent(ids)}
        for name, fact in draw.facts.items():
            value = self._sent(fact)
            facts[name] = value if value.shape == shape else value.unsqueeze(-1).expand(shape)
        put(sample, FACTS, new_tensordict(facts, shape))
        if draw.mask is not None:
            sample.set(MASK, self._sent(draw.mask))
        return sample if self.transform is None else apply_function("ReplayBuffer, transform", self.transform, sample)

    def _sent(self, column: np.ndarray) -> Tensor:
        """Return a column as a tensor, where the items lie."""
        value = torch.from_numpy(column)
        return value if self.storage.device.type == "cpu" else value.to(self.storage.device)

    def _submit(self, num: int) -> None:
        with self.storage.locked():
            self._read_ahead(num, *self._drawn(num))

    def _read_ahead(self, num: int, draw: Draw, ids: np.ndarray) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "replay")
        self._pending.append(_Ahead(num, draw, ids, self._thread.submit(self._read_later, num, draw, ids)))

    def _read_later(self, num: int, draw: Draw, ids: np.ndarray) -> TensorDictBase:
        """Read what was drawn before, or something else where it has been overwritten meanwhile."""
        with self.storage.locked():
            if not np.array_equal(self.storage.ledger.ids_at(draw.places), ids):
                draw, ids = self._drawn(num)
            return self._finished(draw, ids)

    def _forget_pending(self) -> None:
        while self._pending:
            self._pending.popleft().sample.cancel()

    def _update_sampler(self, places: np.ndarray | None = None) -> None:
        """Tell the sampler what any process has written since the last call."""
        ledger = self.storage.ledger
        written, claimed = ledger.written, ledger.claimed
        if places is not None and self._seen_written == written - len(places) and claimed == written:
            self.sampler.on_write(places, ledger)
        elif self._seen_written < written or self._seen_claimed < claimed:
            oldest = max(self._seen_claimed, claimed - ledger.capacity)
            if claimed > written:  # a writer died: what it began to overwrite is gone
                self.sampler.on_drop(ledger.place_of(np.arange(max(oldest, written), claimed)))
            self.sampler.on_write(ledger.place_of(np.arange(max(self._seen_written, ledger.oldest), written)), ledger)
        self._seen_written, self._seen_claimed = written, claimed

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Yield samples: one whole round of a :class:`SamplerWithoutReplacement`, for ever otherwise."""
        sampler = self.sampler if isinstance(self.sampler, SamplerWithoutReplacement) else None
        if sampler is not None:
            with self.storage.locked():
                self._forget_pending()
                sampler.clear()
                this_round = sampler.num_rounds + 1
        yield self.sample()
        while sampler is None or self._has_more(this_round):
            yield self.sample()

    def _has_more(self, this_round: int) -> bool:
        with self.storage.locked():
            if self._pending:
                return self._pending[0].draw.round == this_round
            return self.sampler.has_more(self.batch_size, self.storage.ledger)

    # ---- everything else ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many items there are."""
        with self.storage.locked():
            self.storage.refresh()
            return len(self.storage.ledger)

    def __getitem__(self, index: Any) -> TensorDict:
        """Return items by their places, counted as in ``("replay", "index")``: an int, a slice, a list or a tensor.

        Raises:
            IndexError: there is no such item.
        """
        with self.storage.locked():
            self.storage.refresh()
            num = len(self.storage.ledger)
            if not num:
                raise IndexError("the buffer is empty")
            places = np.arange(num)[index.cpu().numpy() if isinstance(index, Tensor) else index]
            return self.storage.read(np.asarray(places))

    def update_priority(self, which: TensorDictBase | Tensor, priority: Tensor | float | None = None) -> None:
        """Set the priorities of items; those that have been overwritten since they were sampled are left alone.

        Args:
            which: a sample, which knows its items; or places, int64 ``[n]``, whose present items are meant.
            priority: ``[n]`` or ``[n, 1]``, or one number for all; for prioritised slices one for each slice, ``[N]``.
                None takes the sample's entry ``"priority"``.

        Raises:
            SpecError: negative, or not one for each item. NonFiniteError: NaN or infinite. KeyMissing: no priority.
            ConfigError: the sampler has none.
        """
        places, ids = _places_of(which)
        if priority is None:
            priority = which.get("priority", None) if isinstance(which, TensorDictBase) else None
            if priority is None:
                expected = 'priorities, as an argument or under the key "priority"'
                raise KeyMissing(explain("update_priority", expected=expected, got="none"))
        if isinstance(priority, (int, float)):
            priority = np.full(len(places), float(priority))
        values = checked_priority(priority, len(places))
        with self.storage.locked():
            self._update_sampler()
            ledger = self.storage.ledger
            if len(places) and (places.min() < 0 or places.max() >= self.storage.capacity):
                expected = f"places from 0 to {self.storage.capacity - 1}"
                raise SpecError(explain("update_priority", expected=expected, got=f"{places.min()} to {places.max()}"))
            present = ledger.ids_at(places)
            is_there = (present >= 0) if ids is None else (present == ids)
            places, values = places[is_there], values[is_there]
            self.sampler.update_priority(places, values)
            if self.writer.asks_priority and len(places):
                self.writer.on_priority(places, values)

    def empty(self) -> None:
        """Throw away every item; the memory stays."""
        with self.storage.locked():
            self._forget_pending()
            self.storage.clear()
            self.sampler.clear()
            self.writer.clear()
            self._lanes.clear()
            self._seen_written = self._seen_claimed = self.storage.ledger.written

    def state_dict(self) -> dict:
        """Capture everything, as tensors and numbers, so that the same samples follow.

        (With ``prefetch``, unless one that was made ahead is overwritten before it is read, and drawn anew.)
        """
        with self.storage.locked():
            return deepcopy(self._state())

    def _state(self) -> dict:
        """Return what :meth:`state_dict` does, with the storage's own memory. The caller holds the lock."""
        self.storage.refresh()
        self._update_sampler()
        entries = self.storage.entries
        ledger = self.storage.ledger
        return {
            "capacity": self.storage.capacity,
            **self._kinds(),
            "entries": None
            if entries is None
            else [[list(e.key), list(e.shape), str(e.dtype).removeprefix("torch.")] for e in entries],
            "items": {} if entries is None else self.storage.state(ledger.num_used),
            "ledger": {name: torch.from_numpy(column) for name, column in ledger.state().items()},
            "sampler": self.sampler.state_dict(),
            "writer": self.writer.state_dict(),
            "lanes": [_tensors(rows, torch.from_numpy) for rows in self._lanes.state()],
            "ahead": [ahead.state() for ahead in self._pending],
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            CheckpointError: it is of a buffer with another capacity, or of other parts.
        """
        with self.storage.locked():
            self._forget_pending()
            self._require_fit(state)
            if state["entries"] is not None:
                example = {tuple(key): (shape, getattr(torch, name)) for key, shape, name in state["entries"]}
                empty = {key: torch.empty((0, *shape), dtype=dtype) for key, (shape, dtype) in example.items()}
                self.storage.prepare(empty, batch_dims=1)
                self.storage.load(state["items"])
            self.storage.ledger.load({name: column.numpy() for name, column in state["ledger"].items()})
            self.sampler.clear()
            self.sampler.on_write(self.storage.ledger.live_places, self.storage.ledger)
            self.sampler.load_state_dict(state["sampler"])
            self.writer.load_state_dict(state["writer"])
            self._generator.bit_generator.state = state["generator"]
            self._lanes.load([_tensors(rows, Tensor.numpy) for rows in state["lanes"]])
            self._seen_written, self._seen_claimed = self.storage.ledger.written, self.storage.ledger.claimed
            for ahead in state["ahead"] if self.prefetch else ():
                self._read_ahead(ahead["num"], Draw.of(ahead), ahead["ids"].numpy())

    def _require_fit(self, state: dict) -> None:
        own = {"capacity": self.storage.capacity} | self._kinds()
        other = {name: state[name] for name in own}
        if own != other:
            raise CheckpointError(explain("ReplayBuffer.load", expected=f"a save of {own}", got=f"one of {other}"))

    def _kinds(self) -> dict[str, str]:
        """Say what the state depends on: how items are laid out, and which parts have states of their own."""
        return {
            "layout": self.storage.layout,
            "sampler_class": type(self.sampler).__name__,
            "writer_class": type(self.writer).__name__,
        }

    def save(self, folder: str) -> None:
        """Write everything to a folder; what was saved there before stays until the new save is whole.

        Nobody can add or sample meanwhile. Nothing is copied in memory before, but for a :class:`ListStorage` and what
        lies on other devices.

        Raises:
            CheckpointError: the folder cannot be written to, or the disk is full; the last save is as it was.
        """
        with self.storage.locked():
            save_to(folder, self._state())

    def load(self, folder: str) -> None:
        """Restore what :meth:`save` wrote.

        Raises:
            CheckpointError: there is no whole save, or it does not fit.
        """
        self.load_state_dict(load_from(folder))

    def close(self) -> None:
        """End the thread that makes samples ahead, and let go of files; may be called twice."""
        self._forget_pending()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self.storage.close()

    def __deepcopy__(self, memo: dict) -> ReplayBuffer:
        """Return a buffer of its own with the same items, from which the same samples follow.

        Raises:
            StorageError: the items lie in files, which another buffer would write to as well.
        """
        with self.storage.locked():
            parts = {name: deepcopy(getattr(self, name), memo) for name in ("sampler", "writer", "transform")}
            numbers = {"batch_size": self.batch_size, "prefetch": self.prefetch, "seed": self._seed}
            twin = type(self)(self.storage.make_empty_copy(), **parts, **numbers)
            twin.load_state_dict(self.state_dict())
        memo[id(self)] = twin
        return twin

    def __getstate__(self) -> dict:
        if not isinstance(self.storage, MemmapStorage):
            hint = "MemmapStorage(capacity, folder) is shared; a folder in /dev/shm keeps it in memory."
            expected = "a buffer whose memory can be shared, to send it to another process"
            raise ConfigError(explain("ReplayBuffer", expected=expected, got=type(self.storage).__name__, hint=hint))
        names = ("storage", "sampler", "writer", "batch_size", "prefetch", "transform")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state.pop("storage"), **state)

    def __repr__(self) -> str:
        parts = f"{type(self.storage).__name__}({self.storage.capacity}), {type(self.sampler).__name__}"
        return f"ReplayBuffer({parts}, {type(self.writer).__name__}, len={len(self)})"


class _Ahead(NamedTuple):
    """A sample that a thread makes while the caller works: the number of items, the draw, and the future sample."""

    num: int
    draw: Draw
    ids: np.ndarray
    sample: Future

    def state(self) -> dict:
        """Return what was drawn, as tensors and numbers."""
        return {"num": self.num, "ids": torch.from_numpy(self.ids), **self.draw.state()}


def _tensors(columns: dict, convert: Callable) -> dict:
    return {name: None if column is None else convert(column) for name, column in columns.items()}


def _require_parts(storage: object, sampler: object, writer: object) -> None:
    for part, kind in ((storage, Storage), (sampler, Sampler), (writer, Writer)):
        if not isinstance(part, kind):
            hint = "Make one: TensorStorage(capacity), UniformSampler(), RingWriter()."
            raise ConfigError(explain("ReplayBuffer", expected=f"a {kind.__name__}", got=repr(part), hint=hint))
    if writer.keeps_order:
        return
    for part in (sampler, storage):
        if part.needs_order:
            expected = f"a RingWriter with a {type(part).__name__}"
            raise ConfigError(explain("ReplayBuffer", expected=expected, got=type(writer).__name__))


def _checked_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(explain("ReplayBuffer", expected=f"a {name} of at least 1", got=repr(value)))
    return int(value)


def _places_of(which: TensorDictBase | Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the places meant, and the numbers of their items where they are known."""
    if not isinstance(which, TensorDictBase):
        return torch.as_tensor(which).reshape(-1).cpu().numpy().astype(np.int64), None
    facts = which.get(FACTS, None)
    if facts is None:
        raise KeyMissing(explain("update_priority", expected='a sample, with the key "replay"', got="none"))
    index, ids = facts.get("index").cpu().numpy(), facts.get("id").cpu().numpy()
    last = facts.get("last", None)
    if last is None:
        return index.reshape(-1), ids.reshape(-1)
    places = last[..., 0].cpu().numpy()
    return places, np.take_along_axis(ids, (index == places[:, None]).argmax(1)[:, None], 1)[:, 0]


def _last_of_each(places: np.ndarray) -> np.ndarray:
    """Return which items were let in and keep their place: of several for one place only the last does."""
    order = np.arange(len(places))
    last: dict[int, int] = dict(zip(places.tolist(), order.tolist(), strict=True))
    last.pop(REFUSED, None)
    return np.array(sorted(last.values()), dtype=np.int64)
