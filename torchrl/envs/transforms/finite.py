"""A transform that checks that all numbers of the environment are finite. It changes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.leaves import require_leaves
from torchrl.errors import NonFiniteError, explain
from torchrl.keys import Key, key_list


class FiniteCheck(Transform):
    """Raise an error as soon as an observation or the reward has a NaN or an infinity.

    In a chain it checks observations and rewards as the transforms before it return them.

    >>> TransformedEnv(env, FiniteCheck()).transform.in_keys
    ('observation', 'reward')

    Args:
        in_keys: what to check: keys of observations, and ``"reward"``; None checks all. Integers are not checked.

    Raises:
        KeyMissing: when wrapping: there is no such observation.
        NonFiniteError: at a reset or a step: naming the key, the row and the value.
    """

    def __init__(self, in_keys: Sequence[Key] | None = None) -> None:
        super().__init__()
        self.in_keys = None if in_keys is None else tuple(key_list("FiniteCheck", in_keys))

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations of floating dtype."""
        super().read_specs(env)
        leaves = dict(env.observation_spec.leaves())
        if self.in_keys is None:
            self.in_keys = (*leaves, "reward")
        named = require_leaves("FiniteCheck", env.observation_spec, [key for key in self.in_keys if key != "reward"])
        self._batch_dims = len(env.batch_size)
        self._observations = tuple(key for key in named if leaves[key].dtype.is_floating_point)
        has_reward = "reward" in self.in_keys and env.reward_spec.dtype.is_floating_point
        self._outcome = (*self._observations, "reward") if has_reward else self._observations

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Check the outcome of a step; the root holds the same observations."""
        for key in self._outcome:
            self._require_finite(key, next_.get(key), "a step")

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Check the observations of the root after a reset."""
        for key in self._observations:
            self._require_finite(key, root.get(key), "a reset")

    def _require_finite(self, key: Key, value: torch.Tensor, when: str) -> None:
        # A finite sum proves it at half the cost; a sum of large numbers may overflow.
        if torch.compiler.is_compiling() or math.isfinite(value.sum()):
            return
        bad = (~value.isfinite()).nonzero()
        if not len(bad):
            return
        index = bad[0].tolist()
        row = index[: self._batch_dims]
        where = f"{value[tuple(index)].item()} at {index[self._batch_dims :]}" + (f" of row {row}" if row else "")
        hint = "Look at what the simulator did just before; a Bounded spec and check_env may find it earlier."
        raise NonFiniteError(
            explain("FiniteCheck", expected=f"finite numbers in {key!r} after {when}", got=where, hint=hint)
        )
