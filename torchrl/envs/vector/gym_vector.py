"""An Env around a gymnasium vector environment, of any autoreset mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import vector as wrappers

from torchrl.envs.driving import innermost
from torchrl.envs.simulators.foreign import foreign_hint
from torchrl.envs.simulators.learning import learning_wrapper
from torchrl.envs.simulators.leaving_out import Name, without_entries
from torchrl.envs.simulators.limits import gym_step_limit
from torchrl.envs.simulators.offsets import count_from_zero
from torchrl.envs.simulators.tasks import task_of
from torchrl.envs.vector.ale_worker import ALEWorker
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.building import require_free_names, require_one_reward, shared_options
from torchrl.envs.vector.gym_vector_worker import (
    VectorWorker,
    cannot_restart,
    is_of_ale,
    knows_masks,
    layers_of,
    own_resets,
)
from torchrl.envs.vector.info_entries import InfoEntries
from torchrl.errors import ConfigError, EnvError, explain


class GymVectorEnv(WorkerEnv):
    """Wrap a ``gymnasium.vector.VectorEnv`` as an env ``[num_envs]`` with the same transitions as a :class:`SerialEnv`.

    In every autoreset mode ``next`` holds the true successor observations, and no transition is a reset:

    - ``SAME_STEP``: the last observation of an episode is taken from ``info["final_obs"]``; the observation in its
      place begins the next episode. A simulator that hands out the same array at every step overwrites its last
      one: there use another mode.
    - ``NEXT_STEP`` and ``DISABLED``: rows that ended are restarted at once by ``reset(options={"reset_mask": rows})``,
      which gymnasium's ``SyncVectorEnv`` and ``AsyncVectorEnv`` and ale-py's ``AtariVectorEnv`` know.

    Rows get the same seeds as in a :class:`SerialEnv`; a vector environment that is neither of these two, and has one
    generator for all rows, is seeded by one number derived from the seeds. Put wrappers such as frame skip and time
    limits around the single environments. The state can be saved where a ``SyncVectorEnv`` without wrappers around it
    shows its simulators, and no row waits. Rows that wait (:meth:`Env.freeze_`) are stepped unseen, and begin a new
    episode: without a seed, another one than if they had not waited.

    Of ale-py's ``AtariVectorEnv`` rewards are clipped unless it is built with ``reward_clipping=False``: returns, too.
    With ``life_loss_info=True`` the game goes on after a lost life in mode ``SAME_STEP``; in ``NEXT_STEP`` a reset
    begins another, as with ``episodic_life=True``. :class:`ALEEnv` has raw returns and lives in one game.

    Wrappers of ``gymnasium.wrappers.vector`` may be around it, also those that sum up rewards row by row. Refused are
    ``NormalizeObservation``, which allows no resets of single rows; wrappers that convert arrays to another library's;
    and, in ``NEXT_STEP`` and ``DISABLED``, a wrapper outside gymnasium with its own ``reset``, which may change rows
    that do not restart.

    >>> import gymnasium
    >>> env = GymVectorEnv(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
    >>> env.rollout(30)["next", "episode_length"].shape
    torch.Size([2, 30, 1])

    Args:
        vector_env: the vector environment; closing the env closes it.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        info_keys: entries of ``info`` to be observed, each with its space, for example
            ``{"action_mask": gymnasium.spaces.MultiBinary(6)}``; an observation that is no dict is then called
            ``observation``.
        info_defaults: what is observed where a row lacks an entry of ``info_keys``, by name.

    Raises:
        ConfigError: there is no such entry, or a name is taken.
        EnvError: ``vector_env`` does not tell its autoreset mode, cannot restart single rows where that is needed,
            steps only a part of its rows at a time, has a refused wrapper, or is no vector environment.
    """

    def __init__(
        self,
        vector_env: VectorEnv,
        *,
        leave_out: Sequence[Name] = (),
        info_keys: Mapping[str, Space] | None = None,
        info_defaults: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(vector_env, VectorEnv):
            hint = "gymnasium.make_vec(id, num_envs=n) makes one; GymEnv(id, num_envs=n) needs none."
            hint = foreign_hint(vector_env) or hint
            got = type(vector_env).__name__
            raise EnvError(explain("GymVectorEnv", expected="a gymnasium.vector.VectorEnv", got=got, hint=hint))
        mode = _mode(vector_env)
        _require_all_rows(vector_env)
        _refuse_wrappers(vector_env)
        _refuse_infos(vector_env, mode, info_keys, info_defaults)
        _require_restarts(vector_env, mode)
        for simulator in getattr(vector_env.unwrapped, "envs", ()):
            require_one_reward("GymVectorEnv", simulator)
        left, _ = without_entries("GymVectorEnv, leave_out", vector_env.single_observation_space, leave_out)
        observation_space, _, _ = count_from_zero(left)
        infos = InfoEntries(observation_space, info_keys, defaults=info_defaults) if info_keys else None
        observation_space = observation_space if infos is None else infos.space
        action_space, _, _ = count_from_zero(vector_env.single_action_space)
        require_free_names("GymVectorEnv", observation_space)
        _refuse_choices_of_spaces(action_space)
        super().__init__(
            partial(ALEWorker if is_of_ale(vector_env) else VectorWorker, vector_env, mode, leave_out, infos=infos),
            observation_space=observation_space,
            action_space=action_space,
            batch_size=[vector_env.num_envs],
        )
        self.vector_env = vector_env

    @property
    def restarts_rows(self) -> bool:
        """Whether the vector environment restarts single rows; see :attr:`Env.restarts_rows`."""
        return self._worker.restarts_rows

    @property
    def can_freeze(self) -> bool:
        """Whether rows can wait: where single rows can be restarted; see :attr:`Env.can_freeze`."""
        return self._worker.can_freeze

    def require_options(self, options: list[dict]) -> None:
        """Refuse reset options that differ from row to row: one call restarts all simulators."""
        self._worker.require_ability("options")
        shared_options("GymVectorEnv", options)

    @property
    def step_limit(self) -> float:
        """The least step limit of a ``SyncVectorEnv``'s simulators; else that registered with the id, or infinity."""
        inner = self.vector_env.unwrapped
        if isinstance(inner, SyncVectorEnv):
            return min(map(gym_step_limit, inner.envs))
        limit = None if inner.spec is None else inner.spec.max_episode_steps
        return math.inf if limit is None else limit

    @property
    def task(self) -> str:
        """The id of a ``SyncVectorEnv``'s simulators, or of another vector environment; see :class:`Env`."""
        inner = self.vector_env.unwrapped
        return task_of(inner.envs if isinstance(inner, SyncVectorEnv) else [inner])

    @property
    def learning_wrapper(self) -> str:
        """Class name of a wrapper that normalises by statistics it still updates; empty without one.

        Wrappers of single simulators are found only in a ``SyncVectorEnv``; see :attr:`Env.learning_wrapper`.
        """
        for layer in layers_of(self.vector_env):
            if isinstance(layer, wrappers.NormalizeReward) and layer.update_running_mean:
                return type(layer).__name__
        inner = self.vector_env.unwrapped
        return learning_wrapper(inner.envs) if isinstance(inner, SyncVectorEnv) else ""

    def driven_things(self) -> list:
        """List what stepping this env steps: itself, the vector environment and, if visible, its simulators.

        See :meth:`Env.driven_things`.
        """
        inner = self.vector_env.unwrapped
        return [self, inner, *(map(innermost, inner.envs) if isinstance(inner, SyncVectorEnv) else ())]


def _mode(vector_env: VectorEnv) -> AutoresetMode:
    found = vector_env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(found)
    except ValueError as error:
        expected = "metadata['autoreset_mode'] to be a gymnasium.vector.AutoresetMode"
        hint = (
            "Write vector_env.metadata = {**vector_env.metadata, 'autoreset_mode': mode}, where mode is "
            "AutoresetMode.SAME_STEP if the step that ends an episode returns the first observation of the next and "
            "the last one in info['final_obs'], NEXT_STEP if the step after it does, DISABLED if none does."
        )
        who = f"GymVectorEnv({type(vector_env.unwrapped).__name__})"
        raise EnvError(explain(who, expected=expected, got=repr(found), hint=hint)) from error


def _require_all_rows(vector_env: VectorEnv) -> None:
    """Refuse a vector environment that returns only some rows at each step, as an asynchronous EnvPool does."""
    num_rows = getattr(vector_env.unwrapped, "batch_size", None)
    if isinstance(num_rows, int) and num_rows < vector_env.num_envs:
        who = f"GymVectorEnv({type(vector_env.unwrapped).__name__})"
        expected = f"all {vector_env.num_envs} rows at every step"
        hint = "Build it with batch_size equal to num_envs."
        raise EnvError(explain(who, expected=expected, got=f"batch_size {num_rows}", hint=hint))


def _refuse_wrappers(vector_env: VectorEnv) -> None:
    """Refuse wrappers that would give wrong transitions in every autoreset mode."""
    for layer in layers_of(vector_env):
        who = f"GymVectorEnv({type(layer).__name__})"
        if isinstance(layer, wrappers.NormalizeObservation):
            got = "one that allows no resets of single rows"
            hint = "Leave it out and write TransformedEnv(GymVectorEnv(vector_env), VecNorm())."
            raise EnvError(explain(who, expected="wrappers that go on row by row", got=got, hint=hint))
        if isinstance(layer, wrappers.DictInfoToList) and is_of_ale(vector_env):
            hint = "Leave it out: nobody reads its lists here."
            raise EnvError(explain(who, expected="infos as ale-py gives them", got="lists of them", hint=hint))
        target = getattr(layer, "_target_xp", np).__name__  # of ArrayConversion and its kin
        if target.removeprefix("array_api_compat.") != "numpy":
            hint = "Leave the wrapper out: GymVectorEnv gives tensors of torch."
            raise EnvError(explain(who, expected="arrays of numpy", got=f"those of {target}", hint=hint))


def _refuse_infos(
    vector_env: VectorEnv,
    mode: AutoresetMode,
    info_keys: Mapping[str, Space] | None,
    info_defaults: Mapping[str, Any] | None,
) -> None:
    """Refuse entries of ``info`` whose last values, those of an episode's end, the vector environment does not give."""
    if info_defaults and not info_keys:
        raise ConfigError(explain("GymVectorEnv", expected="info_keys with info_defaults", got="none"))
    if info_keys and any(isinstance(layer, wrappers.DictInfoToList) for layer in layers_of(vector_env)):
        hint = "Leave DictInfoToList out."
        raise EnvError(explain("GymVectorEnv, info_keys", expected="infos in arrays", got="lists", hint=hint))
    if info_keys and is_of_ale(vector_env) and mode is AutoresetMode.SAME_STEP:
        expected = "the infos of an episode's last step"
        got = "only those of the first one of the next, in mode SAME_STEP of ale-py"
        hint = "Build it with autoreset_mode NEXT_STEP, ale-py's default."
        raise EnvError(explain("GymVectorEnv, info_keys", expected=expected, got=got, hint=hint))


def _require_restarts(vector_env: VectorEnv, mode: AutoresetMode) -> None:
    """Refuse a vector environment whose rows cannot be restarted one by one where that is needed."""
    if mode is AutoresetMode.SAME_STEP:
        return
    own = own_resets(vector_env)
    if own:
        expected = "wrappers whose reset leaves alone the rows that go on"
        hint = (
            "If it keeps nothing of the rows, derive it from VectorObservationWrapper, VectorActionWrapper or "
            "VectorRewardWrapper, and write no reset; else put it around the single environments, or build it with "
            "autoreset_mode SAME_STEP."
        )
        got = f"{', '.join(own)} with a reset of its own, in {mode}"
        raise EnvError(explain("GymVectorEnv", expected=expected, got=got, hint=hint))
    if mode is AutoresetMode.DISABLED:
        return
    if not knows_masks(vector_env):  # it would turn a step after an ending into a reset, whatever comes before it
        raise cannot_restart(vector_env)
    inner = vector_env.unwrapped
    if isinstance(inner, AsyncVectorEnv) and not inner.shared_memory:
        expected = "shared_memory=True in autoreset mode NEXT_STEP"  # else its workers forget that they were reset
        hint = "Or build it with autoreset_mode SAME_STEP."
        raise EnvError(explain("GymVectorEnv(AsyncVectorEnv)", expected=expected, got="False", hint=hint))


def _refuse_choices_of_spaces(space: Space) -> None:
    if isinstance(space, spaces.OneOf):
        hint = "Use GymEnv or SerialEnv, which step the simulators one by one."
        raise EnvError(explain("GymVectorEnv", expected="actions that can be batched", got=space, hint=hint))
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for part in space.values() if isinstance(space, spaces.Dict) else space.spaces:
            _refuse_choices_of_spaces(part)
