"""A dm_control task, or any dm_env environment, as a simulator. dm_control is imported on first use."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from torchrl.envs.simulators.base import Observation, Simulator, State
from torchrl.envs.simulators.capture import capture_attributes, restore_attributes
from torchrl.envs.simulators.dm_specs import action_space, as_observation, as_specified, observation_space
from torchrl.envs.simulators.foreign import is_pool
from torchrl.envs.simulators.opengl import choose_opengl, no_opengl
from torchrl.envs.simulators.physics import get_physics, set_physics
from torchrl.errors import EnvError, explain, nearest
from torchrl.extras import require
from torchrl.seeding import child_seeds

GENERATORS = (np.random.RandomState, np.random.Generator, random.Random)
DRAWING = (("quadruped", "escape"),)  # tasks that take OpenGL also where no picture is observed, to make a terrain
WRAPPED = ("_env", "_environment")  # where wrappers of dm_env keep what is below them


class DMControlSimulator(Simulator):
    """Present one dm_control task or dm_env environment as a simulator; observations keep their names and nesting.

    A scalar observation becomes an array of shape ``[1]``, a list a tuple, a named tuple a dict. Choices
    (``DiscreteArray``) stay choices, integers integers; text stays text, which :class:`LeaveOut` can leave out. Actions
    may be nested too; their bounds at ±1e10 or beyond are none. At the last step of an episode a discount of 0 means
    terminated, any other truncated, as by the suite's time limit; discounts between are not handed on.

    A task of the suite that draws its system when it is built, as ``lqr`` does its springs, draws the same in every
    row, process and run; ``task_kwargs={"random": 3}`` chooses another.

    >>> simulator = DMControlSimulator("cheetah", "run")  # doctest: +SKIP
    >>> simulator.step_limit(), simulator.action_space.shape  # doctest: +SKIP
    (1000, (6,))

    Args:
        domain_or_env: name of a domain of the suite such as ``"cheetah"``, or a ``dm_env.Environment``.
        task: name of a task of that domain such as ``"run"``; only with a domain.
        task_kwargs: arguments for the task; only with a domain.
        render_kwargs: arguments for ``physics.render``, for example ``{"height": 84, "width": 84, "camera_id": 0}``.

    Raises:
        EnvError: no such domain or task, a space that cannot be presented, or a task whose states take OpenGL
            (``quadruped``, ``escape``) where there is none.
        MissingExtraError: dm_control is not installed.
    """

    def __init__(
        self,
        domain_or_env: str | Any,
        task: str | None = None,
        *,
        task_kwargs: dict[str, Any] | None = None,
        render_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(domain_or_env, str):
            self.env = _load(domain_or_env, task, task_kwargs)
        else:
            self.env = _check_env(domain_or_env, task, task_kwargs)
        self.observation_space = observation_space(self.env.observation_spec())
        self._render_kwargs = render_kwargs or {}
        self._action_spec = self.env.action_spec()
        self.action_space = action_space(self._action_spec)
        reward_spec = getattr(self.env, "reward_spec", lambda: None)()
        if getattr(reward_spec, "shape", ()) not in ((), (1,)):
            got = f"{type(self.env).__name__} with rewards of shape {list(reward_spec.shape)}"
            hint = "Weigh them in a wrapper of the environment."
            raise EnvError(explain("DMControlSimulator", expected="one reward a step", got=got, hint=hint))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; ``seed`` seeds the task's random generator, without building the environment again.

        The generator is ``env.task.random`` or ``env.random_state`` where that is a ``RandomState``; else the
        environment's method ``seed`` is called with it, where there is one; else all generators that the environment,
        its wrappers and its task have as attributes are seeded, each differently.

        Raises:
            EnvError: there are ``options``, a seed for an environment that has neither such a method nor a generator,
                or a terrain to make and no OpenGL.
        """
        if options:
            raise self._no_options()
        if seed is not None:
            seeding = self._seeding()
            for seed_one, own in zip(seeding, [seed, *child_seeds(seed, len(seeding) - 1)], strict=True):
                seed_one(own)
        try:
            if getattr(getattr(getattr(self.env, "physics", None), "model", None), "nhfield", 0):
                choose_opengl()  # a terrain
            timestep = self.env.reset()
        except Exception as error:
            if "OpenGL" not in str(error):
                raise
            expected = "OpenGL, by which this task makes its terrain even where no picture is observed"
            raise no_opengl("DMControlSimulator.reset", error, expected) from error
        return as_observation(timestep.observation), {}

    def step(self, action: np.ndarray | int) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; see :meth:`Simulator.step`.

        Raises:
            EnvError: the episode has ended or none was started.
        """
        timestep = self.env.step(as_specified(self._action_spec, action))
        if timestep.first():
            raise EnvError(
                explain("DMControlSimulator.step", expected="reset() first", got="a step without an episode")
            )
        discount = timestep.discount
        if discount != 1.0 and not _is_discount(discount):
            expected = "a discount from 0 to 1"
            raise EnvError(explain("DMControlSimulator.step", expected=expected, got=repr(discount)))
        ended = bool(timestep.last())  # that of a world in jax is an array
        terminated = ended and bool(discount == 0)
        try:
            reward = float(timestep.reward)
        except (TypeError, ValueError):
            reward = timestep.reward  # an array of one entry, or something that the worker refuses
        return as_observation(timestep.observation), reward, terminated, ended and not terminated, {}

    def render(self) -> np.ndarray:
        """Return a picture of the present state by ``physics.render``; see :meth:`Simulator.render`.

        Raises:
            EnvError: MuJoCo finds no OpenGL, or there is no physics to draw.
        """
        physics = getattr(self.env, "physics", None)
        if physics is None:
            expected, got = "an environment with physics", type(self.env).__name__
            raise EnvError(explain("DMControlSimulator.render", expected=expected, got=got))
        try:
            choose_opengl()
            return physics.render(**self._render_kwargs)
        except Exception as error:
            if isinstance(error, (TypeError, ValueError)) or type(error).__module__.startswith("dm_control"):
                raise  # about the arguments
            raise no_opengl("DMControlSimulator.render", error) from error

    def require_ability(self, ability: str) -> None:
        """Raise an error for ``"options"``, always, and for ``"seeds"`` if the environment holds no generator."""
        if ability == "options":
            raise self._no_options()
        self._seeding()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def step_limit(self) -> float:
        """Return the steps that the environment's ``time_limit`` allows; see :meth:`Simulator.step_limit`."""
        return dm_step_limit(self.env)

    def get_state(self) -> State:
        """Return the attributes of the environment and its task, the random generator, and the physics.

        Raises:
            EnvError: one of them holds something that is neither plain data nor known to be constant.
        """
        state = {"simulator": "dm_control"}
        for name, part, held in _parts(self.env):
            attributes = capture_attributes(part, skip=held)
            state[name] = {"class": type(part).__name__, "attributes": attributes}
        physics = getattr(self.env, "physics", None)
        if physics is not None:
            state["physics"] = get_physics(physics.model.ptr, physics.data.ptr)
        return state

    def set_state(self, state: State) -> None:
        """Continue from a state that :meth:`get_state` of an environment built alike returned.

        Raises:
            EnvError: the state is of another environment or task.
        """
        parts = list(_parts(self.env))
        own = {name: type(part).__name__ for name, part, _ in parts}
        saved = {name: part["class"] for name, part in state.items() if isinstance(part, dict) and "class" in part}
        if saved != own:
            raise EnvError(explain("DMControlSimulator.set_state", expected=f"a state of {own}", got=f"one of {saved}"))
        if "physics" in state:
            set_physics(self.env.physics.model.ptr, self.env.physics.data.ptr, state["physics"])
        for name, part, _ in parts:
            restore_attributes(part, state[name]["attributes"])

    def _no_options(self) -> EnvError:
        expected, got = "simulators whose resets take options", f"{type(self.env).__name__}, a dm_env"
        return EnvError(explain("DMControlSimulator.reset", expected=expected, got=got))

    def _seeding(self) -> list[Callable[[int], Any]]:
        """List what is to be called with a seed: one function for each generator, or the environment's own method."""
        task = getattr(self.env, "task", None)
        named = getattr(task, "random", None) or getattr(self.env, "random_state", None)
        if isinstance(named, GENERATORS):
            return [partial(_seed, named)]
        if callable(own := getattr(self.env, "seed", None)):
            return [own]
        holders = [part for _, part, _ in _parts(self.env)] + ([] if task is None else [task])
        held = [value for holder in holders for value in getattr(holder, "__dict__", {}).values()]
        found = {id(value): value for value in held if isinstance(value, GENERATORS)}
        if not found:
            hint = (
                "Let it hold what it draws from, for example self._rng = np.random.RandomState(0), or give it a method "
                "seed(seed). For one that draws nothing, write env.random_state = np.random.RandomState(0)."
            )
            expected = "a method seed, or a random generator as env.task.random, env.random_state or another attribute"
            got = f"a {type(self.env).__name__} without one"
            raise EnvError(explain("DMControlSimulator, seed", expected=expected, got=got, hint=hint))
        return [partial(_seed, generator) for generator in found.values()]


