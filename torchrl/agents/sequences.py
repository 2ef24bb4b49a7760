"""The rows of a batch that an optimise step shuffles: single valid steps, or whole sequences. Takes no step itself."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.errors import SpecError, explain
from torchrl.keys import Key
from torchrl.objectives.keys import MASK, read
from torchrl.objectives.unrolling import step_follows

WHO = "MinibatchEpochs"


def valid_rows(batch: TensorDictBase, keys: Iterable[Key]) -> TensorDict:
    """Select ``keys`` from a batch ``[*B, T]`` and return its N valid rows, ``[N]``.

    Raises:
        KeyMissing: naming a key the batch lacks, and what would have written it.
    """
    values = {key: read(batch, key, who=WHO) for key in keys if key != MASK}
    last = len(batch.batch_size) - 1
    flat = {key: value.flatten(0, last) for key, value in values.items()}
    rows = TensorDict(flat, batch_size=[batch.batch_size.numel()])
    mask = batch.get(MASK, None)
    return rows if mask is None else rows[mask.reshape(-1)]


def valid_sequences(
    batch: TensorDictBase, keys: Iterable[Key], *, length: int, state_keys: Iterable[Key]
) -> TensorDict:
    """Cut a batch ``[*B, T]`` into N sequences of ``length`` steps, ``[N]``; leave out those without a valid step.

    Entries are ``[N, length, ...]``; states, of which a sequence needs the first alone, ``[N, ...]``. Where ``length``
    does not divide T, the last sequence of each row is padded with steps that its mask rules out.

    Args:
        batch: with time last.
        keys: to select.
        length: steps of a sequence.
        state_keys: those of ``keys`` that are states of networks with memory.

    Raises:
        KeyMissing: naming a key the batch lacks, and what would have written it.
        SpecError: the batch has no time dimension or none beside it, or its steps are out of order.
    """
    if batch.batch_dims < 2:
        got, hint = f"batch size {list(batch.batch_size)}", "Write batch.unsqueeze(0) for a single row."
        raise SpecError(explain(WHO, expected="a batch [*B, T], time last", got=got, hint=hint))
    mask = batch.get(MASK, None)
    step_follows(WHO, batch)  # refuses steps that are out of order
    time_dim, num_steps = batch.batch_dims - 1, batch.batch_size[-1]
    num_padded = -num_steps % length
    sequences = TensorDict(batch_size=[batch.batch_size.numel() // num_steps * ((num_steps + num_padded) // length)])
    states = set(state_keys)
    if mask is None and num_padded:
        mask = torch.ones(batch.batch_size, dtype=torch.bool, device=batch.device)
    if mask is not None:
        rows, first = _first_steps(mask, length)
    entries = {key: read(batch, key, who=WHO) for key in keys if key != MASK} | ({} if mask is None else {MASK: mask})
    for key, value in entries.items():
        if key in states:
            value = value.flatten(0, time_dim - 1)
            sequences.set(key, value[:, ::length].flatten(0, 1) if mask is None else value[rows, first])
            continue
        value = value.flatten(0, time_dim - 1) if time_dim > 1 else value
        if num_padded:
            value = torch.cat([value, value.new_zeros(len(value), num_padded, *value.shape[2:])], 1)
        sequences.set(key, value.reshape(-1, length, *value.shape[2:]))
    return sequences if mask is None else sequences[sequences.get(MASK).any(-1)]


def as_batch(sequences: TensorDict, state_keys: Iterable[Key], length: int) -> TensorDict:
    """Return N sequences, ``[N]``, as a batch ``[N, T]``; states are expanded over time, and take no memory for it."""
    states = set(state_keys)
    size = torch.Size([len(sequences), length])
    batch = TensorDict(batch_size=size)
    for key, value in sequences.items(include_nested=True, leaves_only=True):
        batch.set(key, value.unsqueeze(1).expand(*size, *value.shape[1:]) if key in states else value)
    return batch


def _first_steps(mask: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row and the step of each sequence's first valid step, ``[N]`` each; its first step if it has none."""
    num_steps = mask.shape[-1]
    padded = torch.nn.functional.pad(mask.reshape(-1, num_steps), (0, -num_steps % length))
    within = padded.unflatten(1, (-1, length)).int().argmax(-1)
    rows, start = (torch.arange(num, device=mask.device) for num in within.shape)
    return rows.repeat_interleave(len(start)), (start * length + within).flatten()
