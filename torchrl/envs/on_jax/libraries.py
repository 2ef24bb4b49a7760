"""Worlds of jax libraries as :class:`JaxWorld`: gymnax, brax, MuJoCo Playground, jumanji, craftax and pgx.

Each is called below its auto-reset, so that the observation of a step is the true successor. A limit of steps is taken
out of what a library calls ``done``, and counted by :class:`JaxEnv`: it truncates, and does not terminate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from torchrl.envs.on_jax.programs import import_jax
from torchrl.envs.on_jax.world import JaxWorld
from torchrl.errors import ConfigError, EnvError, explain, nearest
from torchrl.extras import require

NEVER = np.iinfo(np.int32).max


def jax_world(library: str, name: str, *, max_episode_steps: int | None = None, **options: Any) -> JaxWorld:
    """Build a world of a jax library by its name, for :class:`JaxEnv`.

    >>> env = JaxEnv(jax_world("brax", "ant", backend="spring"), num_envs=256)  # doctest: +SKIP

    What is special: ``gymnax`` and ``craftax`` take fields of their parameters as options, too, and their limit of
    steps truncates; ``brax`` and ``playground`` take actions between -1 and 1, and episodes end after the 1,000 steps
    that their training wrappers have as default; a game of ``pgx`` for several is played as player 0 against others
    that draw legal moves.

    Args:
        library: ``"gymnax"``, ``"brax"``, ``"playground"``, ``"jumanji"``, ``"craftax"`` or ``"pgx"``.
        name: as the library registers it, such as ``"Breakout-MinAtar"``.
        max_episode_steps: steps after which an episode is truncated; None takes the library's.
        options: arguments of the library's own function that builds it.

    Raises:
        EnvError: the library, or a world of that name, does not exist, or its actions are no arrays.
        ConfigError: an option does not exist.
        MissingExtraError: the library is not installed.
    """
    if library not in LIBRARIES:
        raise EnvError(explain("jax_world", expected=f"one of {', '.join(LIBRARIES)}", got=repr(library)))
    world = LIBRARIES[library](name, options, max_episode_steps)
    return world if max_episode_steps is None else replace(world, max_episode_steps=max_episode_steps)


def names_of(library: str) -> list[str]:
    """List the worlds of a jax library.

    >>> names_of("craftax")[0]  # doctest: +SKIP
    'Craftax-Symbolic-v1'

    Raises:
        MissingExtraError: the library is not installed.
    """
    if library == "brax":
        return sorted(require("brax.envs", extra="jax", purpose="jax_world")._envs)
    if library == "craftax":
        require("craftax.craftax_env", extra="jax", purpose="jax_world")
        return [f"Craftax-{kind}-v1" for kind in _CRAFTAX]
    if library == "gymnax":
        return list(_library("gymnax").registered_envs)
    if library == "jumanji":
        return list(_library("jumanji").registered_environments())
    if library == "pgx":
        return list(_library("pgx").available_envs())
    return list(require("mujoco_playground", extra="jax", purpose="jax_world").registry.ALL_ENVS)


def _gymnax(name: str, options: dict, limit: int | None) -> JaxWorld:
    gymnax = _library("gymnax")
    _require_known("gymnax", name, names_of("gymnax"))
    known = {field.name for field in fields(gymnax.make(name)[1])} if options else set()
    env, params = gymnax.make(name, **{key: value for key, value in options.items() if key not in known})
    params = params.replace(**{key: value for key, value in options.items() if key in known})
    return _with_params(env, params, "max_steps_in_episode", name, limit)


def _craftax(name: str, options: dict, limit: int | None) -> JaxWorld:
    makers = require("craftax.craftax_env", extra="jax", purpose="jax_world")
    _require_known("craftax", name, names_of("craftax"))
    env = makers.make_craftax_env_from_name(name, auto_reset=False)
    params = env.default_params
    if unknown := options.keys() - {field.name for field in fields(params)}:
        raise ConfigError(explain("craftax", expected=f"fields of {params}", got=sorted(unknown)))
    return _with_params(env, params.replace(**options), "max_timesteps", name, limit)


def _with_params(env: Any, params: Any, limit_name: str, name: str, limit: int | None) -> JaxWorld:
    """Wrap an env of the form that gymnax gave to several: functions of a key, a state and parameters."""
    if limit is not None:
        params = params.replace(**{limit_name: limit})
    endless = params.replace(**{limit_name: NEVER})

    def reset(key: Any) -> tuple:
        observation, state = env.reset_env(key, params)
        return state, observation

    def step(key: Any, state: Any, action: Any) -> tuple:
        observation, following, reward, _, _ = env.step_env(key, state, action, params)
        # The same step again, of which the compiler keeps what differs: whether it is over without the limit.
        terminated = env.step_env(key, state, action, endless)[3]
        return following, observation, reward, terminated, False

    space = _gymnax_space(name, env.action_space(params))
    return JaxWorld(reset, step, space, max_episode_steps=int(getattr(params, limit_name)), task=name)


def _gymnax_space(name: str, space: Any) -> spaces.Space:
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    if hasattr(space, "low"):
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=np.float32)
    raise EnvError(explain(name, expected="actions that are one choice or a Box", got=space))


def _brax(name: str, options: dict, limit: int | None) -> JaxWorld:
    envs = require("brax.envs", extra="jax", purpose="jax_world")
    try:
        env = envs.get_environment(name, **options)
    except KeyError as error:
        raise EnvError(explain("brax", expected="the name of one of its environments", got=repr(name))) from error
    return _physics(env, name, 1000)


def _playground(name: str, options: dict, limit: int | None) -> JaxWorld:
    registry = require("mujoco_playground", extra="jax", purpose="jax_world").registry
    _require_known("playground", name, names_of("playground"))
    config = registry.get_default_config(name)
    if "impl" in config and import_jax().default_backend() == "cpu":
        options = {"impl": "jax", **options}  # the default, warp, takes a GPU
    env = registry.load(name, config_overrides=options)
    return _physics(env, name, int(config.episode_length))


def _physics(env: Any, name: str, limit: int) -> JaxWorld:
    """Wrap an env of the form that brax gave to several: one state that holds observation, reward and done."""

    def reset(key: Any) -> tuple:
        state = env.reset(key)
        return state, state.obs

    def step(key: Any, state: Any, action: Any) -> tuple:
        state = env.step(state, action)
        return state, state.obs, state.reward, state.done > 0.5, False

    return JaxWorld(reset, step, spaces.Box(-1.0, 1.0, (env.action_size,)), max_episode_steps=limit, task=name)


def _jumanji(name: str, options: dict, limit: int | None) -> JaxWorld:
    jumanji = _library("jumanji")
    _require_known("jumanji", name, names_of("jumanji"))
    env = jumanji.make(name, **options)

    def reset(key: Any) -> tuple:
        state, timestep = env.reset(key)
        return state, _plain(timestep.observation)

    def step(key: Any, state: Any, action: Any) -> tuple:
        state, timestep = env.step(state, action)
        over, goes_on = timestep.last(), timestep.discount > 0
        return state, _plain(timestep.observation), timestep.reward.sum(), over & ~goes_on.any(), over & goes_on.any()

    space = _jumanji_space(name, env.action_spec)
    observation = import_jax().eval_shape(reset, import_jax().random.PRNGKey(0))[1]
    mask = observation.get("action_mask") if isinstance(observation, dict) else None
    is_mask = isinstance(space, spaces.Discrete) and getattr(mask, "shape", None) == (space.n,)
    return JaxWorld(reset, step, space, action_mask_key="action_mask" if is_mask else None, task=name)


def _jumanji_space(name: str, spec: Any) -> spaces.Space:
    if getattr(spec, "minimum", None) is None:
        raise EnvError(explain(name, expected="an action_spec that is one bounded array", got=spec))
    if isinstance(getattr(spec, "num_values", None), int):
        return spaces.Discrete(spec.num_values)
    low, high = (np.broadcast_to(np.asarray(bound), spec.shape) for bound in (spec.minimum, spec.maximum))
    if np.issubdtype(spec.dtype, np.integer) and not low.any():
        return spaces.Discrete(int(high) + 1) if low.ndim == 0 else spaces.MultiDiscrete(high.astype(np.int64) + 1)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))


def _pgx(name: str, options: dict, limit: int | None) -> JaxWorld:
    pgx, jax = _library("pgx"), import_jax()
    _require_known("pgx", name, names_of("pgx"))
    env = pgx.make(name, **options)
    jnp = jax.numpy

    def others_play(key: Any, state: Any) -> Any:
        """Let the others draw legal moves until it is player 0's turn, adding up the rewards on the way."""

        def waits(carry: tuple) -> Any:
            state = carry[1]
            return (state.current_player != 0) & ~(state.terminated | state.truncated)

        def move(carry: tuple) -> tuple:
            key, state, reward = carry
            key, drawn, used = jax.random.split(key, 3)
            action = jax.random.categorical(drawn, jnp.log(state.legal_action_mask.astype(jnp.float32)))
            state = env.step(state, action, used)
            return key, state, reward + state.rewards[0]

        _, state, reward = jax.lax.while_loop(waits, move, (key, state, state.rewards[0]))
        return state, reward

    def seen(state: Any) -> dict:
        return {"observation": state.observation, "action_mask": state.legal_action_mask}

    def reset(key: Any) -> tuple:
        start, others = jax.random.split(key)
        state, _ = others_play(others, env.init(start))
        return state, seen(state)

    def step(key: Any, state: Any, action: Any) -> tuple:
        own, others = jax.random.split(key)
        state, reward = others_play(others, env.step(state, action, own))
        return state, seen(state), reward, state.terminated, state.truncated

    return JaxWorld(reset, step, spaces.Discrete(env.num_actions), action_mask_key="action_mask", task=name)


LIBRARIES: dict[str, Callable[[str, dict, int | None], JaxWorld]] = {
    "gymnax": _gymnax,
    "brax": _brax,
    "playground": _playground,
    "jumanji": _jumanji,
    "craftax": _craftax,
    "pgx": _pgx,
}
_CRAFTAX = ("Symbolic", "Pixels", "Classic-Symbolic", "Classic-Pixels")


def _library(name: str) -> Any:
    return require(name, extra="jax", purpose="jax_world")


def _require_known(library: str, name: str, known: Iterable[str]) -> None:
    known = sorted(known)
    if name not in known:
        near = nearest(name, known)
        hint = f'Did you mean "{near}"?' if near else ""
        raise EnvError(explain(library, expected=f"one of {', '.join(known)}", got=repr(name), hint=hint))


def _plain(observation: Any) -> Any:
    """Turn named tuples and dataclasses of observations into dicts, at every level."""
    if hasattr(observation, "_asdict"):
        observation = observation._asdict()
    elif is_dataclass(observation):
        observation = {field.name: getattr(observation, field.name) for field in fields(observation)}
    if isinstance(observation, dict):
        return {key: _plain(part) for key, part in observation.items()}
    return observation
