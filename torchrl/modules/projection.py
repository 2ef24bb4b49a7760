"""A wrapper that moves a policy's actions, or another entry, to the nearest values that a spec contains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.modules.operator import accept_tensors, write
from torchrl.modules.wrapper import PolicyWrapper

if TYPE_CHECKING:
    from torchrl.data.specs import TensorSpec


class Projected(PolicyWrapper):
    """Call a policy and replace one entry that it wrote by the nearest value that a spec contains.

    >>> from torchrl.data.specs import Bounded
    >>> policy = Projected(Actor(nn.Identity()), Bounded(-1.0, 1.0, [3]))
    >>> policy(TensorDict({"observation": torch.tensor([-9.0, 0.0, 9.0])}))["action"]
    tensor([-1.,  0.,  1.])

    Only values and precision change: another shape or kind of dtype is an error, and NaN stays NaN. The gradient is
    that of the spec's projection: for bounds, zero beyond them.

    **Log-probs.** A recorded action and its log-prob belong together. So if the entry is the action and the policy
    writes a log-prob, that of the projected action replaces it, computed by the policy's ``build`` in a second pass
    through its network. The learner then recomputes the very number that was stored, but it is a density *at* the
    bound, not the probability of being moved there, which biases a policy gradient (Fujita and Maeda,
    "Clipped Action Policy Gradient", 2018). Policies that are trained by their log-probs do better with the transform
    ``ActionClip``, which clips for the simulator and records the policy's own action, or with a TanhNormal.

    ``build`` is the policy's own: the distribution before projection.

    Args:
        module: the policy.
        spec: of the entry: of one row, such as ``env.action_spec[0]``, for any batch dimensions in front of it, or
            ``env.action_spec``, for acting in that environment. It moves with ``.to(device)``.
        key: the entry, one that ``module`` writes.

    Raises:
        ConfigError: ``module`` does not write ``key``.
        SpecError: from a call, as ``spec.project`` says.
    """

    def __init__(self, module: TensorDictModuleBase, spec: TensorSpec, *, key: Key = "action") -> None:
        super().__init__(module)
        if key not in self.out_keys:
            raise ConfigError(explain("Projected", expected=f"a key out of {self.out_keys}", got=repr(key)))
        self.spec = spec
        self.key = key
        has_log_prob = getattr(module, "log_prob_key", None) is not None
        self._refreshed_key = module.log_prob_key if has_log_prob and module.action_key == key else None

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self._modules["module"](tensordict)
        value = tensordict[self.key]
        spec = self.spec if value.ndim == self.spec.ndim else self._expand_spec(value.shape)
        projected = spec.project(value)
        write(tensordict, self.key, projected)
        if self._refreshed_key is not None:
            write(tensordict, self._refreshed_key, self.build(tensordict).log_prob(projected))
        return tensordict

    def _expand_spec(self, shape: torch.Size) -> TensorSpec:
        """Expand the spec to ``shape``, whose batch dimensions it lacks; return a spec that does not fit unchanged."""
        num_rows = len(shape) - self.spec.ndim
        return self.spec.expand(shape) if num_rows > 0 and shape[num_rows:] == self.spec.shape else self.spec

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Let the spec follow ``.to``, ``.cpu`` and ``.cuda``; its dtype stays."""
        self.spec = self.spec.to(fn(torch.zeros((), dtype=torch.bool)).device)
        return super()._apply(fn, recurse)
