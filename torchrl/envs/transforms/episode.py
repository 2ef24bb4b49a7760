"""Transforms that add observations about a row's episode so far: step count, last action, last reward, target return.

``is_init``, ``episode_return`` and ``episode_length`` need no transform: environments write them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.counts import is_count
from torchrl.data.specs import Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.base import action_of
from torchrl.envs.transforms.base import EnvSpecs, Transform, unwritten
from torchrl.envs.transforms.leaves import require_free
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.endings import is_done
from torchrl.keys import Key, as_key, as_path
from torchrl.shapes import expand_right
from torchrl.unchecked import put


class EpisodeObservation(Transform):
    """Base of transforms that add an observation, which has a start value in each episode and is updated at every step.

    A subclass writes :meth:`start` and :meth:`advance`.

    >>> from torchrl.data.specs import Unbounded
    >>> class Earned(EpisodeObservation):
    ...     def start(self, env):
    ...         return Unbounded((*env.batch_size, 1)), torch.zeros(*env.batch_size, 1)
    ...     def advance(self, values, next_):
    ...         return [values[0] + next_["reward"]]
    >>> TransformedEnv(env, Earned("earned")).rollout(3)["earned"][0].flatten()
    tensor([0., 1., 2.])

    Args:
        out_key: key of the new observation, in the root and under ``next``.

    Raises:
        ConfigError: when wrapping: an observation or the environment uses ``out_key`` already.
    """

    memory_names: Sequence[str] = ()  # of the buffers, one per leaf of the observation; numbered if empty

    def __init__(self, out_key: Key) -> None:
        super().__init__()
        self.out_key = out_key

    def start(self, env: EnvSpecs) -> tuple[TensorSpec, torch.Tensor | TensorDictBase]:
        """Return the spec of the observation, and its value at the start of an episode, ``[*B, ...]``."""
        raise unwritten(self, "start")

    def advance(self, values: Sequence[torch.Tensor], next_: TensorDict) -> Sequence[torch.Tensor]:
        """Return the observation's values after a step as new tensors, given those before it.

        Args:
            values: before the step, one tensor per leaf of the spec, not to be written to.
            next_: the step's outcome, see :meth:`Transform.step`.
        """
        raise unwritten(self, "advance")

    def read_specs(self, env: EnvSpecs) -> None:
        """Make the spec of the observation, and set every row's start value."""
        super().read_specs(env)
        require_free(type(self).__name__, env.observation_spec, self.out_key)
        self._spec, start = self.start(env)
        path = as_path(self.out_key)
        if isinstance(start, TensorDictBase):
            starts = {(*path, *as_path(key)): leaf for key, leaf in start.items(include_nested=True, leaves_only=True)}
        else:
            starts = {as_key(path): start}
        self._keys, self._starts = tuple(starts), tuple(starts.values())
        self._names = self.memory_names or [f"value_{index}" for index in range(len(starts))]
        for name, value in zip(self._names, self._starts, strict=True):
            self.register_memory(name, value.clone())
        is_flat = all(isinstance(key, str) for key in self._keys)
        self._set = put if is_flat else TensorDict.set  # the checked one makes the levels it lacks

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Update every row's values by :meth:`advance`, and add them to the step's outcome and to the next root."""
        buffers = self._buffers
        values = self.advance([buffers[name] for name in self._names], next_)
        for name, key, value in zip(self._names, self._keys, values, strict=True):
            buffers[name] = value
            self._set(next_, key, value)
            self._set(root, key, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Set restarted rows to their start value, and add the values of all rows to the root."""
        buffers = self._buffers
        for name, key, start in zip(self._names, self._keys, self._starts, strict=True):
            before = buffers[name]
            value = start.clone() if mask is None else torch.where(expand_right(mask, before), start, before)
            buffers[name] = value
            self._set(root, key, value)

    def observation_spec(self, spec: Composite) -> Composite:
        return spec.clone().set(self.out_key, self._spec.clone())


class StepCounter(EpisodeObservation):
    """Add an observation of the number of steps of each row's episode, int64 ``[*B, 1]``; truncate at ``max_steps``.

    A time limit inside the simulator is cheaper. Use this transform for environments that are batches already, or to
    let the policy see the time: otherwise the value of a state near the limit is no function of the observation (Pardo
    et al., "Time Limits in Reinforcement Learning", 2018).

    >>> TransformedEnv(env, StepCounter()).rollout(3)["step_count"][0].flatten()
    tensor([0, 1, 2])

    Args:
        out_key: key of the count.
        max_steps: the step after which an episode is truncated; None never does.

    Raises:
        ConfigError: ``max_steps`` is not positive; when wrapping: it exceeds the simulators' own step limit.
    """

    def __init__(self, out_key: Key = "step_count", max_steps: int | None = None) -> None:
        super().__init__(out_key)
        if max_steps is not None and not is_count(max_steps):
            raise ConfigError(explain("StepCounter", expected="max_steps of at least 1, or None", got=max_steps))
        self.max_steps = max_steps
        self.ends_episodes = max_steps is not None

    def start(self, env: EnvSpecs) -> tuple[TensorSpec, torch.Tensor]:
        if self.max_steps is not None and self.max_steps > env.step_limit:
            hint = "Raise the simulators' limit: GymEnv(name, max_episode_steps=...)."
            expected = f"max_steps of at most {env.step_limit}, after which the simulators truncate"
            raise ConfigError(explain("StepCounter", expected=expected, got=self.max_steps, hint=hint))
        shape = (*env.batch_size, 1)
        if self.max_steps is None:
            spec = Unbounded(shape, torch.int64, env.device)
        else:
            spec = Bounded(0, self.max_steps, shape, torch.int64, env.device)
        return spec, spec.zero()

    def advance(self, values: Sequence[torch.Tensor], next_: TensorDict) -> Sequence[torch.Tensor]:
        """Add 1 to every count; set ``truncated`` and ``done`` on rows that reached the limit."""
        count = values[0] + 1
        if self.max_steps is not None:
            truncated = next_.get("truncated") | (count >= self.max_steps)
            put(next_, "truncated", truncated)
            terminated = next_.get("terminated")  # mutate: equivalent - done below means one of the two is set there
            put(next_, "done", is_done(terminated, truncated))
        return (count,)