def _is_discount(value: Any) -> bool:
    try:
        return not isinstance(value, str) and 0 <= float(value) <= 1
    except (TypeError, ValueError):
        return False


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    else:
        generator.seed(seed)


def _parts(env: Any) -> Iterator[tuple[str, Any, set[str]]]:
    """Yield the environment's wrappers from the outside in, the environment and its task, to save their attributes.

    Yields:
        A name, the object, and the names of attributes that are saved otherwise.
    """
    *around, (env, _) = _layers(env)
    for depth, (wrapper, holds) in enumerate(around):
        yield f"wrapper_{depth}", wrapper, {holds}
    yield "environment", env, {"_task", "_physics"}
    if hasattr(env, "_task"):
        yield "task", env._task, set()


def _layers(env: Any) -> list[tuple[Any, str]]:
    """List the wrappers from the outside in, then the environment; each with the attribute that holds the next one."""
    layers = []
    while held := [name for name in WRAPPED if name in getattr(env, "__dict__", {})]:
        layers.append((env, held[0]))
        env = getattr(env, held[0])
    return [*layers, (env, "")]


def dm_step_limit(env: Any) -> float:
    """Return the steps after which a dm_control environment's own limit ends every episode; infinity if it has none."""
    own = vars(_layers(env)[-1][0])
    if "_step_limit" in own:
        return math.ceil(own["_step_limit"]) if math.isfinite(own["_step_limit"]) else math.inf
    seconds = own.get("_time_limit", math.inf)
    return math.ceil(seconds / env.control_timestep()) if math.isfinite(seconds) else math.inf


