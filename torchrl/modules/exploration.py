"""The context that says how policies choose actions, the base of annealed exploration, and the random policy.

``set_exploration_type`` is tensordict's ``set_interaction_type`` under the name of what it does here::

    with set_exploration_type(ExplorationType.DETERMINISTIC):
        env.rollout(1000, policy)

Outside any context :func:`exploration_type` is None, and policies sample.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import (
    InteractionType as ExplorationType,
    TensorDictModuleBase,
    interaction_type as exploration_type,
    set_interaction_type as set_exploration_type,
)

from torchrl.data.specs import TensorSpec
from torchrl.errors import ConfigError, KeyMissing, explain
from torchrl.keys import Key, key_name
from torchrl.misspelling import Extensible
from torchrl.modules.families import require_drawn
from torchrl.modules.memory import PRIMER_LINE
from torchrl.modules.models.arguments import positive
from torchrl.modules.operator import accept_tensors, read, write
from torchrl.modules.wrapper import PolicyWrapper

__all__ = [
    "AnnealedExploration",
    "ExplorationType",
    "RandomPolicy",
    "exploration_type",
    "set_exploration_type",
    "without_exploration",
]


def require_spec(who: str, spec: Any) -> None:
    """Refuse an ``action_spec`` that is no :class:`TensorSpec`, such as an environment or a gymnasium space.

    Raises:
        ConfigError: saying what to write.
    """
    if not isinstance(spec, TensorSpec):
        hint = "Write env.action_spec; spec_from_space(space) makes a spec of a gymnasium space."
        raise ConfigError(explain(f"{who}, action_spec", expected="a TensorSpec", got=repr(spec), hint=hint))


class RandomPolicy(Extensible, TensorDictModuleBase):
    """Write actions drawn uniformly from the action spec, under every exploration type.

    >>> env.rollout(10, RandomPolicy(env.action_spec))["action"].shape
    torch.Size([2, 10])

    Args:
        action_spec: ``env.action_spec``, or that of one row, ``env.action_spec[0]``, for any batch dimensions.
        action_key: where the action goes.
        mask_key: the observation that says which actions are allowed, ``env.action_mask_key``: bool ``[*B, n]``, true
            where one is, or for a nested action a TensorDict of these; None allows all.
        generator: source of the actions; None uses torch's global one.

    Raises:
        ConfigError: the spec is none, such as an environment or a gymnasium space.
        KeyMissing: from a call, there is no mask.
        SpecError: from a call, the mask allows nothing, or does not fit.
    """

    def __init__(
        self,
        action_spec: TensorSpec,
        *,
        action_key: Key = "action",
        mask_key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require_spec("RandomPolicy", action_spec)
        self.in_keys = [] if mask_key is None else [mask_key]
        self.out_keys = [action_key]
        self.action_spec = action_spec
        self.action_key = action_key
        self.mask_key = mask_key
        self.generator = generator

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        masks = read(tensordict, self._in_keys, "RandomPolicy")
        spec, home = self.action_spec, self.action_spec.device
        size = tensordict.batch_size
        rows = () if spec.shape[: len(size)] == size else size
        if self.generator is None or home in (None, self.generator.device):
            action = spec.rand(rows, generator=self.generator, mask=masks[0] if masks else None)
        else:  # draw on the generator's device, then move: the stream does not depend on the device
            there = self.generator.device
            mask = masks[0].to(there) if masks else None
            action = spec.to(there).rand(rows, generator=self.generator, mask=mask).to(home)
        write(tensordict, self.action_key, action)
        return tensordict

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase | None = None) -> None:
        """Refuse one row's ``action_spec`` if this policy draws actions of another kind or size, or beyond its bounds.

        Raises:
            SpecError: another kind of action, another number of choices or dimensions, or other bounds.
        """
        require_drawn("RandomPolicy", self.action_spec, action_spec, self.action_key)


class AnnealedExploration(PolicyWrapper):
    """Base of wrappers that change a policy's actions by a ``strength``, which :meth:`step` anneals over frames.

    >>> exploration = AnnealedExploration(QValueActor(MLP(4, 2)), start=1.0, end=0.0, num_frames=100)
    >>> exploration.step(25)
    >>> exploration.strength
    tensor(0.7500)

    A subclass writes :meth:`explore`, which is called where the exploration type is ``RANDOM`` or, outside any context,
    None; under every other type, as in evaluations, the policy acts alone. No call of the policy anneals anything:
    ``strength`` stays at ``start`` unless someone calls :meth:`step`, as the hook
    :class:`~torchrl.agents.StepExploration` does after each batch.

    ``strength`` and ``frames`` are buffers, ``[]``: copies of the policy in other processes or on other devices get
    them with the weights, so :meth:`step` is called on the original alone.

    Args:
        module: the policy; it writes no log-prob, since that would not be the log-prob of the changed action.
        start: strength before the first frame.
        end: strength from ``num_frames`` on.
        num_frames: frames from start to end, counted over all environments.
        generator: source of random numbers; None uses torch's global one. A copy of the wrapper has a copy of the
            generator in its present state: give each copy that acts beside this one a generator of its own.

    Raises:
        ConfigError: a strength is not finite, ``num_frames`` is no positive integer, or the policy writes a log-prob.
    """

    def __init__(
        self,
        module: TensorDictModuleBase,
        *,
        start: float,
        end: float,
        num_frames: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(module)
        who = type(self).__name__
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ConfigError(explain(who, expected="finite strengths", got=f"start={start}, end={end}"))
        if getattr(module, "log_prob_key", None) is not None:
            hint = "Build the actor with log_prob_key=None, or let it explore by its own samples."
            raise ConfigError(explain(who, expected="a policy without log-probs", got=module.log_prob_key, hint=hint))
        self.start = start
        self.end = end
        self.num_frames = positive(f"{who}(num_frames=...)", num_frames)
        self.generator = generator
        self.register_buffer("strength", torch.tensor(float(start)))
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self._modules["module"](tensordict)
        if exploration_type() not in (None, ExplorationType.RANDOM):
            return tensordict
        try:
            return self.explore(tensordict)
        except KeyError as error:
            lacking = [key for key in self.own_state() if tensordict.get(key, None) is None]
            if not lacking or isinstance(error, KeyMissing):
                raise
            expected = f"its state under {key_name(lacking[0])!r}"
            got = f"keys {sorted(map(str, tensordict.keys()))}"
            raise KeyMissing(explain(type(self).__name__, expected=expected, got=got, hint=PRIMER_LINE)) from error

    def explore(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Replace the policy's action at ``action_key`` by an exploring one, and return the same TensorDict.

        ``forward`` calls it, under the exploration types ``RANDOM`` and None alone.

        Args:
            tensordict: a root with what the policy wrote, ``[*B]``.

        Raises:
            NotImplementedError: a subclass has not written it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it explores: write `explore`.")

    @torch.no_grad()
    def step(self, frames: int) -> None:
        """Count ``frames`` more collected frames, without padding, and set ``strength`` to its value at the new count.

        Nothing calls it by itself; an agent does where it has the hook :class:`~torchrl.agents.StepExploration`.

        Raises:
            ConfigError: ``frames`` is negative.
        """
        if frames < 0:
            raise ConfigError(explain(f"{type(self).__name__}.step", expected="frames of at least 0", got=frames))
        self.frames.add_(frames)
        share = (self.frames / self.num_frames).clamp(max=1)
        self.strength.copy_(torch.lerp(share.new_tensor(self.start), share.new_tensor(self.end), share))


def without_exploration(policy: TensorDictModuleBase) -> TensorDictModuleBase:
    """Return the policy inside all :class:`AnnealedExploration` wrappers; a policy without wrappers as it is."""
    while isinstance(policy, AnnealedExploration):
        policy = policy.module
    return policy
