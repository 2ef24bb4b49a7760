"""Where the networks with memory of a value loss start in a sequence: at its first step, or behind a burn-in.

A replayed sequence begins in mid-episode, with a state that older weights left there, or with none. Its first steps may
serve to warm the states up: every network goes through them by itself, and they are no rows of the loss::

    steps of a sequence    0 1 2 | 3 4 5 6 7      burn_in=3
                           warmth  rows, whose sequence starts from the states behind step 2

Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement Learning" (2019), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key, key_name
from torchrl.modules import Memory, Sequence
from torchrl.objectives.keys import MASK, read
from torchrl.objectives.unrolling import STARTS, Networks, first_valid, step_follows
from torchrl.shapes import expand_right


def require_memory(networks: Networks, **options: int | bool) -> None:
    """Refuse options of sequences for networks without memory, which would ignore them, and a count out of its range.

    Args:
        networks: of the loss.
        **options: ``burn_in``, ``zero_state`` and ``n_steps`` as they were given.

    Raises:
        ConfigError: naming the option.
    """
    least = {"burn_in": 0, "n_steps": 1}
    for name, value in options.items():
        if name in least and (isinstance(value, bool) or not isinstance(value, int) or value < least[name]):
            expected = f"{name}, a whole number of at least {least[name]}"
            raise ConfigError(explain(networks.who, expected=expected, got=repr(value)))
        if value != least.get(name, False) and not networks.state_keys:
            hint = "Put an LSTM or a GRU before the head, Sequence(LSTM(...), actor)"
            hint += ", or sum rewards by MultiStepStream." if name == "n_steps" else ", or leave it out."
            raise ConfigError(explain(networks.who, expected=f"networks with memory for {name}", got="none", hint=hint))


def warm_up(networks: Networks, batch: TensorDictBase, *, burn_in: int = 0, zero_state: bool = False) -> TensorDictBase:
    """Return sequences without their first steps, and with the states behind these for every network.

    Each network goes through the first steps by its own weights, without gradient; states are reset where an episode
    begins and behind masked steps. Nothing is written into the batch.

    Args:
        networks: some of them with memory.
        batch: ``[*B, T]``, time last.
        burn_in: b, the number of first steps.
        zero_state: begin every sequence from the initial state instead of the one that the batch holds.

    Returns:
        ``[*B, T - b]``, with the states under ``STARTS``.

    Raises:
        SpecError: a sequence is not longer than the burn-in, or its steps are out of order.
        KeyMissing: the batch holds no states.
    """
    networks.require_sequences(batch)
    num_steps, time_dim = batch.batch_size[-1], batch.batch_dims - 1
    if burn_in >= num_steps:
        hint = f"Draw longer slices, such as SliceSampler({burn_in + 20}), or take a smaller burn_in."
        expected = f"sequences longer than the burn-in of {burn_in} steps"
        raise SpecError(explain(networks.who, expected=expected, got=f"{num_steps} steps", hint=hint))
    if not zero_state:
        _require_states(networks, batch)
        if not burn_in:
            return batch
    is_init = read(batch, "is_init", who=networks.who).clone()
    if zero_state:
        is_init[..., 0, :] = True
    mask = batch.get(MASK, None)
    if mask is not None:  # a state from before a masked step is not the one of the step behind it
        num_before = mask.cumsum(-1) - mask.long()
        is_init[..., 1:, :] |= (~mask[..., :-1] & (num_before[..., 1:] > 0)).unsqueeze(-1)
        if zero_state:
            is_init |= (mask & (num_before == 0)).unsqueeze(-1)
    step_follows(networks.who, batch)  # refuses steps out of order in the burn-in, too
    kept = batch[..., burn_in:] if burn_in else batch.copy()
    kept.set("is_init", is_init[..., burn_in:, :])
    starts, known = TensorDict(batch_size=kept.batch_size), {}
    for name, before in networks.remembering().items():
        run = tuple(id(module) for module in before)
        if run not in known:
            memories = [part for module in before for part in module.modules() if isinstance(part, Memory)]
            states = _first_states(memories, batch, mask, zero_state)
            if burn_in:
                inputs = _inputs(before, batch, is_init, burn_in, networks.who)
                states = _run(before, memories, inputs, states, None if mask is None else mask[..., :burn_in])
            known[run] = states
        states = {key: _over_time(value, time_dim, kept.batch_size) for key, value in known[run].items()}
        starts.set(name, TensorDict(states, batch_size=kept.batch_size))
    kept.set(STARTS, starts)
    return kept


@torch.no_grad()
def _run(
    before: tuple[nn.Module, ...],
    memories: list[Memory],
    inputs: TensorDict,
    states: dict[Key, Tensor],
    mask: Tensor | None,
) -> dict[Key, Tensor]:
    """Step modules through all inputs, ``[*B, b]``, and return the states behind the last step, ``[*B, *S]`` each."""
    for step, root in enumerate(inputs.unbind(inputs.batch_dims - 1)):
        begins = root.get("is_init").squeeze(-1)
        for memory in memories:
            state = states[memory.state_key]
            flat = memory.restart(state.flatten(0, begins.ndim - 1), begins.flatten())
            root.set(memory.state_key, flat.reshape(state.shape))
        for module in before:
            module(root)
        for key, state in states.items():
            following = root.get(("next", key) if isinstance(key, str) else ("next", *key))
            if mask is not None:
                following = torch.where(expand_right(mask[..., step], following), following, state)
            states = states | {key: following}
    return states


def _inputs(
    before: tuple[nn.Module, ...], batch: TensorDictBase, is_init: Tensor, burn_in: int, who: str
) -> TensorDict:
    """Gather what modules read of the first steps beside their states, ``[*B, b]``."""
    size = (*batch.batch_size[:-1], burn_in)
    inputs = TensorDict({"is_init": is_init[..., :burn_in, :]}, batch_size=size)
    states = {part.state_key for module in before for part in module.modules() if isinstance(part, Memory)}
    for key in Sequence(*before).in_keys:
        if key != "is_init" and key not in states:
            inputs.set(key, read(batch, key, who=who).narrow(batch.batch_dims - 1, 0, burn_in))
    return inputs


def _first_states(
    memories: list[Memory], batch: TensorDictBase, mask: Tensor | None, zero_state: bool
) -> dict[Key, Tensor]:
    """Return the states at rows' first valid steps, ``[*B, *S]``: stored ones, zero without a step, or initial ones."""
    size, time_dim = batch.batch_size[:-1], batch.batch_dims - 1
    if zero_state:  # where the first step begins an episode, a learned initial state takes the place of this one
        initial = [(memory.state_key, memory.own_state()[memory.state_key].detach()) for memory in memories]
        return {key: value.expand(*size, *value.shape) for key, value in initial}
    states = {memory.state_key: batch.get(memory.state_key).detach() for memory in memories}
    if mask is None:
        return {key: value.select(time_dim, 0) for key, value in states.items()}
    return {key: first_valid(value, mask) for key, value in states.items()}


def _over_time(state: Tensor, time_dim: int, size: Iterable[int]) -> Tensor:
    """Expand a state over time, which takes no memory: ``[*B, *S]`` to ``[*B, T, *S]``."""
    return state.unsqueeze(time_dim).expand(*size, *state.shape[time_dim:])


def _require_states(networks: Networks, batch: TensorDictBase) -> None:
    """Refuse a batch without the states of networks with memory, and name both ways out."""
    missing = [key for key in networks.state_keys if batch.get(key, None) is None]
    if missing:
        hint = "Store the states with the steps, or write zero_state=True to begin every sequence from the initial one."
        expected = f"the state {key_name(missing[0])!r} of a network with memory"
        there = sorted(map(str, batch.keys(include_nested=True, leaves_only=True)))
        raise KeyMissing(explain(networks.who, expected=expected, got=", ".join(there), hint=hint))
