"""Networks with memory in estimators and losses: the part that remembers runs over sequences, the rest row by row.

What a network remembers depends on the steps before, so it cannot see rows alone. It is split behind its last module
with memory: the first part runs once over whole sequences ``[*B, T]``, and what it computes is then an entry of each
row, as an observation is. Everything behind it, losses and distributions alike, knows nothing of sequences.

The successor of a row is the next step of the same sequence, except at an ending, at the edge and before a masked step,
where the batch holds it under ``"next"`` alone. There it is laid out as a step of its own: one pass gives both. A row
starts from the state stored at its first valid step; behind a masked one in its middle it starts anew::

    steps of a row       a0 a1 a2 | b0 b1         a2 ends an episode, b1 is the edge
    what is run          a0 a1 a2 a3 | b0 b1 b2   a3 and b2 are the observations under "next"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import unravel_key
from torch import Tensor, nn

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.endings import next_step_follows
from torchrl.keys import Key, key_name
from torchrl.modules import Memory, Sequence
from torchrl.modules.memory import has_memory
from torchrl.objectives.keys import MASK, TRAJ_IDS, decision_keys, read
from torchrl.shapes import expand_right
from torchrl.unchecked import shallow

SEEN = "seen"  # where rows hold what networks remember, by the name of the network
STARTS = "starts"  # where a batch holds the states that networks start from, by the name of the network, if it does
FACTOR = ("next", "gamma")
TERMINATED, TRUNCATED = ("next", "terminated"), ("next", "truncated")


class Layout(NamedTuple):
    """Where the steps of a batch stand in the sequences that are run.

    Attributes:
        source: of each place, the step that stands there, as an index of the ``N · T`` steps (N rows) followed by
            the k successors, ``[*B, L]``; places beyond a row's last hold any valid step.
        begins: where an episode begins, bool ``[*B, L, 1]``.
        place: of each valid step, its place as an index of ``N · L``, ``[n]``; its successor stands behind it.
        edges: the steps whose successors are laid out, as an index of ``N · T``, ``[k]``.
    """

    source: Tensor
    begins: Tensor
    place: Tensor
    edges: Tensor


def lay_out(is_init: Tensor, mask: Tensor | None, follows: Tensor | None) -> Layout:
    """Lay out the valid steps of a batch one behind the other, with the successors that are no steps of the batch.

    Args:
        is_init: bool ``[*B, T]``.
        mask: valid steps, bool ``[*B, T]``; None for all.
        follows: at which steps the next one is the successor, bool ``[*B, T]``; None lays out no successors.
    """
    valid = torch.ones_like(is_init) if mask is None else mask
    has_edge = torch.zeros_like(valid) if follows is None else valid & ~follows
    length = valid.long() + has_edge
    end = length.cumsum(-1)
    start = (end - length).flatten(0, -2) if end.ndim > 1 else (end - length).unsqueeze(0)
    num_rows, num_steps = start.shape
    num_places = max(int(end[..., -1].max()), 1)
    row = torch.arange(num_rows, device=start.device).unsqueeze(1) * num_places
    steps = valid.reshape(-1).nonzero().squeeze(-1)
    edges = has_edge.reshape(-1).nonzero().squeeze(-1)
    place = (start + row).reshape(-1)
    filler = torch.cat([steps, steps.new_zeros(1)])[:1]  # where no step is valid, the first
    source = filler.expand(num_rows * num_places).clone()
    source[place[steps]] = steps
    source[place[edges] + 1] = num_rows * num_steps + torch.arange(len(edges), device=edges.device)
    gap = torch.zeros_like(valid)
    # a state from before a masked step is not the one of the step behind it; a row's first valid step has a stored one
    gap[..., 1:] = ~valid[..., :-1] & (valid.cumsum(-1)[..., :-1] > 0)
    begins = torch.zeros(num_rows * num_places, dtype=torch.bool, device=start.device)
    begins[place[steps]] = (is_init | gap).reshape(-1)[steps]
    size = (*is_init.shape[:-1], num_places)
    return Layout(source.view(size), begins.view(*size, 1), place[steps], edges)


class Networks:
    """The networks of a loss or an estimator by name, each split into the part that remembers and its head.

    A network without memory is all head, and its rows are the batch's.

    Args:
        who: the loss, for errors.
        **networks: a network with memory is a :class:`~torchrl.modules.Sequence` whose last module has none.

    Attributes:
        state_keys: the keys of all states; empty where no network has memory.

    Raises:
        ConfigError: another network with memory, or one whose memory reads the action that it is asked about; or two
            memories that keep their states under one key.
    """

    def __init__(self, who: str, **networks: nn.Module | None) -> None:
        self.who = who
        self._actions = {"action", *(getattr(network, "action_key", "action") for network in networks.values())}
        self._parts: dict[str, tuple[tuple[nn.Module, ...], nn.Module]] = {}
        self._reads: dict[str, list[Key]] = {}  # of the parts that remember
        self._memories: list[Memory] = []
        self.state_keys: list[Key] = []
        for name, network in networks.items():
            if network is not None:
                self.add(name, network)
        self._require_own_states()

    def add(self, name: str, network: nn.Module) -> None:
        """Add a network, such as a target network, which is made after the others."""
        before, _ = self._parts[name] = split_memory(self.who, network, self._actions)
        self._reads[name] = Sequence(*before).in_keys if before else []
        self._memories = [part for before, _ in self._parts.values() for x in before for part in x.modules()]
        self._memories = [part for part in self._memories if isinstance(part, Memory)]
        self.state_keys = list(dict.fromkeys(memory.state_key for memory in self._memories))

    def _require_own_states(self) -> None:
        """Refuse two memories under one key, or one that sees other features: it would start from another's state."""
        owners: dict[Key, list[int]] = {}
        for before, _ in self._parts.values():
            for key, chain in _chains(before):
                if owners.setdefault(key, chain) != chain:
                    hint = "Give one of them another key, state_key='critic_memory', and collect by ActorCriticWrapper."
                    got = f"two memories, or one behind different modules, that read {key_name(key)!r}"
                    raise ConfigError(explain(self.who, expected="a state for each memory", got=got, hint=hint))

    def head(self, name: str) -> nn.Module:
        """Return a network's head, the part that sees rows."""
        return self._parts[name][1]

    def value_key(self, name: str) -> Key:
        """Return where a critic's head writes the value: under its first out key."""
        return self.head(name).out_keys[0]

    def share_memory(self, one: str, other: str) -> bool:
        """Answer whether two networks have the same part that remembers, or none."""
        before, there = self._parts[one][0], self._parts[other][0]
        return len(before) == len(there) and all(a is b for a, b in zip(before, there, strict=True))

    def batch_keys(self, name: str) -> list[Key]:
        """List what a network's head reads that the part before it does not write."""
        before, head = self._parts[name]
        return [key for key in (*head.in_keys, *decision_keys(head)) if key not in _written(before)]

    def next_keys(self, name: str) -> list[Key]:
        """List what a network reads of a successor: all but its states and ``is_init``."""
        before, head = self._parts[name]
        keys = Sequence(*before, head).in_keys if before else head.in_keys
        return [key for key in keys if not before or key not in (*self.state_keys, "is_init")]

    def remembering(self) -> dict[str, tuple[nn.Module, ...]]:
        """Return the part of each network that remembers, by name, without the networks that have no memory."""
        return {name: before for name, (before, _) in self._parts.items() if before}

    def unroll(self, batch: TensorDictBase, *, successors: Iterable[str] = ()) -> TensorDict:
        """Run the parts that remember, each once, and return by name what the heads read of them.

        Args:
            batch: ``[*B, T]``; the states under ``STARTS``, if there are some, take the place of those it holds.
            successors: the names of the networks that look at successors; theirs are under ``"next"``.

        Returns:
            ``[*B, T]``, or ``[n]`` where a mask leaves n valid steps.

        Raises:
            SpecError: the batch is no ``[*B, T]``, or its steps are out of order.
            KeyMissing: it lacks an entry.
        """
        self.require_sequences(batch)
        successors = set(successors)
        is_init, mask = read(batch, "is_init", who=self.who).squeeze(-1), batch.get(MASK, None)
        is_ordered = batch.get(TRAJ_IDS, None) is not None or batch.get("episode_length", None) is not None
        is_checked = is_ordered and batch.get(TERMINATED, None) is not None
        follows = step_follows(self.who, batch) if successors or is_checked else None
        layout = None
        if successors or mask is not None:
            layout = lay_out(is_init, mask, follows.squeeze(-1) if successors else None)
        size = batch.batch_size if mask is None else layout.place.shape
        seen, known = TensorDict(batch_size=size), {}
        for name, (before, head) in self._parts.items():
            if not before:
                continue
            run = tuple(id(module) for module in before)
            if run not in known:
                trained = any(parameter.requires_grad for module in before for parameter in module.parameters())
                with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
                    known[run] = self._run(name, batch, layout, size)
            keys = [key for key in head.in_keys if key in _written(before)]
            here, after = known[run]
            entries = {key: here[key] for key in keys}
            if name in successors:
                entries["next"] = {key: after[key].detach() for key in keys}
            seen.set(name, TensorDict(entries, batch_size=size))
        return seen

    def here(self, rows: TensorDict, name: str, *, frozen: bool = False) -> TensorDict:
        """Return what a network's head reads of each row; the rows themselves where the network has no memory.

        Args:
            rows: the valid rows.
            name: of the network.
            frozen: let no gradient pass to the part that remembers.
        """
        return _merge(rows, rows, name, frozen=frozen) if self._parts[name][0] else rows

    def after(self, rows: TensorDict, name: str) -> TensorDict:
        """Return what a network's head reads of each row's successor."""
        after = rows.get("next")
        return _merge(after, rows, name, "next") if self._parts[name][0] else after

    def require_sequences(self, batch: TensorDictBase) -> None:
        """Refuse a batch that is no ``[*B, T]``, or that holds sums of several rewards.

        Raises:
            SpecError: saying what to write.
        """
        due = {memory.batch_dims + 1 for memory in self._memories}
        if len(due) > 1 or batch.batch_dims not in (max(due), min(2, max(due))):  # rows may be counted one by one
            got = f"batch size {list(batch.batch_size)}"
            expected = f"sequences with time last, {max(due)} batch dimensions, for a network with memory"
            hint = "Single rows have lost what came before them: take SliceSampler for a buffer, sequence_len=... for "
            hint += "MinibatchEpochs, and batch.unsqueeze(0) for one row."
            raise SpecError(explain(self.who, expected=expected, got=got, hint=hint))
        if batch.get(FACTOR, None) is not None:
            hint = "Leave MultiStep out: what lies between a step and its n-step successor would not be remembered. "
            hint += "DQNLoss(..., n_steps=5) sums rewards inside the sequence."
            raise SpecError(explain(self.who, expected="successors one step ahead", got=f"{FACTOR!r}", hint=hint))

    def _run(
        self, name: str, batch: TensorDictBase, layout: Layout | None, size: torch.Size
    ) -> tuple[dict[Key, Tensor], dict[Key, Tensor]]:
        """Run what a network remembers over sequences; return what it writes of each row and of its successor."""
        before = self._parts[name][0]
        sequences = self._sequences(self._reads[name], batch, batch.get((STARTS, name), batch), layout)
        num_more = self._memories[0].batch_dims + 1 - sequences.batch_dims
        for _ in range(num_more):
            sequences = sequences.unsqueeze(0)
        for module in before:
            module(sequences)
        keys = [key for key in _written(before) if key[0] != "next"]
        outputs = {key: sequences.get(key).flatten(0, num_more) if num_more else sequences.get(key) for key in keys}
        if layout is None:
            return outputs, {}
        last = layout.source.ndim - 1
        flat = {key: value.flatten(0, last) for key, value in outputs.items()}
        shape = {key: (*size, *value.shape[1:]) for key, value in flat.items()}
        here = {key: value[layout.place].view(shape[key]) for key, value in flat.items()}
        behind = (layout.place + 1).clamp(max=layout.source.numel() - 1)
        return here, {key: value[behind].view(shape[key]) for key, value in flat.items()}

    def _sequences(
        self, reads: Iterable[Key], batch: TensorDictBase, starts: TensorDictBase, layout: Layout | None
    ) -> TensorDict:
        """Gather the entries ``reads`` into a container of its own: ``[*B, T]``, or ``[*B, L]`` as laid out."""
        time_dim = batch.batch_dims - 1
        states = self.state_keys
        size = batch.batch_size if layout is None else layout.source.shape
        sequences = TensorDict(batch_size=size)
        for key in reads:
            value = read(starts if key in states else batch, key, who=self.who).detach()
            if key in states:
                value = _first(value, time_dim, batch.get(MASK, None)).expand(*size, *value.shape[time_dim + 1 :])
            elif layout is not None and key == "is_init":
                value = layout.begins
            elif layout is not None:
                value = value.flatten(0, time_dim)
                if len(layout.edges):
                    after = read(batch, unravel_key(("next", key)), who=self.who).detach().flatten(0, time_dim)
                    value = torch.cat([value, after[layout.edges]])
                value = value[layout.source]
            sequences.set(key, value)
        return sequences


