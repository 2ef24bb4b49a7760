"""Add a module's reward, for example for novelty, to the rewards of a batch. The modules are in ``torchrl.modules``."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.data.batch_functions import require_batch
from torchrl.data.multistep import REWARD, read_reward
from torchrl.data.trajectories import MASK
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.shapes import require_same_shape

INTRINSIC = ("next", "intrinsic_reward")


class IntrinsicReward:
    """Add ``coef`` times the reward that a module computes to the rewards of each collected batch.

    >>> from torchrl.modules import RandomNetworkDistillation
    >>> rnd = RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4)
    >>> paid = IntrinsicReward(rnd, coef=0.5)(batch)
    >>> torch.equal(paid["next", "reward"], batch["next", "reward"] + 0.5 * paid["next", "intrinsic_reward"])
    True

    Call it once per collected batch, before the estimator: ``advantage=lambda batch: gae(intrinsic(batch))``, or
    ``postproc`` of a collector; both run in the learner's process, with the module that is trained there. If the module
    has a method ``update``, it is called with the batch first, to add the batch to the module's statistics, which
    nothing else changes. Reported returns, ``("next", "episode_return")``, stay those of the environment.

    The result is a new container that shares its other entries with the batch, which is not written to. Steps that
    ``("collector", "mask")`` excludes keep their reward.

    Args:
        module: reads its ``in_keys`` and writes ``[*B, T, 1]`` under the first of its ``out_keys``.
        coef: factor on the module's reward; may be assigned between batches.

    Raises:
        ConfigError: the module has no keys, or ``coef`` is not finite.
    """

    def __init__(self, module: nn.Module, *, coef: float) -> None:
        if not (hasattr(module, "in_keys") and hasattr(module, "out_keys")):
            got, hint = type(module).__name__, "For example RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4)."
            raise ConfigError(explain("IntrinsicReward", expected="a module with keys", got=got, hint=hint))
        if not math.isfinite(coef):
            raise ConfigError(explain("IntrinsicReward", expected="a finite coef", got=coef))
        self.module = module
        self.coef = coef

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return the batch ``[*B, T]`` with the sums as rewards, and the module's rewards, without ``coef``, in `next`.

        Raises:
            KeyMissing: the batch lacks the reward, or an entry that the module reads.
            SpecError: the module's reward has another shape than the reward, or was added to this batch before.
        """
        require_batch("IntrinsicReward", batch)
        if batch.get(INTRINSIC, None) is not None:
            hint = "Give it to the collector or to the agent, not to both."
            got = f"one with {INTRINSIC}, to whose reward it was added already"
            raise SpecError(explain("IntrinsicReward", expected="a batch as collected", got=got, hint=hint))
        reward = read_reward(batch, who="IntrinsicReward")
        if hasattr(self.module, "update"):
            self.module.update(batch)
        intrinsic = self.module(batch.copy()).get(self.module.out_keys[0])
        require_same_shape("IntrinsicReward", reward=reward, intrinsic_reward=intrinsic)
        mask = batch.get(MASK, None)
        if mask is not None:
            intrinsic = torch.where(mask.unsqueeze(-1), intrinsic, 0)
        intrinsic = intrinsic.to(reward.dtype)
        result = batch.copy()
        result.set(REWARD, reward + self.coef * intrinsic)
        result.set(INTRINSIC, intrinsic)
        return result
