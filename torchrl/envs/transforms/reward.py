"""Transforms of the reward. The reported ``episode_return`` sums the rewards before any transform."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, TensorSpec
from torchrl.envs.transforms.base import EnvSpecs, Transform, unwritten
from torchrl.envs.transforms.leaves import is_number, map_spec
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.errors import ConfigError, NonFiniteError, explain
from torchrl.keys import Key, key_list
from torchrl.moments import merge_moments_, pool_moments
from torchrl.unchecked import put

_NO_SPREAD = 1e-8  # a standard deviation below this is rounding noise


class RewardTransform(Transform):
    """Base of transforms that replace the reward of every step by a function of it.

    A subclass writes :meth:`forward` and :meth:`transform_spec`.

    >>> class Squash(RewardTransform):
    ...     def forward(self, reward):
    ...         return reward.tanh()
    ...     def transform_spec(self, leaf):
    ...         return Bounded(-1.0, 1.0, leaf.shape)
    >>> TransformedEnv(env, Squash()).reward_spec.high.flatten()
    tensor([1., 1.])
    """

    changes_reward_only = True

    def forward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return the new reward, ``[*B, 1]``; do not write to ``reward``."""
        raise unwritten(self, "forward")

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of ``forward(reward)``, given that of ``reward``."""
        raise unwritten(self, "transform_spec")

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Replace the reward of a step by :meth:`forward` of it."""
        put(next_, "reward", self.forward(next_.get("reward")))

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        return self.transform_spec(spec)


class RewardScaling(RewardTransform):
    """Scale the reward by fixed numbers: ``reward · scale + loc``.

    >>> RewardScaling(0.5, loc=1.0)(torch.tensor([4.0, -2.0]))
    tensor([3., 0.])

    Args:
        scale: factor, finite and not 0.
        loc: added afterwards. Where episodes terminate, this changes the task: every step more adds ``loc``.

    Raises:
        ConfigError: a number is not finite, or ``scale`` is 0.
    """

    def __init__(self, scale: float, loc: float = 0.0) -> None:
        super().__init__()
        if not (math.isfinite(scale) and math.isfinite(loc) and scale != 0):
            expected = "a finite scale other than 0, and a finite loc"
            raise ConfigError(explain("RewardScaling", expected=expected, got=f"scale={scale}, loc={loc}"))
        self.scale = scale
        self.loc = loc
        self._loc = torch.tensor(loc, dtype=torch.float64)  # [] takes on the reward's dtype

    def forward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return ``reward · scale + loc``, ``[*B, 1]``."""
        return torch.add(self._loc, reward, alpha=self.scale)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, self.forward)


class RewardClipping(RewardTransform):
    """Clip the reward to ``[low, high]``; NaN stays NaN.

    Mnih et al., "Human-level control through deep reinforcement learning", 2015, clip to ``[-1, 1]``.

    >>> RewardClipping(-1.0, 1.0)(torch.tensor([4.0, -2.0, 0.5]))
    tensor([ 1.0000, -1.0000,  0.5000])

    Args:
        low: smallest reward; may be ``-inf``.
        high: largest reward, above ``low``; may be ``inf``.

    Raises:
        ConfigError: ``low`` is not below ``high``.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise ConfigError(explain("RewardClipping", expected="low < high", got=f"low={low}, high={high}"))
        self.low = low
        self.high = high

    def forward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return the clipped reward, ``[*B, 1]``."""
        return torch.clamp(reward, self.low, self.high)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, self.forward, (self.low, self.high))


class BinarizeReward(RewardTransform):
    """Replace the reward by 1 where it is above 0, else by 0; NaN stays NaN.

    >>> BinarizeReward()(torch.tensor([4.0, -2.0])), BinarizeReward(nonzero=True)(torch.tensor([4.0, -2.0]))
    (tensor([1., 0.]), tensor([1., 1.]))

    Args:
        nonzero: replace every reward other than 0 by 1, negative ones included.
    """

    def __init__(self, *, nonzero: bool = False) -> None:
        super().__init__()
        self.nonzero = nonzero

    def forward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return 0 or 1 in the reward's dtype, ``[*B, 1]``; NaN stays NaN."""
        is_paid = reward != 0 if self.nonzero else reward > 0
        return torch.where(reward.isnan(), reward, is_paid.to(reward.dtype))

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return a spec with bounds 0 and 1, narrower where the reward's own bounds allow only one of the two."""
        if isinstance(leaf, Bounded) and not self.nonzero:
            return map_spec(leaf, self.forward)
        return Bounded(0, 1, leaf.shape, leaf.dtype, leaf.device)


