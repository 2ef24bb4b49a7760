"""The contract of a transform, the chain of several, and the environment seen through one. Not any one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.base import Env
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.unchecked import shallow


@dataclass(frozen=True)
class EnvSpecs:
    """What a transform may know of the environment below it; an :class:`Env` has the same attributes.

    Attributes:
        batch_size: ``[*B]``.
        device: where the environment's tensors live.
        observation_spec: what comes from below, leaves ``[*B, ...]``.
        action_spec: what goes down, ``[*B]`` or ``[*B, A]``.
        reward_spec: ``[*B, 1]``.
    """

    batch_size: torch.Size
    device: torch.device
    observation_spec: Composite
    action_spec: TensorSpec
    reward_spec: TensorSpec


class Transform(nn.Module):
    """Change what the policy sees, what the simulator receives, or both. The default changes nothing.

    Each of the two directions has a twin for specs. A transform belongs to one environment. What it learns or remembers
    is in buffers, so that ``state_dict`` saves it and ``eval()`` can freeze it.

    The containers it is given are fresh, down to the last level, and are edited in place. The tensors in them belong to
    others and are never written to: set new ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_attached = False

    def attach(self, env: Env | EnvSpecs) -> None:
        """Read the specs of the environment below; called once, before anything else.

        Raises:
            ConfigError: the transform already belongs to an environment.
        """
        if self._is_attached:
            raise ConfigError(
                explain(
                    type(self).__name__,
                    expected="a transform of its own for every environment",
                    got="one that already belongs to an environment or a chain",
                    hint="Build another with the same arguments.",
                )
            )
        self._is_attached = True

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit the outcome of a step and the root after it.

        Args:
            next_: the outcome, ``[*B]``: true successor observations, reward and flags.
            root: the root to act on next, ``[*B]``, with the same observations as ``next_``; rows that ended wait for
                :meth:`reset`.
        """

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Edit a root of which some rows have just restarted.

        Args:
            root: the whole root, ``[*B]``, untransformed on every row.
            mask: bool ``[*B]``, true on rows that restarted: only their memory starts anew; None is all rows.
                False everywhere when a state was loaded.
        """

    def inverse(self, inputs: TensorDict) -> None:
        """Edit what the policy sends, on its way to the environment below.

        Args:
            inputs: a container of ours, ``[*B]``, with the policy's ``action`` and whatever else it holds.
        """

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec of what the policy sees, given the spec of what comes from below."""
        return spec

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the reward, given that from below."""
        return spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send, given what the environment below takes."""
        return spec


class Compose(Transform):
    """Chain transforms, the first nearest to the environment. What the policy sends passes them in reverse order.

    Args:
        transforms: any number of transforms, each of its own.
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        for transform in transforms:
            _require_transform("Compose", transform)
        self.transforms = nn.ModuleList(transforms)
        self._chain = transforms  # walking a ModuleList takes longer than a step of most transforms
        self._inverse_chain = transforms[::-1]

    def attach(self, env: Env | EnvSpecs) -> None:
        """Attach each transform to the environment as seen through those before it."""
        super().attach(env)
        for transform in self._chain:
            transform.attach(env)
            env = seen_through(transform, env)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit with every transform in turn; see :meth:`Transform.step`."""
        for transform in self._chain:
            transform.step(next_, root)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Edit with every transform in turn; see :meth:`Transform.reset`."""
        for transform in self._chain:
            transform.reset(root, mask)

    def inverse(self, inputs: TensorDict) -> None:
        """Edit with every transform, the last one first; see :meth:`Transform.inverse`."""
        for transform in self._inverse_chain:
            transform.inverse(inputs)

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec of what the policy sees; see :meth:`Transform.observation_spec`."""
        for transform in self._chain:
            spec = transform.observation_spec(spec)
        return spec

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of the reward; see :meth:`Transform.reward_spec`."""
        for transform in self._chain:
            spec = transform.reward_spec(spec)
        return spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the spec of what the policy may send; see :meth:`Transform.action_spec`."""
        for transform in self._chain:
            spec = transform.action_spec(spec)
        return spec

    def __len__(self) -> int:
        return len(self._chain)

    def __getitem__(self, index: int) -> Transform:
        return self._chain[index]

    def __iter__(self) -> Iterator[Transform]:
        return iter(self._chain)


class TransformedEnv(Env):
    """An environment seen through a transform; it takes the environment over.

    The transition's ``action`` is the policy's own; what the simulator received is not recorded. ``episode_return`` is
    counted below and stays raw. Seeds mean the same with and without the transform.

    Args:
        env: the environment below, ``[*B]``.
        transform: what it is seen through; several go into a :class:`Compose`.

    Raises:
        EnvError: ``env`` is no environment.
        ConfigError: ``transform`` is no transform, or belongs to another environment.
        KeyMissing: the environment has no observation that the transform reads.
    """

    def __init__(self, env: Env, transform: Transform) -> None:
        if not isinstance(env, Env):
            hint = "A simulator becomes one by SerialEnv(make_simulator, num_envs)."
            raise EnvError(explain("TransformedEnv", expected="an Env", got=type(env).__name__, hint=hint))
        _require_transform("TransformedEnv", transform)
        transform.attach(env)
        seen = seen_through(transform, env)
        super().__init__(
            batch_size=env.batch_size,
            observation_spec=seen.observation_spec,
            action_spec=seen.action_spec,
            reward_spec=seen.reward_spec,
            device=env.device,
        )
        self.env = env
        self.transform = transform
        # One stream of random actions and one seed that waits for a reset, whether or not there is a transform.
        self._generator = env._generator
        self._pending_seed, env._pending_seed = env._pending_seed, None

    @property
    def simulators(self) -> list:
        """The worlds, one per slot, where the environment below has them."""
        return self.env.simulators

    def _advance(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        inputs = shallow(tensordict)  # the policy's action stays in its own container
        self.transform.inverse(inputs)
        next_, root, ended = self.env._advance(inputs)
        self.transform.step(next_, root)
        return next_, root, ended

    def _reset(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: dict | None) -> TensorDict:
        root = self.env._reset(mask, seeds=seeds, options=options)
        self.transform.reset(root, mask)
        return root

    def state_dict(self) -> dict:
        """Capture the environment and the transform, with what the transform remembers of each row.

        Raises:
            EnvError: a simulator's state cannot be captured.
        """
        transform = {name: value.clone() for name, value in self.transform.state_dict().items()}
        return {"env": self.env.state_dict(), "transform": transform}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict` and return the root to act on, the caller's own."""
        root = self.env.load_state_dict(state["env"])
        self.transform.load_state_dict(state["transform"])
        self._pending_seed = None
        self.transform.reset(root, torch.zeros(self.batch_size, dtype=torch.bool, device=self.device))
        return root

    def close(self) -> None:
        """Close the environment below."""
        self.env.close()

    def __repr__(self) -> str:
        return f"TransformedEnv({self.env!r}, {self.transform!r})"


def seen_through(transform: Transform, env: Env | EnvSpecs) -> EnvSpecs:
    """Describe an environment as it looks through a transform that is attached to it."""
    return EnvSpecs(
        batch_size=env.batch_size,
        device=env.device,
        observation_spec=transform.observation_spec(env.observation_spec),
        action_spec=transform.action_spec(env.action_spec),
        reward_spec=transform.reward_spec(env.reward_spec),
    )


def _require_transform(who: str, transform: object) -> None:
    if not isinstance(transform, Transform):
        hint = "Several go into Compose(*transforms)." if isinstance(transform, (list, tuple)) else ""
        raise ConfigError(explain(who, expected="a Transform", got=repr(transform), hint=hint))