class TargetReturn(EpisodeObservation):
    """Add an observation of the return that the policy shall still reach in the episode, ``[*B, 1]``.

    Chen et al., "Decision Transformer: Reinforcement Learning via Sequence Modeling" (2021), section 3: the
    return-to-go starts at the target and is reduced by each reward.

    >>> TransformedEnv(env, TargetReturn(100.0)).rollout(3)["target_return"][0].flatten()  # each step pays 1
    tensor([100.,  99.,  98.])

    Args:
        target: the return at the start of an episode, in units of the reward at this point of the chain of transforms:
            a number, or a tensor that broadcasts to ``[*B, 1]``.
        mode: ``"reduce"`` subtracts the rewards received so far; ``"constant"`` keeps the target.
        out_key: key of the observation.

    Raises:
        ConfigError: an unknown mode, or a target that is not finite.
        SpecError: when wrapping: the target does not broadcast to the reward.
    """

    def __init__(self, target: float | torch.Tensor, mode: str = "reduce", *, out_key: Key = "target_return") -> None:
        super().__init__(out_key)
        self.target = torch.as_tensor(target, dtype=torch.float64)
        if mode not in ("reduce", "constant") or not bool(self.target.isfinite().all()):
            expected = 'a finite target and mode "reduce" or "constant"'
            raise ConfigError(explain("TargetReturn", expected=expected, got=f"{target}, mode={mode!r}"))
        self.mode = mode

    def start(self, env: EnvSpecs) -> tuple[TensorSpec, torch.Tensor]:
        """Return a spec without bounds, and the target, ``[*B, 1]``."""
        spec = Unbounded(env.reward_spec.shape, env.reward_spec.dtype, env.device)
        try:
            return spec, self.target.to(spec.device, spec.dtype).expand(spec.shape).clone()
        except RuntimeError as error:
            expected = f"a target that broadcasts to {list(spec.shape)}"
            got = f"shape {list(self.target.shape)}"
            raise SpecError(explain("TargetReturn", expected=expected, got=got)) from error

    def advance(self, values: Sequence[torch.Tensor], next_: TensorDict) -> Sequence[torch.Tensor]:
        """Subtract the step's reward from the target, unless ``mode`` is ``"constant"``."""
        return values if self.mode == "constant" else (values[0] - next_.get("reward"),)


class LastReward(EpisodeObservation):
    """Add an observation of the last step's reward, ``[*B, 1]``; in an episode's first root it is the spec's zero.

    >>> TransformedEnv(env, LastReward()).rollout(3)["last_reward"][0].flatten()  # each step pays 1
    tensor([0., 1., 1.])

    Args:
        out_key: where it goes.
    """

    def __init__(self, out_key: Key = "last_reward") -> None:
        super().__init__(out_key)

    def start(self, env: EnvSpecs) -> tuple[TensorSpec, torch.Tensor]:
        return env.reward_spec, env.reward_spec.zero()

    def advance(self, values: Sequence[torch.Tensor], next_: TensorDict) -> Sequence[torch.Tensor]:
        """Return a copy of the step's reward, since the environment writes into its tensor again."""
        return (next_.get("reward").clone(),)


class LastAction(EpisodeObservation):
    """Add an observation of the last step's action; in an episode's first root it is the spec's zero.

    It is the action as it passes this transform: at the end of a chain the policy's own, at the start of the chain the
    one that the environment receives. A nested action gives a nested observation.

    >>> batch = TransformedEnv(env, LastAction()).rollout(3)
    >>> bool((batch["next", "last_action"] == batch["action"]).all())
    True

    Args:
        out_key: where it goes.
    """

    def __init__(self, out_key: Key = "last_action") -> None:
        super().__init__(out_key)

    def start(self, env: EnvSpecs) -> tuple[TensorSpec, torch.Tensor | TensorDict]:
        spec = env.action_spec
        self._paths = [key for key, _ in spec.leaves()] if isinstance(spec, Composite) else None
        return spec, spec.zero()

    def inverse(self, inputs: TensorDict) -> None:
        """Remember a copy of the action, since a policy may write into its tensor again, without changing it."""
        action = action_of(inputs)
        passing = [action] if self._paths is None else [action.get(path) for path in self._paths]
        for name, value in zip(self._names, passing, strict=True):
            self._buffers[name] = value.clone()

    def advance(self, values: Sequence[torch.Tensor], next_: TensorDict) -> Sequence[torch.Tensor]:
        """Return the remembered action."""
        return values