class SignTransform(ObservationTransform):
    """Replace the reward, or every number of observations in ``in_keys``, by its sign: -1, 0 or 1; NaN stays NaN.

    >>> SignTransform()(torch.tensor([4.0, -2.0, 0.0]))
    tensor([ 1., -1.,  0.])

    Args:
        in_keys: what to replace: ``"reward"``, and keys of observations in numbers.

    Raises:
        SpecError: when wrapping: an observation is not numeric.
    """

    expected = "numbers"
    takes = staticmethod(is_number)

    def __init__(self, in_keys: Sequence[Key] = ("reward",)) -> None:
        keys = tuple(key_list("SignTransform", in_keys))
        super().__init__([key for key in keys if key != "reward"])
        self._has_reward = "reward" in keys

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sign of each entry in the value's dtype, ``[*B, ...]``."""
        return torch.where(value.isnan(), value, value.sign())  # torch's sign of NaN is 0

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Replace reward and observations."""
        super().step(next_, root)
        if self._has_reward:
            put(next_, "reward", self.forward(next_.get("reward")))

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, self.forward, (-1, 1))

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        return self.transform_spec(spec) if self._has_reward else spec


class RewardNorm(RewardTransform):
    """Divide the reward by the running standard deviation of the discounted return, and clip it.

    Each row keeps its return so far, ``R ← γ R + r``, which starts at 0 with every episode. The deviation is that of
    all such returns of all rows and steps up to and including this one, in float64 (:mod:`torchrl.moments`), on the
    CPU. The mean is not subtracted: a constant added to every step would change which behaviour is best. In eval mode
    the statistics do not change. While all returns so far are equal, the reward is only clipped. Engstrom et al.,
    "Implementation Matters in Deep RL", 2020, describe the practice.

    >>> norm = TransformedEnv(env, RewardNorm(gamma=0.5)).transform
    >>> norm(torch.tensor([[1.0], [3.0]]))  # the returns 1 and 3 deviate by 1
    tensor([[1.],
            [3.]])

    Args:
        gamma: the discount of the loss that is trained with these rewards.
        clip: largest absolute value of a reward.

    Raises:
        ConfigError: γ is not between 0 and 1, or ``clip`` not positive.
    """

    def __init__(self, gamma: float, clip: float = 10.0) -> None:
        super().__init__()
        if not (0 <= gamma <= 1 and clip > 0):
            got = f"gamma={gamma}, clip={clip}"
            raise ConfigError(explain("RewardNorm", expected="gamma from 0 to 1 and a positive clip", got=got))
        self.gamma = gamma
        self.clip = clip
        self.register_buffer("moments", torch.zeros(3, dtype=torch.float64))  # count, mean, sum of squared deviations
        self.register_memory("returns", None)  # [*B, 1], once the batch size is known

    def read_specs(self, env: EnvSpecs) -> None:
        """Start every row's return at 0."""
        super().read_specs(env)
        self.returns = torch.zeros((*env.batch_size, 1), dtype=torch.float64)

    @property
    def std(self) -> float:
        """The present standard deviation, by which rewards are divided before they are clipped; 1 without a spread."""
        return _deviation(*self.moments.tolist())

    def forward(self, reward: torch.Tensor) -> torch.Tensor:
        """Return the normalised reward, ``[*B, 1]``, after updating the statistics with it unless in eval mode.

        Raises:
            NonFiniteError: a reward is NaN or infinite; the statistics are not changed.
        """
        # For a few rows numpy takes half of torch's time; _buffers avoids nn.Module's lookup.
        reward_rows = reward.cpu().numpy()
        if not np.isfinite(reward_rows.sum()):
            raise NonFiniteError(explain("RewardNorm", expected="finite rewards", got=reward_rows.ravel().tolist()))
        returns = self._buffers["returns"].numpy()
        moments = self._buffers["moments"].numpy()
        returns *= self.gamma
        returns += reward_rows
        if self.training:
            counted = returns if self.waiting is None else returns[~self.waiting.cpu().numpy()]
            _count_in_(moments, counted.reshape(-1))
        scaled = reward_rows * (1.0 / _deviation(*moments.tolist()))
        return torch.from_numpy(scaled.clip(-self.clip, self.clip, out=scaled)).to(reward.device)

    @staticmethod
    def merge_learned(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Pool the moments of several environments, see :func:`torchrl.moments.pool_moments`."""
        parts = [state["moments"].tolist() for state in states]
        count, mean, var = pool_moments([(count, mean, _variance(count, squares)) for count, mean, squares in parts])
        return {"moments": torch.tensor([count, mean, var * count], dtype=torch.float64)}

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Set the running returns of the rows that restarted to 0."""
        if mask is None:
            self.returns.zero_()
        else:
            self.returns.masked_fill_(mask.unsqueeze(-1).cpu(), 0.0)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return bounds of ±clip."""
        return Bounded(-self.clip, self.clip, leaf.shape, leaf.dtype, leaf.device)


def _count_in_(moments: np.ndarray, values: np.ndarray) -> None:
    """Merge a batch into count, mean and sum of squared deviations, in place."""
    size = values.size
    if not size:
        return
    batch_mean = float(values.sum()) / size
    centred = values - batch_mean
    count, mean, squares = moments.tolist()
    total = count + size
    batch_var = float(centred.dot(centred)) / size
    mean, var = merge_moments_(mean, _variance(count, squares), batch_mean, batch_var, size / total)
    moments[:] = total, mean, var * total


def _variance(count: float, squares: float) -> float:
    return squares / count if count else 0.0


def _deviation(count: float, mean: float, squares: float) -> float:
    std = math.sqrt(_variance(count, squares))
    return std if std > _NO_SPREAD else 1.0
