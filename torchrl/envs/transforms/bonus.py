"""A reward that a module adds to each step inside the environment. On batches: ``torchrl.data.IntrinsicReward``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import TensorSpec, Unbounded
from torchrl.envs.base import action_of
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import as_key, as_path
from torchrl.shapes import expand_right
from torchrl.unchecked import put


class RewardBonus(Transform):
    """Add ``coef`` times what a fixed or shared module computes of each step to the reward.

    >>> from torchrl.modules import RandomNetworkDistillation
    >>> rnd = RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4).requires_grad_(False)
    >>> TransformedEnv(env, RewardBonus(rnd, coef=0.1)).rollout(3)["next", "reward"].shape
    torch.Size([2, 3, 1])

    The module may read ``"action"``, observations of the step's root by their keys, and those it led to under
    ``"next"``, all as they are at this place of the chain. Nothing here trains it, nor calls its ``update``; in eval
    mode it is in eval mode.

    A worker process has a copy of the module, which would fall behind one that is trained elsewhere. So its parameters
    have to be frozen, ``module.requires_grad_(False)``, or in memory that all processes share,
    ``module.share_memory()``, before environments are built; what lies on an accelerator counts as shared, but is not
    where environments run in processes. For a reward that is learned, :class:`~torchrl.data.IntrinsicReward` on each
    batch is simpler and takes one call for all its steps. A frozen module is saved with what transforms learn.

    Args:
        module: has ``in_keys`` and ``out_keys``; given a TensorDict ``[*B]``, it writes ``[*B, 1]`` under the first of
            ``out_keys`` and returns it. Its parameters, if it has any, move to no device here.
        coef: factor on what it computes, finite.

    Raises:
        ConfigError: the module has no keys, or parameters that are trained and not shared; ``coef`` is not finite.
        KeyMissing: when wrapping: the module reads what is no observation.
        SpecError: from a step, the module writes another shape than the reward's.
    """

    changes_reward_only = True

    def __init__(self, module: Callable[[TensorDict], TensorDict], *, coef: float) -> None:
        super().__init__()
        if not (hasattr(module, "in_keys") and hasattr(module, "out_keys")):
            got = type(module).__name__
            raise ConfigError(explain("RewardBonus", expected="a module with in_keys and out_keys", got=got))
        if not math.isfinite(coef):
            raise ConfigError(explain("RewardBonus", expected="a finite coef", got=coef))
        _require_current(module)
        self.module = module
        self.coef = coef

    def read_specs(self, env: EnvSpecs) -> None:
        """Find what the module reads, and make a memory of the observations of the root."""
        super().read_specs(env)
        self._batch_size = env.batch_size
        leaves = dict(env.observation_spec.leaves())
        self._before: dict = {}  # the name of the memory of each observation of the root
        for key in self.module.in_keys:
            path = as_path(key)
            if path[0] == "action":
                continue
            seen = as_key(path[1:] if path[0] == "next" and len(path) > 1 else path)
            if seen not in leaves:
                expected = f"a module that reads the action, {list(leaves)}, or these under 'next'"
                raise KeyMissing(explain("RewardBonus", expected=expected, got=repr(key)))
            if path[0] != "next":
                self._before[key] = f"before_{len(self._before)}"
                self.register_memory(self._before[key], leaves[seen].zero())

    @staticmethod
    def merge_learned(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return the last: those of a frozen module are all equal, those of a shared one are of several moments."""
        return states[-1]

    def inverse(self, inputs: TensorDict) -> None:
        """Remember the action until its outcome is here, without changing it."""
        self._passing = action_of(inputs)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Add to the reward, and remember the root for the step after."""
        reward = next_.get("reward")
        with torch.no_grad():
            bonus = self.module(self._inputs(next_)).get(self.module.out_keys[0])
        if bonus.shape != reward.shape:
            got = f"{list(bonus.shape)} from {type(self.module).__name__}"
            raise SpecError(explain("RewardBonus", expected=f"a reward {list(reward.shape)}", got=got))
        put(next_, "reward", reward + self.coef * bonus.to(reward.dtype))
        for key, name in self._before.items():
            self._buffers[name] = root.get(key).clone()  # the environment writes into its tensor again

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Remember the first observations of the rows that restarted."""
        for key, name in self._before.items():
            value = root.get(key)
            same = None if mask is None else expand_right(mask, value)
            self._buffers[name] = value.clone() if same is None else torch.where(same, value, self._buffers[name])

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return a spec without bounds."""
        return Unbounded(spec.shape, spec.dtype, spec.device)

    def _inputs(self, next_: TensorDict) -> TensorDict:
        """Gather what the module reads in a container of its own."""
        inputs = TensorDict({}, self._batch_size)
        for key in self.module.in_keys:
            path = as_path(key)
            if key in self._before:
                value = self._buffers[self._before[key]]
            elif path[0] == "action":
                value = self._passing if len(path) == 1 else self._passing.get(as_key(path[1:]))
            else:
                value = next_.get(as_key(path[1:]))
            inputs.set(key, value)
        return inputs


def _require_current(module: object) -> None:
    """Refuse a module whose copy in another process would stay as it is while this one is trained.

    Raises:
        ConfigError: saying what to write.
    """
    parameters = module.named_parameters() if isinstance(module, nn.Module) else ()
    alone = [name for name, value in parameters if value.requires_grad and not value.is_shared()]
    if alone:
        hint = (
            "A reward that is learned: IntrinsicReward(module, coef=...) on each batch, for example as the collector's "
            "postproc. A fixed one: module.requires_grad_(False). One that processes share: module.share_memory()."
        )
        got = f"{alone[0]}, which is trained and not shared"
        raise ConfigError(explain("RewardBonus", expected="parameters frozen or in shared memory", got=got, hint=hint))
