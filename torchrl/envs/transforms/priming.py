"""A transform that puts a policy's initial state, such as zeros for a recurrent network, into every episode's start."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Composite, TensorSpec, Unbounded
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key, as_path


class TensorDictPrimer(Transform):
    """Add a policy's state, such as a recurrent hidden state, to roots, with an initial value at every episode's start.

    The policy reads, say, ``"hidden"`` and writes ``("next", "hidden")``; the environment copies that into the next
    root, or the initial value on rows that ended. A state that the policy does not write keeps its value, so that
    batches of random actions have the same keys. The state is no observation: it is in no ``observation_spec`` and
    other transforms do not see it. ``reset(mask, root=root)`` keeps the state of rows that do not restart.

    A policy with memory says itself what it starts from: ``TensorDictPrimer(policy.initial_state())``.

    >>> from torchrl.data.specs import Unbounded
    >>> TransformedEnv(env, TensorDictPrimer({"hidden": Unbounded((64,))})).reset()["hidden"].shape
    torch.Size([2, 64])

    Args:
        specs: spec of one row's state by key, without batch dimensions: ``{"hidden": Unbounded((2, 64))}``; keys may be
            tuples, a spec may be a ``Composite``. Or the state of one row itself, a TensorDict ``[]``.
        defaults: initial values by key, each a number or a tensor that broadcasts to its spec's shape, or to that shape
            behind the batch's; the spec's zero for other keys.

    Raises:
        ConfigError: there are no specs.
        KeyMissing: a default has no spec.
        SpecError: when wrapping: a default does not fit its spec.
    """

    def __init__(
        self,
        specs: Composite | Mapping[Key, TensorSpec] | TensorDictBase,
        *,
        defaults: Mapping[Key, float | torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(specs, TensorDictBase):
            state = dict(specs.items(include_nested=True, leaves_only=True))
            specs = {key: Unbounded(tuple(value.shape), value.dtype) for key, value in state.items()}
            defaults = {**state, **(defaults or {})}
        self.specs = specs if isinstance(specs, Composite) else Composite(specs)
        leaves = {as_path(key): leaf for key, leaf in self.specs.leaves()}
        if not leaves or self.specs.ndim:
            expected = "at least one spec of a row's state, without batch dimensions"
            raise ConfigError(explain("TensorDictPrimer", expected=expected, got=self.specs))
        self._defaults = {as_path(key): value for key, value in (defaults or {}).items()}
        unknown = [key for key in self._defaults if key not in leaves]
        if unknown:
            expected = f"defaults for {list(leaves)}"
            raise KeyMissing(explain("TensorDictPrimer", expected=expected, got=f"some for {unknown}"))
        self._state: TensorDict | None = None

    def read_specs(self, env: EnvSpecs) -> None:
        """Make the initial state of all rows."""
        super().read_specs(env)
        spec = self.specs.to(env.device).expand(*env.batch_size)
        state = spec.zero()
        for path, value in self._defaults.items():
            leaf = spec[path]
            value = torch.as_tensor(value, device=env.device)
            try:
                value = value.to(leaf.dtype).expand(leaf.shape)
            except RuntimeError as error:
                expected = f"a default of {path} that broadcasts to {list(leaf.shape)}"
                raise SpecError(explain("TensorDictPrimer", expected=expected, got=list(value.shape))) from error
            leaf.assert_contains(value, f"TensorDictPrimer, default of {path}")
            state.set(path, value.clone())
        self._state = state

    def initial_state(self) -> TensorDict:
        """Return the initial state, ``[*B]``."""
        return self._state