def split_memory(
    who: str, network: nn.Module, actions: Iterable[Key] = ("action",)
) -> tuple[tuple[nn.Module, ...], nn.Module]:
    """Return the modules of a network up to its last one with memory, and its head; none and all where it has none.

    Args:
        who: who asks.
        network: with memory or without.
        actions: the keys of actions that networks are asked about, which no memory may read.

    Raises:
        ConfigError: the network has memory and is no sequence that ends with a module without.
    """
    if not has_memory(network):
        return (), network
    parts = list(network) if isinstance(network, Sequence) else []
    last = max((index for index, part in enumerate(parts) if has_memory(part)), default=-1)
    if not 0 <= last < len(parts) - 1:
        hint = "Write Sequence(LSTM(...), head) with a head that reads what the memory writes: in_keys=['hidden']."
        got = type(network).__name__ if last < 0 else f"a Sequence that ends with {type(parts[-1]).__name__}"
        expected = "a network with memory as a Sequence whose last module has none"
        raise ConfigError(explain(who, expected=expected, got=got, hint=hint))
    rest = parts[last + 1 :]
    before = tuple(parts[: last + 1])
    asked = [key for key in Sequence(*before).in_keys if key in actions]
    if asked:
        hint = "Give it the last action: an observation of the environment."
        got = f"one that reads {key_name(asked[0])!r}"
        raise ConfigError(explain(who, expected="memory of what was seen", got=got, hint=hint))
    if len(rest) == 1:
        return before, rest[0]
    written = [key for module in rest for key in module.out_keys]
    return before, Sequence(*rest, out_keys=[key for key in network.out_keys if key in written])


