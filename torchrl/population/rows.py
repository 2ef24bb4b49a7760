"""The rows of several members in one env: which envs allow it, their seeds, and the state of one member's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from torchrl.envs import Env, ParallelEnv, SerialEnv, TorchEnv, TransformedEnv
from torchrl.envs.arguments import row_seeds
from torchrl.errors import ConfigError, explain
from torchrl.modules.randomness import generators_of

APART = "Leave env out: each member then collects with its own collector."


def reason_against(env: Env) -> str | None:
    """Say why rows of several members cannot stand in one env like this; return None if they can.

    They can where nothing passes from row to row, and each row draws from a stream of its own.

    >>> print(reason_against(env))
    None

    Args:
        env: of one member, ``[B]``, or of all, ``[S * B]``.
    """
    for transform in env.transforms:
        name = type(transform).__name__
        if transform.learned_tensors() or transform.learns_later():
            return f"{name}, which learns from all rows"
        if generators_of(transform):
            return f"{name}, which draws for all rows at once"
    if env.carried.initial is not None:
        return "a policy's state, which the env carries from step to step"
    below = env
    while isinstance(below, TransformedEnv):
        below = below.env
    if not isinstance(below, (SerialEnv, ParallelEnv, TorchEnv)):
        return f"{type(below).__name__}, whose rows may share random streams"
    return None


def joined_seeds(envs: Sequence[Env]) -> list[int]:
    """Return the seed of every row of all members, in their order: those that the members' envs wait to reset with.

    Args:
        envs: the members', each seeded and not reset since.

    Raises:
        ConfigError: one of them has no seed.
    """
    seeds: list[int] = []
    for env in envs:
        own = row_seeds(env.shared.pending_seed, env.batch_size.numel())
        if own is None or None in own:
            hint = "Write Collector(..., seed=0): a member's episodes shall be those of its own run."
            raise ConfigError(explain("Population", expected="collectors with seeds", got="one without", hint=hint))
        seeds += own
    return seeds


def split_state(env: Env, state: dict, generators: Sequence[torch.Tensor]) -> list[dict]:
    """Cut the state of one env of all rows into a state for each member's own env.

    Args:
        env: of all members' rows, ``[S * B]``.
        state: its ``state_dict()``.
        generators: the states of the members' generators of random actions.

    Returns:
        A state for each member, which an env of B rows, built alike, loads.
    """
    num = len(generators)
    if isinstance(env, TransformedEnv):
        below = split_state(env.env, state["env"], generators)
        frozen = split_rows(state["frozen"], num)
        memories = _split_memories(env, state["transform"], num)
        columns = zip(below, memories, frozen, strict=True)
        return [{"env": inner, "transform": memory, "frozen": rows} for inner, memory, rows in columns]
    rows = split_rows({key: value for key, value in state.items() if key != "generator"}, num)
    return [own | {"generator": generator} for own, generator in zip(rows, generators, strict=True)]


def split_rows(value: Any, num: int) -> list:
    """Cut tensors, arrays and lists of rows, inside dicts as well, into ``num`` equal shares; None into Nones.

    >>> split_rows({"steps": [3, 4], "seen": torch.tensor([[0.0], [1.0]])}, 2)
    [{'steps': [3], 'seen': tensor([[0.]])}, {'steps': [4], 'seen': tensor([[1.]])}]
    """
    if value is None:
        return [None] * num
    if isinstance(value, dict):
        shares = {key: split_rows(entry, num) for key, entry in value.items()}
        return [{key: share[k] for key, share in shares.items()} for k in range(num)]
    if isinstance(value, torch.Tensor):
        return [share.clone() for share in value.chunk(num)]
    if isinstance(value, np.ndarray):
        return [share.copy() for share in np.split(value, num)]
    size = len(value) // num
    return [value[k * size : (k + 1) * size] for k in range(num)]


def _split_memories(env: TransformedEnv, state: dict, num: int) -> list[dict]:
    """Cut what transforms remember of each row; what all rows share goes to every member."""
    dims: dict[str, int | None] = {}
    for path, module in env.transform.named_modules():
        for name, dim in getattr(module, "memory_dims", {}).items():
            dims[f"{path}.{name}" if path else name] = dim
    shares: list[dict] = [{} for _ in range(num)]
    for name, value in state.items():
        dim = dims.get(name)
        is_shared = dim is None or not isinstance(value, torch.Tensor)
        parts = [value] * num if is_shared else [share.clone() for share in value.chunk(num, dim)]
        for share, part in zip(shares, parts, strict=True):
            share[name] = part
    return shares
