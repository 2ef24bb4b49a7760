"""Normalisation of observations by running statistics, as a transform, and the statistics themselves.

By default ``ObservationNormalizer``, the first module of the network, normalises observations, which is faster and
keeps replayed observations raw. This transform is for policies that cannot hold that module, and for statistics that
several environments share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import TensorSpec, Unbounded
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.envs.transforms.leaves import is_number, set_leaf
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key, as_key, as_path
from torchrl.moments import count_rows_, pool_moments
from torchrl.shapes import expand_right

MOMENTS = ("count", "mean", "var")


class ObservationStatistics(nn.Module):
    """Keep the running count, mean and variance of observations, in float64, for one or more :class:`VecNorm`.

    Several :class:`VecNorm` may use one object, in one process or, after ``share_memory()``, in many: all numbers are
    buffers that are written in place. Processes do not lock them, so of two updates at once one may be lost.

    Older observations may have lower weights ``w``: the count is ``Σ w``, the mean ``m = Σ w x / Σ w`` and the variance
    ``Σ w (x - m)² / Σ w``. Batches are merged as in :mod:`torchrl.moments`.

    >>> statistics = ObservationStatistics({"observation": (1,)})
    >>> statistics.update_("observation", torch.tensor([[1.0], [3.0]]))
    >>> [float(moment) for moment in statistics.moments("observation")]  # count, mean, variance
    [2.0, 2.0, 1.0]

    Args:
        shapes: shape of one observation without its batch, by key.
        device: where the buffers live.
    """

    def __init__(self, shapes: Mapping[Key, Sequence[int]], *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._names = {as_path(key): [f"{name}_{index}" for name in MOMENTS] for index, key in enumerate(shapes)}
        options = {"dtype": torch.float64, "device": device}
        for (count, mean, var), shape in zip(self._names.values(), shapes.values(), strict=True):
            self.register_buffer(count, torch.zeros((), **options))
            self.register_buffer(mean, torch.zeros(shape, **options))
            self.register_buffer(var, torch.ones(shape, **options))

    def moments(self, key: Key) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the buffers of an observation's count ``[]``, mean and variance ``[*shape]``, not copied.

        Before any update they are 0, 0 and 1.

        Raises:
            KeyMissing: there are no statistics of this observation.
        """
        names = self._names.get(as_path(key))
        if names is None:
            known = [as_key(path) for path in self._names]
            raise KeyMissing(explain("ObservationStatistics", expected=f"one of the keys {known}", got=repr(key)))
        count, mean, var = names
        buffers = self._buffers  # by attribute, nn.Module takes half a microsecond for each
        return buffers[count], buffers[mean], buffers[var]

    def update_(self, key: Key, rows: torch.Tensor, *, decay: float = 1.0) -> None:
        """Add observations, one per row, to the statistics, in place.

        Args:
            key: which observation.
            rows: ``[*N, *shape]``, each with weight 1; if there are none, nothing changes.
            decay: factor on the weights of all earlier rows.

        Raises:
            NonFiniteError: a row holds NaN or infinity; the statistics are not changed.
        """
        hint = "FiniteCheck, put before it in the chain, names the row."
        count_rows_(f"VecNorm, key {key!r}", self.moments(key), rows, decay=decay, hint=hint)

    def normalise(self, key: Key, value: torch.Tensor, eps: float) -> torch.Tensor:
        """Return ``(value - mean) / sqrt(variance + eps)``, ``[*B, *shape]`` float64; the statistics do not change."""
        _, mean, var = self.moments(key)
        return value.to(torch.float64).sub(mean).mul_((var + eps).rsqrt_())