def _load(domain: str, task: str | None, task_kwargs: dict[str, Any] | None) -> Any:
    with _silence():
        try:
            suite = require("dm_control.suite", extra="dm_control", purpose="DMControlSimulator")
        except (AttributeError, RuntimeError) as error:  # MUJOCO_GL names a library that is not there
            raise no_opengl("DMControlSimulator", error) from error
        tasks = suite.TASKS_BY_DOMAIN
        if domain not in tasks:
            raise EnvError(_unknown("a domain of the suite", domain, tasks))
        if task not in tasks[domain]:
            raise EnvError(_unknown(f'a task of "{domain}"', task, tasks[domain]))
        if (domain, task) in DRAWING:
            choose_opengl()
        try:
            return _build(suite, domain, task, task_kwargs or {})
        except Exception as error:
            if not task_kwargs:
                raise
            is_unknown = isinstance(error, TypeError) and "unexpected keyword argument" in str(error)
            what = f"{sorted(task_kwargs)}: " if is_unknown else f"{task_kwargs}: {type(error).__name__}: "
            expected, got = f'{"arguments" if is_unknown else "values"} that "{task}" takes', f"{what}{error}"
            raise EnvError(explain("DMControlSimulator, task_kwargs", expected=expected, got=got)) from error


def _build(suite: Any, domain: str, task: str, task_kwargs: dict[str, Any]) -> Any:
    """Build a task of the suite; what it draws meanwhile, as ``lqr`` its springs, is always the same."""
    if "random" in task_kwargs:
        return suite.load(domain, task, task_kwargs=task_kwargs)
    generator = np.random.RandomState(0)
    env = suite.load(domain, task, task_kwargs={**task_kwargs, "random": generator})
    generator.seed()  # episodes are drawn anew in every row
    return env


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress, in a ``with`` block, two warnings of dm_control that its users cannot avoid."""
    logger, deprecation = logging.getLogger("absl"), _Deprecation()
    logger.addFilter(deprecation)
    try:
        with warnings.catch_warnings():
            # Without a display, glfw says on import that it cannot open windows, which are not needed.
            warnings.filterwarnings("ignore", message=r"\(65550\)")
            yield
    finally:
        logger.removeFilter(deprecation)


class _Deprecation(logging.Filter):
    """Suppress MuJoCo's log message about a deprecated attribute in the suite's own model files."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "'settotalmass' is deprecated" not in record.getMessage()


def _unknown(what: str, name: str | None, names: Mapping | tuple) -> str:
    near = nearest(name, names) if name else None
    hint = f'Did you mean "{near}"?' if near else f"Known: {', '.join(names)}."
    return explain("DMControlSimulator", expected=what, got=repr(name), hint=hint)


def _check_env(env: Any, task: str | None, task_kwargs: dict[str, Any] | None) -> Any:
    if task is not None or task_kwargs:
        expected = "task and task_kwargs only with the name of a domain"
        raise EnvError(explain("DMControlSimulator", expected=expected, got=f"them with a {type(env).__name__}"))
    lacking = [name for name in ("reset", "step", "action_spec", "observation_spec") if not hasattr(env, name)]
    if lacking:
        got = f"{type(env).__name__} without {', '.join(lacking)}"
        raise EnvError(explain("DMControlSimulator", expected="a domain or a dm_env.Environment", got=got))
    if isinstance(env, type) or is_pool(env):
        hint = "An EnvPool is a batch already: EnvPoolEnv(name, num_envs) builds it."
        hint = f"Build one: DMControlEnv({env.__name__}(...))." if isinstance(env, type) else hint
        got = f"the class {env.__name__}" if isinstance(env, type) else f"a {type(env).__name__}"
        raise EnvError(explain("DMControlSimulator", expected="one dm_env.Environment", got=got, hint=hint))
    return env
