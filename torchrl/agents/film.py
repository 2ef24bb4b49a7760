"""Films of single episodes, and the hook that makes one after each periodic evaluation. It measures nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.agents.evaluate import Evaluation, eval_mode, move_roots_to_policy, own_randomness
from torchrl.agents.hooks import Hook
from torchrl.envs import Env
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.learned import frozen, refuse_learning_simulators
from torchrl.errors import ConfigError, KeyMissing, explain
from torchrl.keys import Key
from torchrl.modules import ExplorationType, set_exploration_type
from torchrl.record import Logger, require_video, video_writer

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent

VIDEOS = "videos"  # the folder of the films, in that of the run


class RecordVideo(Hook):
    """Film one episode after each periodic evaluation, always from the same start: ``videos/<frames>.mp4``.

    The policy acts as in an evaluation, in an environment for films alone, and its random streams are restored, so
    training is not affected. The film has a picture of the start and one after each step; the last shows the ending.
    The agent's logger is told of it, as ``eval/film``.

    >>> from torchrl.envs import GymEnv
    >>> film = RecordVideo(lambda: GymEnv("CartPole-v1", num_envs=1, from_pixels=True, pixels_only=False))
    >>> agent.folder, agent.hooks = folder, [film]
    >>> agent.train()  # with an evaluator, videos/<frames>.mp4 appear

    Args:
        make_env: builds an environment ``[1]`` that shows its picture beside what the policy reads, as the simulator
            wrapper :class:`~torchrl.envs.simulators.Pixels` does.
        key: the picture's, uint8 ``[1, H, W, 3]``.
        seed: of the episode's start, and of the random streams of a policy that samples.
        exploration_type: how the policy acts.
        fps: pictures, so steps, that the film shows in a second.
        max_steps: a longer episode is cut there.

    Raises:
        ConfigError: a number is not positive; when training begins: the agent has no folder, or the environment another
            batch size.
        KeyMissing: when training begins, there is no such picture.
        MissingExtraError: when training begins, the extra ``video`` is not installed.
    """

    def __init__(
        self,
        make_env: Callable[[], Env],
        *,
        key: Key = "pixels",
        seed: int = 0,
        exploration_type: ExplorationType = ExplorationType.DETERMINISTIC,
        fps: int = 30,
        max_steps: int = 3000,
    ) -> None:
        for name, value in (("fps", fps), ("max_steps", max_steps)):
            if value < 1:
                raise ConfigError(explain("RecordVideo", expected=f"{name} of at least 1", got=value))
        self.make_env = make_env
        self.key = key
        self.seed = seed
        self.exploration_type = exploration_type
        self.fps = fps
        self.max_steps = max_steps
        self._env: Env | None = None

    def on_train_start(self, agent: Agent) -> None:
        """Build the environment of the films; refuse an agent without a folder, or an environment without a picture.

        Raises:
            ConfigError: the agent has no folder, or the environment is no batch of one.
            KeyMissing: the environment shows no such picture.
        """
        require_video()
        if agent.folder is None:
            hint = "Set agent.folder."
            raise ConfigError(explain("RecordVideo", expected="an agent with a folder", got="none", hint=hint))
        env = self.make_env()
        refuse_learning_simulators("RecordVideo", env)
        take_env("RecordVideo", env, self)
        self._env = env
        if self._env.batch_size != (1,):
            got = list(self._env.batch_size)
            expected = "a make_env of batch size [1]"
            raise ConfigError(explain("RecordVideo", expected=expected, got=got, hint="Build it with num_envs=1."))
        shown = [key for key, _ in self._env.observation_spec.leaves()]
        if self.key not in shown:
            expected = f"an environment that shows its picture under {self.key!r}"
            raise KeyMissing(explain("RecordVideo", expected=expected, got=f"the observations {shown}"))

    def on_evaluated(self, agent: Agent, result: Evaluation) -> None:
        """Film an episode with the present weights: later ones than were measured in an :class:`EvaluationProcess`."""
        path = agent.folder / VIDEOS / f"{agent.frames:09d}.mp4"
        film_episode(
            agent.policy,
            self._env,
            path,
            key=self.key,
            learned=agent.collector.learned_states(),
            seed=self.seed,
            exploration_type=self.exploration_type,
            fps=self.fps,
            max_steps=self.max_steps,
        )
        if isinstance(agent.logger, Logger):  # what takes numbers alone will do as an agent's logger
            agent.logger.log_video("eval/film", path, agent.frames)

    def on_train_end(self, agent: Agent) -> None:
        """Close the environment of the films."""
        if self._env is not None:
            self._env.close()
            leave_env(self._env, self)
            self._env = None


def film_episode(
    policy: Callable,
    env: Env,
    path: str | os.PathLike,
    *,
    key: Key = "pixels",
    learned: Sequence | None = None,
    seed: int = 0,
    exploration_type: ExplorationType = ExplorationType.DETERMINISTIC,
    fps: int = 30,
    max_steps: int = 3000,
    show: Callable[[Tensor], object] | None = None,
) -> TensorDict:
    """Film one episode of a policy into an mp4 file, and return the outcome of its last step.

    The policy's random streams are restored, and torch's global one, so a training that goes on is not affected.

    >>> from torchrl.envs import GymEnv
    >>> filmed = GymEnv("CartPole-v1", num_envs=1, from_pixels=True, pixels_only=False)
    >>> film_episode(actor, filmed, folder / "film.mp4")["episode_length"].shape
    torch.Size([1, 1])

    Args:
        policy: acts in ``env``.
        env: of batch size ``[1]``, with a picture beside what the policy reads.
        path: of the file.
        key: the picture's, uint8 ``[1, H, W, 3]``.
        learned: states of transforms that ``env`` takes for the time of the film; see ``Collector.learned_states``.
        seed: of the episode's start, and of the random streams of a policy that samples.
        exploration_type: how the policy acts.
        fps: pictures, so steps, that the film shows in a second.
        max_steps: a longer episode is cut there.
        show: is called with each picture ``[H, W, 3]`` as it comes.

    Raises:
        MissingExtraError: the extra ``video`` is not installed.
    """
    with (
        torch.no_grad(),
        own_randomness(policy, seed),
        eval_mode(policy),
        frozen(env, learned),
        set_exploration_type(exploration_type),
        video_writer(path, fps=fps) as write,
    ):
        act = move_roots_to_policy(policy, env.device)
        root = outcome = env.reset(seed=[seed])
        for step in range(max_steps + 1):
            picture = outcome.get(key)[0]
            write(picture)
            if show is not None:
                show(picture)
            if step == max_steps or (step and bool(outcome.get("done"))):
                break
            transition, root = env.step_and_reset(act(root))
            outcome = transition.get("next")
        return outcome