def step_follows(who: str, batch: TensorDictBase) -> Tensor:
    """Return at which steps of sequences the next one is the successor, bool ``[*B, T, 1]``.

    Raises:
        SpecError: the steps are out of order.
        KeyMissing: the batch lacks a flag.
    """
    terminated, truncated = (read(batch, key, who=who) for key in (TERMINATED, TRUNCATED))
    mask = batch.get(MASK, None)
    mask = None if mask is None else mask.unsqueeze(-1)
    follows = next_step_follows(terminated, truncated, is_init=batch.get("is_init", None), mask=mask)
    if not torch.compiler.is_compiling():
        require_order(who, batch, follows)
    return follows


def require_order(who: str, batch: TensorDictBase, follows: Tensor) -> None:
    """Refuse a batch in which step t+1 should follow step t but belongs to another trajectory.

    Such a batch was flattened, shuffled or transposed, and what is computed of it would be silently wrong.

    Args:
        who: who asks.
        batch: ``[*B, T]``.
        follows: at which steps the next one is the successor, bool ``[*B, T, 1]``.

    Raises:
        SpecError: there are such steps.
    """
    ids, length = batch.get(TRAJ_IDS, None), batch.get("episode_length", None)
    strange = None if ids is None else ids[..., 1:] != ids[..., :-1]
    back = None
    if length is not None and length.shape == follows.shape:
        steps = length.squeeze(-1)
        back = steps[..., 1:] <= steps[..., :-1]
    wrong = [steps for steps in (strange, back) if steps is not None]
    if not wrong:
        return
    goes_on = follows[..., :-1, 0]
    if not bool(((wrong[0] if len(wrong) == 1 else wrong[0] | wrong[1]) & goes_on).any()):  # one look, however many
        return
    is_strange = strange is not None and bool((strange & goes_on).any())
    got = "a row of another trajectory after one" if is_strange else "an earlier step of the episode after one"
    hint = "Take the batch as it was collected, before any reshape, shuffle or transpose."
    raise SpecError(explain(who, expected="a batch [*B, T] whose rows follow each other in time", got=got, hint=hint))