class VecNorm(ObservationTransform):
    """Normalise observations by the running mean and standard deviation of those seen so far: ``(x - mean) / std``.

    Every row's observation of every vector step is added to the statistics once, an episode's first one at its reset.
    Each vector step multiplies the weights of earlier observations by ``decay``: 0.9999 forgets over ten thousand
    steps, 1 never. In eval mode the statistics do not change. Within one vector step all rows, also true last
    observations, are normalised by the same numbers; first observations of an episode by the numbers after adding them.

    >>> TransformedEnv(env, VecNorm()).reset()["observation"].abs().round()  # two rows: one deviation above and below
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]])

    Args:
        in_keys: which observations, each element with statistics of its own.
        decay: factor on the weight of older observations, per vector step, above 0 and at most 1.
        eps: added to the variance, so that tiny deviations are not blown up.
        statistics: those of another transform, to share: ``VecNorm(statistics=training_norm.statistics)``; None makes
            new ones when wrapping an env.

    Raises:
        ConfigError: ``decay`` or ``eps`` is out of range.
        KeyMissing: when wrapping: there is no such observation, or ``statistics`` lacks it.
        SpecError: when wrapping: an observation is not numeric, or the statistics are of another shape or device.
    """

    expected = "numbers"
    takes = staticmethod(is_number)

    def __init__(
        self,
        in_keys: Sequence[Key] = ("observation",),
        *,
        decay: float = 0.9999,
        eps: float = 1e-8,
        statistics: ObservationStatistics | None = None,
    ) -> None:
        super().__init__(in_keys)
        if not (0 < decay <= 1 and eps > 0 and math.isfinite(eps)):
            expected = "a decay above 0 and at most 1, and a positive eps"
            raise ConfigError(explain("VecNorm", expected=expected, got=f"decay={decay}, eps={eps}"))
        self.decay = decay
        self.eps = eps
        self.statistics = statistics

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations; make the statistics, or check the given ones."""
        super().read_specs(env)
        leaves = {key: env.observation_spec[key] for key in self.in_keys}
        shapes = {key: self.features(leaf) for key, leaf in leaves.items()}
        if self.statistics is None:
            self.statistics = ObservationStatistics(shapes, device=env.device)
        self._names = [f"root_{index}" for index in range(len(leaves))]
        for name, (key, leaf) in zip(self._names, leaves.items(), strict=True):
            _require_fit(key, shapes[key], env.device, self.statistics)
            self.register_memory(name, torch.zeros(leaf.shape, dtype=_float_of(leaf.dtype), device=env.device))

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Add a step's observations to the statistics (not in eval mode), and normalise outcome and next root."""
        for name, key in zip(self._names, self.in_keys, strict=True):
            value = next_.get(key)
            if self.training:
                self.statistics.update_(key, self._counted_rows(value), decay=self.decay)
            value = self._normalise(key, value)
            self._buffers[name] = value
            set_leaf(next_, key, value)
            set_leaf(root, key, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Add restarted rows to the statistics (not in eval mode), and normalise them; other rows keep their values."""
        for name, key in zip(self._names, self.in_keys, strict=True):
            value = root.get(key)
            if self.training:
                self.statistics.update_(key, value if mask is None else value[self._counted_mask(mask)])
            value = self._normalise(key, value)
            if mask is not None:  # the statistics have moved since those rows were seen
                value = torch.where(expand_right(mask, value), value, self._buffers[name])
            self._buffers[name] = value
            set_leaf(root, key, value)

    @property
    def remembers(self) -> bool:
        """False: the values kept are those that rows show already."""
        return False

    def has_learned(self) -> bool:
        """Answer whether the statistics of every observation in ``in_keys`` have data."""
        return all(float(self.statistics.moments(key)[0]) for key in self.in_keys)

    @staticmethod
    def merge_learned(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Pool the statistics of several environments, see :func:`torchrl.moments.pool_moments`."""
        pooled = {}
        for index in range(len(states[0]) // 3):
            names = [f"statistics.{name}_{index}" for name in MOMENTS]
            moments = pool_moments([tuple(state[name] for name in names) for state in states])
            pooled.update(zip(names, moments, strict=True))
        return pooled

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return a floating spec without bounds."""
        return Unbounded(leaf.shape, _float_of(leaf.dtype), leaf.device)

    def _counted_rows(self, value: torch.Tensor) -> torch.Tensor:
        """Return the rows of ``value`` that are neither frozen nor ignored."""
        return value if self.waiting is None else value[~self.waiting]

    def _counted_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a mask of restarted rows, bool ``[*B]``, without those that are frozen or ignored."""
        return mask if self.waiting is None else mask & ~self.waiting

    def _normalise(self, key: Key, value: torch.Tensor) -> torch.Tensor:
        return self.statistics.normalise(key, value, self.eps).to(_float_of(value.dtype))


def _float_of(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.float32


def _require_fit(key: Key, shape: torch.Size, device: torch.device, statistics: ObservationStatistics) -> None:
    _, mean, _ = statistics.moments(key)
    if mean.shape != shape or mean.device.type != device.type:
        expected = f"statistics of {key!r} of shape {list(shape)} on {device}"
        raise SpecError(explain("VecNorm", expected=expected, got=f"{list(mean.shape)} on {mean.device}"))
