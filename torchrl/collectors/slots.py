"""What collectors say about slots: their trajectories, their parameters, that some wait. Not the stepping."""

from __future__ import annotations

from collections.abc import Collection

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.envs.base import Env
from torchrl.errors import ConfigError, explain


def trajectory_ids(starts: Tensor, current: Tensor, num_begun: int) -> Tensor:
    """Number the trajectories of a batch over the whole run, in the order of slots, then of time.

    Args:
        starts: where a trajectory begins, bool ``[*B, T]``.
        current: the trajectory that each slot was in before the batch, int64 ``[*B]``; -1 for none.
        num_begun: how many had begun before the batch.

    Returns:
        int64 ``[*B, T]``; the last column is ``current`` for the next batch.
    """
    rank = starts.reshape(-1).cumsum(0).reshape(starts.shape) + (num_begun - 1)
    ids = torch.where(starts, rank, -1)
    ids[..., 0] = torch.maximum(ids[..., 0], current)
    return ids.cummax(-1).values


def freeze_rows(env: Env, rows: Tensor) -> bool:
    """Freeze rows of an environment until they are reset; answer whether it can.

    Where the environment cannot, it steps these rows on, and the collector leaves out their steps.

    Args:
        env: ``[*B]``.
        rows: bool ``[*B]``.
    """
    if env.can_freeze:
        env.freeze_(rows)
    return env.can_freeze


def set_info(
    who: str,
    env: Env,
    root: TensorDict | None,
    held: Collection[str] | None,
    *,
    agent_info: TensorDictBase | None,
    env_info: TensorDictBase | None,
) -> None:
    """Set parameters of the slots, see :meth:`Env.set_info_`, between two batches of the same layout.

    Args:
        who: names the collector in messages.
        env: ``[*B]``.
        root: there is to act on, which the policy's parameters are written into; None where all slots restart.
        held: the names in batches so far; None before the first.
        agent_info: ``[*B]``, or None.
        env_info: ``[*B]``, or None.

    Raises:
        ConfigError: something that batches did not hold from the first on.
        SpecError: another batch size, or another form than before.
    """
    if held is not None:
        names = list(agent_info.keys()) if isinstance(agent_info, TensorDictBase) else []
        names += [] if env_info is None else ["env_info"]
        new = [name for name in names if name not in held]
        if new:
            hint = "Set it before the first batch; other values may follow."
            expected = "parameters that batches hold from the first on"
            raise ConfigError(explain(f"{who}.set_info", expected=expected, got=f"{new}", hint=hint))
    env.set_info_(agent_info=agent_info, env_info=env_info)
    if root is not None:
        env.apply_info_(root)