def _first(state: Tensor, time_dim: int, mask: Tensor | None) -> Tensor:
    """Return the state at each row's first valid step, with a time dimension of 1; zero where it has none."""
    return state.narrow(time_dim, 0, 1) if mask is None else first_valid(state, mask).unsqueeze(time_dim)


def first_valid(x: Tensor, mask: Tensor) -> Tensor:
    """Return what ``x``, ``[*B, T, ...]``, has at each row's first valid step, ``[*B, ...]``; zero where it has none.

    Args:
        x: entries of the steps.
        mask: valid steps, bool ``[*B, T]``.
    """
    size, steps = mask.shape[:-1], mask.int().argmax(-1).flatten()
    rows = torch.arange(len(steps), device=steps.device)
    first = x.reshape(len(steps), *x.shape[len(size) :])[rows, steps]
    return torch.where(expand_right(mask.any(-1).flatten(), first), first, 0).view(*size, *first.shape[1:])


def _chains(before: Iterable[nn.Module]) -> Iterator[tuple[Key, list[int]]]:
    """Yield the state key of each memory, and the ids of the memory and of the modules whose features it sees."""
    modules, pending = [], list(before)
    while pending:
        module = pending.pop(0)
        if isinstance(module, Sequence):
            pending = [*module, *pending]
            continue
        modules.append(module)
        if isinstance(module, Memory):
            chain, reads = [id(module)], set(module.input_keys)
            for other in reversed(modules[:-1]):
                if reads.intersection(other.out_keys):
                    chain.append(id(other))
                    reads.update(other.in_keys)
            yield module.state_key, chain


def _written(before: tuple[nn.Module, ...]) -> list[Key]:
    return list(dict.fromkeys(key for module in before for key in module.out_keys))


def _merge(rows: TensorDict, holder: TensorDict, *path: str, frozen: bool = False) -> TensorDict:
    merged = shallow(rows)
    for key, value in holder.get((SEEN, *path)).items():
        if key != "next":
            merged.set(key, value.detach() if frozen else value)
    return merged
