"""Goals that were reached, in place of those that were asked for: flags, and what relabels a command's episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.data import EpisodeStream, HindsightRelabel
from torchrl.envs import Env, TransformedEnv
from torchrl.envs.driving import innermost
from torchrl.errors import ConfigError, explain
from torchrl.recipes.observations import num_stacked
from torchrl.recipes.parts import ReplayCommand
from torchrl.recipes.settings import NonNegativeInt

GOAL, ACHIEVED, SEEN = "desired_goal", "achieved_goal", "observation"


@dataclass(frozen=True)
class Hindsight:
    """Which goals are put in the place of those that were asked for.

    >>> Hindsight(hindsight_goals=4).hindsight_strategy
    'future'
    """

    hindsight_goals: NonNegativeInt = 0
    """store each episode this many times more, with goals that it reached (hindsight experience replay); for
    environments with an achieved and a desired goal"""
    hindsight_strategy: Literal["future", "final", "episode"] = "future"
    "a reached goal is that of a later step, of the last step or of any step; needs --hindsight_goals above 0"


def make_hindsight(options: Hindsight, settings: ReplayCommand, env: Env, *, seed: int) -> EpisodeStream | None:
    """Build what waits for whole episodes and adds copies of each with reached goals; None where none are asked for.

    The rewards of the copies are those of the simulator's own ``compute_reward(achieved, desired, info)``, and their
    ends those of its ``compute_terminated``, as gymnasium-robotics has them.

    >>> make_hindsight(Hindsight(), settings, env, seed=0) is None
    True

    Args:
        options: how many copies, with which goals.
        settings: of the command.
        env: the run's environment.
        seed: of the choice among reached goals.

    Raises:
        ConfigError: an environment without goals, or in worker processes; or settings that change rewards or
            observations, or join steps.
    """
    if not options.hindsight_goals:
        return None
    _require_plain(settings)
    slices = _slices(env, settings.environment.success_key)
    world = _world(env)
    relabel = HindsightRelabel(
        lambda achieved, goal, steps: _reward(world, achieved, goal),
        strategy=options.hindsight_strategy,
        num_goals=options.hindsight_goals,
        terminated_fn=(lambda achieved, goal, steps: _terminated(world, achieved, goal))
        if hasattr(world, "compute_terminated")
        else None,
        generator=torch.Generator().manual_seed(seed),
    )
    return EpisodeStream(JoinedGoals(relabel, slices))


class JoinedGoals:
    """Relabel goals that are joined with other observations in one vector.

    >>> relabel = HindsightRelabel(lambda achieved, goal, steps: -(achieved - goal).norm(dim=-1, keepdim=True))
    >>> batch["observation"] = batch["next", "observation"] = torch.rand(2, 8, 5)
    >>> JoinedGoals(relabel, {"achieved_goal": slice(0, 2), "desired_goal": slice(2, 4)})(batch).shape
    torch.Size([10, 8])

    Args:
        relabel: relabels batches in which the two goals are entries of their own.
        slices: where the two lie in ``observation``.
    """

    def __init__(self, relabel: HindsightRelabel, slices: dict[str, slice]) -> None:
        self.relabel = relabel
        self.slices = slices

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return the steps of a batch ``[*B, T]`` and behind them their copies, ``[(1 + k) N, T]``."""
        batch = batch.copy()
        for name, place in self.slices.items():
            batch[name] = batch[SEEN][..., place]
            batch["next", name] = batch["next", SEEN][..., place]
        result = self.relabel(batch)
        for part in (result, result["next"]):
            part[SEEN][..., self.slices[GOAL]] = part[GOAL]
        return result.exclude(*self.slices, *[("next", name) for name in self.slices])

    def state_dict(self) -> dict:
        """Return the state of the choice among goals."""
        return self.relabel.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self.relabel.load_state_dict(state)


def _require_plain(settings: ReplayCommand) -> None:
    """Refuse settings with which a copy would not be what the learner sees of an episode with that goal."""
    environment, replay = settings.environment, settings.replay
    wanted = {
        "memory": (getattr(settings.networks, "memory", None), None, "the steps of a copy have goals of their own"),
        "multi_step": (replay.multi_step, False, "sums would mix goals"),
        "sub_traj_len": (replay.sub_traj_len, None, "the steps of a copy have goals of their own"),
        "reward_scaling": (environment.reward_scaling, None, "new rewards are the simulator's own"),
        "norm_rewards": (environment.norm_rewards, False, "new rewards are the simulator's own"),
        "env_workers": (environment.env_workers, 0, "the reward is asked of a simulator in this process"),
        "frame_stack": (num_stacked(environment, is_image=False), 1, "each frame of a stack shows the goal"),
    }
    for name, (got, plain, reason) in wanted.items():
        if got != plain and got:
            expected = f"--{name}={plain}, since {reason}"
            raise ConfigError(explain("--hindsight_goals", expected=expected, got=got))


def _simulated(env: Env) -> Env:
    while isinstance(env, TransformedEnv):
        env = env.env
    return env


def _slices(env: Env, unseen: str | None) -> dict[str, slice]:
    """Find where the achieved and the desired goal lie in the vector that joins all observations but ``unseen``."""
    leaves = {key: leaf for key, leaf in _simulated(env).observation_spec.leaves() if key != unseen}
    widths = {name: leaf.shape[len(env.batch_size) :] for name, leaf in leaves.items()}
    goals = [widths.get(name) for name in (ACHIEVED, GOAL)]
    if goals[0] is None or goals[0] != goals[1] or len(goals[0]) != 1:
        got = {name: list(shape) for name, shape in widths.items()}
        hint = "gymnasium_robotics:FetchReach-v4 is such a task."
        expected = f"an environment that observes {ACHIEVED!r} and {GOAL!r}, vectors alike"
        raise ConfigError(explain("--hindsight_goals", expected=expected, got=got, hint=hint))
    starts = np.cumsum([0, *[shape.numel() for shape in widths.values()]]).tolist()
    places = {name: slice(start, start + widths[name].numel()) for name, start in zip(widths, starts, strict=False)}
    return {name: places[name] for name in (ACHIEVED, GOAL)}


def _world(env: Env) -> Any:
    """Return the simulator that tells rewards."""
    world = innermost(_simulated(env).simulators[0])
    if not hasattr(world, "compute_reward"):
        expected = "a simulator with compute_reward(achieved_goal, desired_goal, info)"
        raise ConfigError(explain("--hindsight_goals", expected=expected, got=type(world).__name__))
    return world


def _reward(world: Any, achieved: Tensor, goal: Tensor) -> Tensor:
    reward = world.compute_reward(achieved.cpu().numpy(), goal.cpu().numpy(), {})
    return torch.as_tensor(np.asarray(reward, np.float32), device=goal.device).reshape(-1, 1)


def _terminated(world: Any, achieved: Tensor, goal: Tensor) -> Tensor:
    pairs = zip(achieved.cpu().numpy(), goal.cpu().numpy(), strict=True)
    flags = [bool(world.compute_terminated(*pair, {})) for pair in pairs]  # of one pair each, in gymnasium-robotics
    return torch.tensor(flags, dtype=torch.bool, device=goal.device).reshape(-1, 1)
