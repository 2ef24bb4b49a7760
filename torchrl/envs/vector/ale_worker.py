"""The worker around ale-py's vector environment: many Atari games, which C++ threads step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from torchrl.envs.simulators.leaving_out import Name
from torchrl.envs.vector.batches import Actions
from torchrl.envs.vector.buffers import StepBuffers
from torchrl.envs.vector.gym_vector_worker import VectorWorker
from torchrl.envs.vector.info_entries import InfoEntries
from torchrl.envs.vector.worker import Options
from torchrl.errors import EnvError, explain
from torchrl.seeding import child_seeds

MAX_SEED = 2**31  # ale-py's are int32
FIRE = 1  # in games that wait for it, the second action


class ALEWorker(VectorWorker):
    """Step and restart ale-py's ``AtariVectorEnv``, and write its results into numpy buffers.

    A row whose life is lost while its game goes on is restarted without a reset: the last observation of one episode is
    the first of the next. In mode ``SAME_STEP`` the array ``info["final_obs"]`` holds last observations only where a
    game began anew in that step, which the frame counters in ``info`` tell.

    Args:
        vector_env: the vector environment, or wrappers around it.
        mode: its autoreset mode, ``NEXT_STEP`` or ``SAME_STEP``.
        leave_out: names of observations to leave out, of which ale-py's has none.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.
        infos: entries of ``info`` that are observed; None observes none.
        env_name: class of the env, for messages.
        episodic_life: whether a lost life ends an episode.
        fires: whether the first action after a lost life is FIRE, whatever is asked for; of discrete actions.
        is_single: whether the stack of one frame is left out of the observation: ``[1, H, W]`` becomes ``[H, W]``.
    """

    def __init__(
        self,
        vector_env: VectorEnv,
        mode: AutoresetMode,
        leave_out: Sequence[Name],
        buffers: StepBuffers,
        *,
        infos: InfoEntries | None = None,
        env_name: str = "GymVectorEnv",
        episodic_life: bool = False,
        fires: bool = False,
        is_single: bool = False,
    ) -> None:
        self.env_name = env_name
        self._episodic_life = episodic_life
        self._fires = fires
        self._is_single = is_single
        super().__init__(vector_env, mode, leave_out, buffers, infos=infos)
        self._lives = np.zeros(self._num_envs, np.int64)
        self._is_lost = np.zeros(self._num_envs, bool)  # a life was lost in the last step, not the game
        self._begun_at = np.zeros(self._num_envs, np.int64)  # the frame at which a row's game began

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Begin the next episode of the given rows: in the same game where one goes on, unless there is a seed.

        See :meth:`Worker.restart`.

        Raises:
            EnvError: there are options, of which ale-py knows none, or the env is closed.
        """
        if options if options is None or isinstance(options, Mapping) else any(options):
            raise EnvError(explain(f"{self.env_name}.reset", expected="no options", got=repr(options)))
        if self.vector_env.unwrapped.closed:
            raise EnvError(explain(f"{self.env_name}.reset", expected="an open env", got="a closed one"))
        super().restart(indices, seeds)

    def require_ability(self, ability: str) -> None:
        """Raise an error for ``"options"``, which ale-py's resets do not take; ``"seeds"`` pass."""
        if ability == "options":
            expected = "simulators whose resets take options"
            raise EnvError(explain("set_info_, env_info", expected=expected, got=self.env_name))

    def render(self) -> list:
        """Refuse to draw, which ale-py's vector environment cannot.

        Raises:
            EnvError: always.
        """
        hint = 'GymEnv("ALE/Pong-v5", env_kwargs={"render_mode": "rgb_array"}) draws.'
        raise EnvError(explain(f"{self.env_name}.render", expected="pictures", got="none from ale-py", hint=hint))

    def close(self) -> None:
        """Close the vector environment, and end its threads."""
        super().close()
        vars(self.vector_env.unwrapped).pop("ale", None)  # ale-py itself lets them wait
        self._has_ended.fill(True)
        self._may_step = False

    def _take_step(self, actions: Actions) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        if self._fires:
            actions = np.where(self._is_lost, FIRE, actions)
        observations, rewards, terminated, truncated, info = super()._take_step(actions)
        if self._episodic_life or self._fires:
            lives = info["lives"]
            is_lost = (lives > 0) & (lives < self._lives)  # some games show none for some frames before they are over
            np.logical_and(is_lost, ~(terminated | truncated), out=self._is_lost)
            np.copyto(self._lives, lives)
        if self._episodic_life:
            terminated = terminated | self._is_lost
        return observations, rewards, terminated, truncated, info

    def _space_of(self, vector_env: VectorEnv) -> Space:
        space = vector_env.single_observation_space
        return one_frame(space) if self._is_single else space

    def _translate(self, observations: Any) -> Any:
        return super()._translate(observations[:, 0] if self._is_single else observations)

    def _keep_ends(self, observations: Any, info: dict) -> None:
        ends = self._terminated | self._truncated
        if self._resets_itself:
            begun_at = _begun_at(info)
            goes_on = ends & (begun_at == self._begun_at)
            self._begun_at = begun_at
        else:
            goes_on = ends & self._is_lost
        if goes_on.any():
            self._hold(goes_on, observations)
        if self._resets_itself and (ends & ~goes_on).any():
            anew = ends & ~goes_on
            self._hold(anew, observations)
            last = self._translate(info["final_obs"])
            for leaf in self._next_leaves:
                leaf.write_rows(anew, last)

    def _seed_for(self, rows: np.ndarray, seeds: dict[int, int | None]) -> np.ndarray:
        """Return one seed for each row that is reset, -1 where its generators go on."""
        given = [seeds.get(index) for index in np.flatnonzero(rows)]
        return np.array([-1 if seed is None else _int32(seed) for seed in given])

    def _note_reset(self, rows: np.ndarray, info: dict) -> None:
        self._lives[rows] = info["lives"][rows]
        self._is_lost[rows] = False
        self._begun_at[rows] = _begun_at(info)[rows]


def one_frame(space: spaces.Box) -> spaces.Box:
    """Return the space of the frame in a stack of one, ``[1, H, W]`` or ``[1, H, W, 3]``."""
    return spaces.Box(space.low[0], space.high[0], space.shape[1:], space.dtype)


def _begun_at(info: dict) -> np.ndarray:
    return info["frame_number"].astype(np.int64) - info["episode_frame_number"]


def _int32(seed: int) -> int:
    return seed if seed < MAX_SEED else child_seeds(seed, 1)[0]
