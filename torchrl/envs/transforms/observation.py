"""The base of transforms that replace observations by functions of themselves, and normalisation by fixed numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from tensordict import TensorDict

from torchrl.counts import is_count
from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.base import Env
from torchrl.envs.transforms.base import EnvSpecs, Transform, unwritten
from torchrl.envs.transforms.leaves import is_number, map_spec, require_leaves, set_leaf
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, as_path, key_list


class ObservationTransform(Transform):
    """Base of transforms that replace chosen observations by a function of each, after every reset and step.

    A subclass writes :meth:`forward` and :meth:`transform_spec`, and :meth:`takes` if it cannot handle every spec. The
    mask of legal actions is never replaced, since random actions are drawn by it.

    >>> class Sine(ObservationTransform):
    ...     def forward(self, value):
    ...         return value.sin()
    ...     def transform_spec(self, leaf):
    ...         return Bounded(-1.0, 1.0, leaf.shape)
    >>> from torchrl.data.specs import Bounded
    >>> TransformedEnv(env, Sine()).observation_spec["observation"].high.unique()
    tensor([1.])

    Args:
        in_keys: which observations, each a key or a tuple of keys; None takes all that :meth:`takes` accepts.

    Attributes:
        expected: words for what :meth:`takes` accepts, for the error message.

    Raises:
        ConfigError: ``in_keys`` is a single string.
        KeyMissing: when wrapping: there is no such observation.
        SpecError: when wrapping: an observation does not fit, or is the mask of legal actions.
    """

    expected = "another observation"

    def __init__(self, in_keys: Sequence[Key] | None = ("observation",)) -> None:
        super().__init__()
        self.in_keys = None if in_keys is None else tuple(key_list(type(self).__name__, in_keys))

    def takes(self, leaf: TensorSpec) -> bool:
        """Answer whether the transform can handle an observation with this spec; by default always True."""
        return True

    def hint(self, leaf: TensorSpec) -> str:
        """Return advice, for the error message, on an observation that :meth:`takes` refuses."""
        return ""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the new value of an observation, given the old one, ``[*B, ...]``; do not write to ``value``."""
        raise unwritten(self, "forward")

    def function_of(self, leaf: TensorSpec) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function to apply to an observation with this spec; :meth:`forward` by default."""
        return self.forward

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of the transformed observation, given that of the old one."""
        raise unwritten(self, "transform_spec")

    def features(self, leaf: TensorSpec) -> torch.Size:
        """Return the shape of an observation without its batch dimensions."""
        return leaf.shape[self._batch_dims :]

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations to replace, and refuse those that do not fit."""
        super().read_specs(env)
        self._batch_dims = len(env.batch_size)
        who, spec = type(self).__name__, env.observation_spec
        mask = None if env.action_mask_key is None else as_path(env.action_mask_key)
        if self.in_keys is None:
            self.in_keys = tuple(key for key, leaf in spec.leaves() if self.takes(leaf) and as_path(key) != mask)
        self.in_keys = require_leaves(who, spec, self.in_keys)
        for key in self.in_keys:
            leaf = spec[key]
            if as_path(key) == mask:
                hint = f"Leave {key!r} out of in_keys."
                raise SpecError(explain(who, expected="the mask of legal actions to stay as it is", got=key, hint=hint))
            if not self.takes(leaf):
                got = f"{type(leaf).__name__} of shape {[*self.features(leaf)]}, {leaf.dtype}"
                expected = f"{self.expected} in {key!r}"
                raise SpecError(explain(who, expected=expected, got=got, hint=self.hint(leaf)))
        self._functions = {key: self.function_of(spec[key]) for key in self.in_keys}

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Replace the observations in the step's outcome and in the next root."""
        for key, function in self._functions.items():
            before = next_.get(key)
            value = function(before)
            set_leaf(next_, key, value)
            # The root is still acted on while the next outcome is written: it must not look into this one's memory.
            is_view = value is before or value._base is not None
            set_leaf(root, key, value.clone() if is_view else value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Replace the observations of every row."""
        for key, function in self._functions.items():
            set_leaf(root, key, function(root.get(key)))

    def observation_spec(self, spec: Composite) -> Composite:
        spec = spec.clone()
        for key in self.in_keys:
            spec[key] = self.transform_spec(spec[key])
        return spec


class ObservationNorm(ObservationTransform):
    """Normalise observations by fixed numbers: ``(x - loc) / scale``.

    The numbers do not change; ``ObservationNormalizer``, a network's first module, updates its own during training.

    >>> ObservationNorm(loc=1.0, scale=2.0)(torch.tensor([5.0, 1.0]))
    tensor([2., 0.])

    Args:
        loc: number or tensor that broadcasts to the observation without its batch dimensions, ``[F]``.
        scale: positive number or tensor, likewise.
        in_keys: the observations to normalise.

    Raises:
        SpecError: ``loc`` or ``scale`` is not finite or ``scale`` not positive; when wrapping: an observation is not
            numeric, or ``loc`` or ``scale`` does not broadcast to it.
    """

    expected = "numbers"
    takes = staticmethod(is_number)

    def __init__(
        self,
        loc: float | np.ndarray | torch.Tensor,
        scale: float | np.ndarray | torch.Tensor,
        in_keys: Sequence[Key] = ("observation",),
    ) -> None:
        super().__init__(in_keys)
        loc, scale = (torch.as_tensor(value, dtype=torch.float32).detach().clone() for value in (loc, scale))
        if not bool(loc.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
            got = f"loc {loc.tolist()}, scale {scale.tolist()}"
            raise SpecError(explain("ObservationNorm", expected="a finite loc and a positive, finite scale", got=got))
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)

    @classmethod
    def fit(cls, make_env: Callable[[], Env], *, num_steps: int, seed: int, in_key: Key = "observation") -> Self:
        """Build the normalisation from the mean and standard deviation of an observation under random actions.

        This method makes an environment, steps it and closes it, so that the training environments' random generators
        are not used:
        ``ObservationNorm.fit(lambda: GymEnv("Pendulum-v1", num_envs=8), num_steps=1000, seed=0)``.
        A feature that did not move, with a deviation of at most 1e-6, is centred and not scaled.

        Args:
            make_env: makes the environment below the transform, with the transforms that go before it.
            num_steps: how many vector steps are taken.
            seed: for the episodes and the actions.
            in_key: the observation to normalise.

        Raises:
            KeyMissing: the environment has no such observation.
            ConfigError: ``make_env`` is an environment, or ``num_steps`` is not positive.
        """
        if not callable(make_env) or not is_count(num_steps):
            raise ConfigError(
                explain(
                    "ObservationNorm.fit",
                    expected="a function that makes an environment, and num_steps of at least 1",
                    got=f"{make_env!r}, num_steps={num_steps}",
                    hint="Write lambda: GymEnv(...): random steps must not draw from a training environment's stream.",
                )
            )
        env = make_env()
        try:
            (key,) = require_leaves("ObservationNorm.fit", env.observation_spec, [in_key])
            env.set_seed(seed)
            batch = env.rollout(num_steps)
        finally:
            env.close()
        values = batch.get(key).flatten(0, batch.ndim - 1).to(torch.float64)
        std, mean = torch.std_mean(values, dim=0, correction=0)
        # A feature that never moved is only centred: dividing by its rounding noise would blow up its first move.
        return cls(mean, torch.where(std > 1e-6, std, 1.0), in_keys=[key])

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations, and check that ``loc`` and ``scale`` broadcast to their shapes."""
        super().read_specs(env)
        self.to(env.device)
        for key in self.in_keys:
            leaf = env.observation_spec[key]
            features = self.features(leaf)
            for name, value in (("loc", self.loc), ("scale", self.scale)):
                if not _broadcasts(value.shape, features):
                    expected = f"a {name} that broadcasts to {list(features)}, the features of {key!r}"
                    raise SpecError(explain("ObservationNorm", expected=expected, got=f"shape {list(value.shape)}"))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return ``(value - loc) / scale``, ``[*B, ...]``."""
        buffers = self._buffers  # by attribute, nn.Module takes half a microsecond for each
        return (value - buffers["loc"]).div_(buffers["scale"])

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, self.forward)


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, target) == target
    except RuntimeError:
        return False
