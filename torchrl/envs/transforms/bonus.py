"""A transform that adds a bonus, which a module computes, to each reward. For batches: ``data.IntrinsicReward``."""

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
    """Add ``coef`` times a bonus to each step's reward; a fixed or shared module computes the bonus from the step.

    >>> from torchrl.modules import RandomNetworkDistillation
    >>> rnd = RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4).requires_grad_(False)
    >>> TransformedEnv(env, RewardBonus(rnd, coef=0.1)).rollout(3)["next", "reward"].shape
    torch.Size([2, 3, 1])

    The module may read ``"action"``, the root's observations by their keys, and the successor observations under
    ``"next"``, all as the transforms before this one in the chain leave them. The transform does not train the module,
    nor call its ``update``. ``eval()`` puts the module into eval mode.

    A worker process has a copy of the module, which would not follow a module that is trained elsewhere. So its
    parameters have to be frozen, ``module.requires_grad_(False)``, or in memory that all processes share,
    ``module.share_memory()``, before environments are built; parameters on an accelerator count as shared, but are not
    where environments run in processes. For a bonus that is learned, :class:`~torchrl.data.IntrinsicReward` on each
    batch is simpler and takes one call for all its steps. A frozen module is part of the learned state of transforms.

    Args:
        module: has ``in_keys`` and ``out_keys``; given a TensorDict ``[*B]``, it writes ``[*B, 1]`` under the first of
            ``out_keys`` and returns it. It must be on the environment's device already.
        coef: factor on the bonus, finite.

    Raises:
        ConfigError: the module has no keys, or parameters that are trained and not shared; ``coef`` is not finite.
        KeyMissing: when wrapping: the module reads a key that is no observation.
        SpecError: from a step, the bonus has another shape than the reward.
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
        """Find the observations that the module reads, and allocate memory for those of the last root."""
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
        """Return the last state: those of a frozen module are equal, and of a shared one the last is the newest."""
        return states[-1]

    def inverse(self, inputs: TensorDict) -> None:
        """Store the action for :meth:`step`, without changing it."""
        self._passing = action_of(inputs)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Add the bonus of this step to the reward, and store the next root's observations for the next step."""
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
        """Store the first observations of the rows that restarted."""
        for key, name in self._before.items():
            value = root.get(key)
            same = None if mask is None else expand_right(mask, value)
            self._buffers[name] = value.clone() if same is None else torch.where(same, value, self._buffers[name])

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return a spec without bounds."""
        return Unbounded(spec.shape, spec.dtype, spec.device)

    def _inputs(self, next_: TensorDict) -> TensorDict:
        """Return a new TensorDict ``[*B]`` with the entries that the module reads."""
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
    """Refuse a module with trained parameters that are not in shared memory: copies of it would become outdated.

    Raises:
        ConfigError: naming the first such parameter.
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
