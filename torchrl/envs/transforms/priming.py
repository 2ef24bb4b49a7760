"""A transform that starts every episode with an initial value of a policy's state; the policy writes later ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDict

from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key, as_path


class TensorDictPrimer(Transform):
    """Put the initial value of a policy's state, such as a recurrent hidden state, into every episode's first root.

    The policy reads ``"hidden"`` and writes ``("next", "hidden")``; the environment carries that to the next root, and
    on rows that ended puts the initial value there. What a policy does not write does not change, so that random
    actions leave the same keys. The state is no observation: it is in no ``observation_spec`` and other transforms
    do not see it. ``reset(mask, root=root)`` keeps the state of rows that go on.

    >>> from torchrl.data.specs import Unbounded
    >>> TransformedEnv(env, TensorDictPrimer({"hidden": Unbounded((64,))})).reset()["hidden"].shape
    torch.Size([2, 64])

    Args:
        specs: spec of one row's state by key, without batch dimensions: ``{"hidden": Unbounded((2, 64))}``; keys may be
            tuples, a spec may be a ``Composite``.
        defaults: initial values by key, each a number or a tensor that broadcasts to its spec's shape, or to the whole
            batch's; the spec's zero for what is not there.

    Raises:
        ConfigError: there are no specs.
        KeyMissing: a default has no spec.
        SpecError: when wrapping: a default does not fit its spec.
    """

    def __init__(
        self,
        specs: Composite | Mapping[Key, TensorSpec],
        *,
        defaults: Mapping[Key, float | torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
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
        """Make the initial state of the batch."""
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
