"""Wrappers that make Atari games what agents of the field are trained on: pictures, lives and FIRE. No torch.

``atari_simulator`` in :mod:`torchrl.envs.simulators.named` puts them together, with no-op starts and a time limit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from torchrl.counts import is_count
from torchrl.envs.simulators.base import Action, Observation, SimulatorWrapper, State
from torchrl.envs.simulators.console import is_console
from torchrl.envs.simulators.limits import frames_per_step
from torchrl.envs.simulators.wrappers import MAX_TRIALS, FrameSkip
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.extras import require

NOOP, FIRE = 0, 1


class AtariPictures(FrameSkip):
    """Repeat every action for ``num_frames`` frames, and observe the brighter of the last two, pixel by pixel, resized.

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), methods: games draw some objects in
    every second frame only. The picture is read from the console, whatever the game below observes, and resized by
    OpenCV's ``INTER_AREA``, as ``gymnasium.wrappers.AtariPreprocessing`` does it: the two agree pixel by pixel. Where
    an episode ends before the last frame of a step, this wrapper observes the frame of the ending alone, and that one
    repeats the picture of the step before.

    >>> from torchrl.envs.simulators import GymSimulator
    >>> game = GymSimulator("ALE/Pong-v5", {"frameskip": 1, "obs_type": "ram"})  # doctest: +SKIP
    >>> AtariPictures(game).observation_space.shape  # doctest: +SKIP
    (84, 84)

    Args:
        simulator: an Atari game of ale-py that skips no frames by itself; quickest with ``obs_type="ram"``.
        num_frames: frames of the console per step; rewards are summed. 1 takes each frame as it is.
        size: height and width of the pictures, in pixels.
        grayscale: whether pictures are grey, uint8 ``[size, size]``, by the console's own palette; else
            ``[size, size, 3]``.

    Raises:
        ConfigError: a number is not positive, or the game skips frames itself.
        EnvError: the simulator is no Atari game.
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(
        self, simulator: gymnasium.Env, num_frames: int = 4, size: int = 84, *, grayscale: bool = True
    ) -> None:
        super().__init__(simulator, num_frames)
        if not is_count(size):
            raise ConfigError(explain("AtariPictures", expected="size of at least 1", got=size))
        game = self.unwrapped
        ale = getattr(game, "ale", None)
        if not is_console(ale):
            raise EnvError(explain("AtariPictures", expected="an Atari game of ale-py", got=type(game).__name__))
        if (own := _frames_per_step(game)) != 1:
            hint = 'Make it with frameskip=1: env_kwargs={"frameskip": 1}.'
            raise ConfigError(explain("AtariPictures", expected="a game that skips no frames", got=own, hint=hint))
        cv2 = require("cv2", extra="atari", purpose="AtariPictures")
        self._resize = partial(cv2.resize, dsize=(size, size), interpolation=cv2.INTER_AREA)
        self._draw = ale.getScreenGrayscale if grayscale else ale.getScreenRGB
        colours = () if grayscale else (3,)
        self._screen, self._screen_before = (np.empty((*ale.getScreenDims(), *colours), np.uint8) for _ in range(2))
        self.observation_space = spaces.Box(0, 255, (size, size, *colours), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode and return its first frame."""
        _, info = self.simulator.reset(seed=seed, options=options)
        self._draw(self._screen)
        return self._resize(self._screen), info

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Advance by up to ``num_frames`` frames; ``info`` is that of the last."""
        total, last, step = 0.0, self.num_frames - 1, self.simulator.step
        for frame in range(self.num_frames):
            _, reward, terminated, truncated, info = step(action)
            total += reward
            if terminated or truncated:
                break
            if frame == last - 1:
                self._draw(self._screen_before)
        self._draw(self._screen)
        if frame == last > 0:
            np.maximum(self._screen, self._screen_before, out=self._screen)
        return self._resize(self._screen), total, terminated, truncated, info


class EpisodicLife(SimulatorWrapper):
    """End the episode of the learner at each lost life, and let the game go on at the next reset.

    Mnih et al. (2015), methods, for training only: an agent learns sooner that losing a life is bad. The step that
    loses a life is terminated; the reset after it takes one step that does nothing, in the same game. Every other reset
    starts a new game: one with a seed or options, one after a game that is over or was cut short.

    >>> game = EpisodicLife(GymSimulator("ALE/Breakout-v5"))  # doctest: +SKIP
    >>> game.reset(seed=0)[1]["lives"]  # doctest: +SKIP
    5

    Args:
        simulator: a game with discrete actions, of which the first does nothing, and with ``lives`` in its ``info``.

    Raises:
        ConfigError: it has other actions.
        EnvError: from a reset, ``info`` tells no lives.
    """

    def __init__(self, simulator: gymnasium.Env) -> None:
        super().__init__(simulator)
        _require_discrete("EpisodicLife", simulator, "episodic_life=False")
        self._lives = 0
        self._goes_on = False  # whether the next reset continues the game

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Go on after a lost life, with a step that does nothing; else start a game."""
        started = self._go_on() if self._goes_on and seed is None and not options else None
        observation, info = started or self.simulator.reset(seed=seed, options=options)
        self._lives, self._goes_on = _lives("EpisodicLife", info), False
        return observation, info

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; terminate where a life was lost."""
        observation, reward, terminated, truncated, info = self.simulator.step(action)
        lives = info["lives"]
        is_lost = 0 < lives < self._lives  # some games show no life for some frames before they are over
        self._lives = lives
        self._goes_on = is_lost and not (terminated or truncated)
        return observation, reward, terminated or is_lost, truncated, info

    def _go_on(self) -> tuple[Observation, dict] | None:
        observation, _, terminated, truncated, info = self.simulator.step(NOOP)
        return None if terminated or truncated else (observation, info)

    def _own_state(self) -> State:
        return {"lives": self._lives, "goes_on": self._goes_on}

    def _set_own_state(self, state: State) -> None:
        self._lives, self._goes_on = state["lives"], state["goes_on"]


class FireReset(SimulatorWrapper):
    """Press FIRE at the start of a game and after each lost life, in games that wait for it, such as Breakout.

    These are the games whose second action is FIRE. A policy need not find out by chance how a game is set going.
    Around :class:`EpisodicLife`, FIRE is part of each reset. Without it a step that loses a life is followed by FIRE at
    once: the step returns what is seen after both, and the sum of their rewards.

    >>> game = FireReset(GymSimulator("ALE/Breakout-v5"))  # doctest: +SKIP
    >>> game.is_waiting  # for FIRE  # doctest: +SKIP
    True

    Args:
        simulator: an Atari game with discrete actions.

    Raises:
        ConfigError: it has other actions.
        EnvError: it does not tell the meanings of its actions; from a reset, FIRE ended ten episodes in a row.
    """

    def __init__(self, simulator: gymnasium.Env) -> None:
        super().__init__(simulator)
        _require_discrete("FireReset", simulator, "fire_reset=False")
        meanings = getattr(self.unwrapped, "get_action_meanings", None)
        if meanings is None:
            got = f"{type(self.unwrapped).__name__} without get_action_meanings"
            raise EnvError(explain("FireReset", expected="a game that tells what its actions mean", got=got))
        self.is_waiting = meanings()[FIRE : FIRE + 1] == ["FIRE"]
        self._lives = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode and press FIRE; start again if the episode ends by it."""
        for _ in range(MAX_TRIALS):
            observation, info = self.simulator.reset(seed=seed, options=options)
            terminated = truncated = False
            if self.is_waiting:
                observation, _, terminated, truncated, info = self.simulator.step(FIRE)
            if not (terminated or truncated):
                self._lives = _lives("FireReset", info)
                return observation, info
            seed = None  # once is enough: the same seed would end the same way
        expected = f"an episode that outlives FIRE within {MAX_TRIALS} trials"
        raise EnvError(explain("FireReset", expected=expected, got="none"))

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; press FIRE where a life was lost and the episode goes on."""
        observation, reward, terminated, truncated, info = self.simulator.step(action)
        is_lost, self._lives = info["lives"] < self._lives, info["lives"]
        if is_lost and self.is_waiting and not (terminated or truncated):
            observation, more, terminated, truncated, info = self.simulator.step(FIRE)
            reward, self._lives = reward + more, info["lives"]
        return observation, reward, terminated, truncated, info

    def _own_state(self) -> State:
        return {"lives": self._lives}

    def _set_own_state(self, state: State) -> None:
        self._lives = state["lives"]


def _frames_per_step(game: Any) -> int:
    """Return the frames that a game repeats an action by itself; made without an id it has no spec to tell."""
    skip = getattr(game, "_frameskip", None)
    return frames_per_step(game) if skip is None else skip


def _lives(who: str, info: dict) -> int:
    if "lives" not in info:
        raise EnvError(explain(who, expected='an info with "lives"', got=sorted(info)))
    return info["lives"]


def _require_discrete(who: str, simulator: gymnasium.Env, hint: str) -> None:
    space = simulator.action_space
    if not isinstance(space, spaces.Discrete):
        raise ConfigError(explain(who, expected="discrete actions", got=space, hint=f"Leave it out: {hint}."))
