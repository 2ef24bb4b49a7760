"""``check_env``: run an environment with random actions to find where it breaks its specs or :class:`Env`'s rules."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import torch
from gymnasium import Space, spaces
from tensordict import TensorDict
from torch import nn

from torchrl.envs.base import Env
from torchrl.envs.stepping import NOT_CARRIED
from torchrl.errors import EnvError, KeyMissing, explain
from torchrl.keys import key_name

ROOT_KEYS = ("is_init",)
FLAGS = ("terminated", "truncated", "done")
STATISTICS = ("episode_return", "episode_length")
SPECS = ("observation_spec", "action_spec", "reward_spec")


def check_env(env: Env, *, num_steps: int = 200, seed: int = 0, repeats: bool = True) -> None:
    """Act at random, twice from one seed, and raise an error, or warn, where the env breaks its specs or rules.

    Checks keys (``is_init``, ``episode_return`` and ``episode_length`` among them), shapes, dtypes and devices; that
    observations and rewards lie in their specs and are finite, and that there are no other entries; that ``done`` is
    ``terminated or truncated``; that the next root has the observations of ``next``, and those of a new episode where a
    row ended; that ``next`` has the true last observation there, not the one after the reset (where every episode
    starts alike this is a warning); that ``is_init`` is true exactly on first steps; that a root is not overwritten
    before it was acted on; that specs do not change; that a simulator in this process returns no observation that its
    space does not declare; and that a seed repeats the whole run. Where every ending is both ``terminated`` and
    ``truncated``, a warning says that the simulators may reset themselves.

    >>> check_env(env, num_steps=50)  # says nothing: all is well
    >>> env.reward_spec = env.reward_spec[0]
    >>> check_env(env)
    Traceback (most recent call last):
    torchrl.errors.SpecError: the reward after a step: ...

    Args:
        env: any environment, transformed or not. It is seeded, reset and stepped.
        num_steps: how many vector steps to look at; long enough to see an episode end.
        seed: for both runs.
        repeats: whether a seed must repeat the run. False where it cannot, as with Box2D
            (BipedalWalker), whose contacts come in another order the second time.

    Raises:
        EnvError: ``env`` is no :class:`Env`, or breaks a rule; of several mistakes the first found is raised.
        KeyMissing: an entry is missing.
        SpecError: an observation or a reward does not lie in its spec.
        NonFiniteError: a transform refuses NaN or infinity.
    """
    if not isinstance(env, Env):
        hint = "Wrap a gymnasium environment in GymEnv(env), another simulator in SerialEnv."
        raise EnvError(explain("check_env", expected="an Env", got=type(env).__name__, hint=hint))
    _require_declared(env, seed)
    specs = {name: getattr(env, name).clone() for name in SPECS}
    first, starts = _run(env, num_steps, seed)
    second, _ = _run(env, num_steps, seed)
    for name, spec in specs.items():
        if getattr(env, name) != spec:
            hint = "Other parts read the specs once: set them in the constructor and leave them."
            raise EnvError(
                explain(f"check_env, {name}", expected=f"{spec} for good", got=getattr(env, name), hint=hint)
            )
    if repeats:
        _require_repeated(env, first, second, seed)
    _check_last_observations(env, first, starts)
    _check_flags(first)


def _require_declared(env: Env, seed: int) -> None:
    """Refuse a simulator whose observations have entries that its space lacks: they would be dropped silently.

    Resets and checks the first simulator of this process only; the caller must reset it again.
    """
    try:
        simulators = env.simulators
    except AttributeError:  # processes, or simulators that are a batch
        return
    simulator = simulators[0]
    results = [simulator.reset(seed=seed)]
    if env.action_mask_key is None:  # else a step would have to be a legal one
        actions = copy.deepcopy(simulator.action_space)
        actions.seed(seed)
        results.append(simulator.step(actions.sample()))
    for result in results:
        if not isinstance(result, tuple) or len(result) not in (2, 5):
            return  # of another interface, as the first run will say
        surplus = _undeclared(simulator.observation_space, result[0])
        if not surplus:
            continue
        hint = "Declare them in its observation_space, or leave them out of what reset and step return."
        expected = f"observations with the entries of {simulator.observation_space}"
        raise EnvError(explain("check_env", expected=expected, got=f"{surplus} beside them", hint=hint))


def _undeclared(space: Space, observation: object, path: str = "") -> list[str]:
    if isinstance(space, spaces.Dict) and isinstance(observation, Mapping):
        surplus = [f"{path}{key}" for key in observation if key not in space.spaces]
        parts = [(key, part) for key, part in space.spaces.items() if key in observation]
    elif isinstance(space, spaces.Tuple) and isinstance(observation, (tuple, list)):
        surplus = [f"{path}{at}" for at in range(len(space.spaces), len(observation))]
        parts = list(enumerate(space.spaces))[: len(observation)]
    else:
        return []
    return surplus + [name for key, part in parts for name in _undeclared(part, observation[key], f"{path}{key}/")]


def _check_flags(steps: TensorDict) -> None:
    """Warn where every ending is both terminated and truncated, and say what may cause it."""
    terminated, truncated = steps["next", "terminated"], steps["next", "truncated"]
    num = int((terminated | truncated).sum())
    if num < 2 or int((terminated & truncated).sum()) < num:
        return
    message = explain(
        "check_env",
        expected="endings that are terminated, or truncated",
        got=f"both at all {num}",
        hint="A simulator that resets itself, or knows only 'done', often reports so: nothing is bootstrapped then, "
        "not even where time was up, and what is under 'next' may belong to the next episode.",
    )
    warnings.warn(message, stacklevel=3)


def _require_repeated(env: Env, first: TensorDict, second: TensorDict, seed: int) -> None:
    """Raise an error if two runs from one seed differ; the message names the first difference and likely reasons."""
    time = len(env.batch_size)
    found: list[tuple[int, bool, str]] = []
    for key, value in first.items(include_nested=True, leaves_only=True):
        differs = (value != second.get(key)) & ~((value != value) & (second.get(key) != second.get(key)))
        steps = differs.movedim(time, 0).reshape(value.shape[time], -1).any(-1).nonzero()
        if len(steps):
            is_later = isinstance(key, tuple) and key[0] == "next"
            found.append((int(steps[0]), is_later, key_name(key)))
    if not found:
        return
    step, is_later, name = min(found)
    if not step and not is_later:
        hint = "Draw every random number, that of the start too, from the generator that reset(seed=...) seeds."
    else:
        hint = (
            "The runs start alike: the simulator keeps something over a reset, or draws from another generator than "
            "the one that reset(seed=...) seeds. If its physics are like that, as Box2D's (BipedalWalker), it is no "
            "mistake, but no seed repeats a run: check_env(env, repeats=False) looks at all the rest."
        )
    if isinstance(getattr(env, "transform", None), nn.Module) and any(True for _ in env.transform.buffers()):
        hint += " Freeze running statistics of transforms first (env.transform.eval())."
    got = f"another {name!r} from step {step} on"
    expected = f"the same run twice after set_seed({seed})"
    raise EnvError(explain("check_env", expected=expected, got=got, hint=hint))


def _run(env: Env, num_steps: int, seed: int) -> tuple[TensorDict, TensorDict]:
    """Run the env with random actions; return its transitions and the roots after them, ``[*B, T]`` each."""
    env.set_seed(seed)
    root = env.reset()
    _require_keys(root, [*env.observation_spec.keys(), *ROOT_KEYS, *STATISTICS], "the root after reset")
    if not bool(root["is_init"].all()):
        raise EnvError(
            explain("check_env", expected="is_init true on every row after reset", got=root["is_init"].tolist())
        )
    _require_nothing_else(env, root, ("is_init", *STATISTICS), "the root after reset")
    env.observation_spec.assert_contains(root.select(*env.observation_spec.keys()), "the observation after reset")
    steps, starts = [], []
    for _ in range(num_steps):
        acted = env.act_at_random(root)
        seen = acted.clone()
        transition, root = _step(env, acted)  # the root itself, no copy, is acted on next
        _check_transition(env, transition)
        _check_root_kept(seen, transition)
        _check_carry(transition, root)
        steps.append(transition.clone())
        starts.append(root.select(*env.observation_spec.keys()).clone())
    dim = len(env.batch_size)
    return torch.stack(steps, dim=dim), torch.stack(starts, dim=dim)


def _step(env: Env, acted: TensorDict) -> tuple[TensorDict, TensorDict]:
    try:
        return env.step_and_reset(acted)
    except KeyError as error:
        error.add_note(f"check_env acts under 'action'; the environment was given {sorted(map(str, acted.keys()))}.")
        raise


def _require_nothing_else(env: Env, tensordict: TensorDict, own: tuple, where: str) -> None:
    """Refuse entries of a TensorDict that no spec describes."""
    carried = env.carried.initial  # a policy's state and parameters of rows
    state = () if carried is None else carried.keys()
    known = {*own, *env.observation_spec.keys(), *state}
    surplus = [key for key in tensordict.keys() if key not in known]
    if surplus:
        expected = f"{where} with the observations {list(env.observation_spec.keys())}"
        hint = "Describe it in the observation_spec (a transform: in its observation_spec()), or leave it out."
        raise EnvError(explain("check_env", expected=expected, got=f"{surplus} beside them", hint=hint))


def _check_root_kept(seen: TensorDict, transition: TensorDict) -> None:
    """Raise an error if stepping has changed the entries of the root that the policy acted on."""
    for key, value in seen.items(include_nested=True, leaves_only=True):
        if not torch.equal(value, transition.get(key)):
            raise EnvError(
                explain(
                    f"check_env, key {key!r}",
                    expected="the root to stay as it was while the environment steps",
                    got="another value afterwards",
                    hint="The buffer is reused: return a fresh tensor, or use two roots in turn.",
                )
            )


def _check_last_observations(env: Env, steps: TensorDict, starts: TensorDict) -> None:
    """Raise an error if ``next`` holds, at endings, the observation after the reset instead of the episode's last one.

    The sign is that both are equal at every ending although starts differ. Where all starts are alike, an episode may
    well end where it started: then it only warns.
    """
    for flag in ("terminated", "truncated"):  # apart, since an environment may treat them apart
        _check_last_of(env, steps, starts, steps["next", flag].squeeze(-1))


def _check_last_of(env: Env, steps: TensorDict, starts: TensorDict, ended: torch.Tensor) -> None:
    if int(ended.sum()) < 2:
        return
    keys = list(env.observation_spec.keys())
    last, first = steps["next"].select(*keys)[ended], starts[ended]
    if not _equal(last, first) or _equal(steps.select(*keys)[~ended], first[:1].expand(int((~ended).sum()))):
        return  # they differ, or the simulator shows the same all the time
    message = explain(
        "check_env",
        expected="the true last observation under 'next' at an ending",
        got="what the next episode starts with, at every ending",
        hint="Write the successor before the reset; the observation after it belongs into the next root alone.",
    )
    if not _equal(first, first[:1].expand(first.batch_size)):
        raise EnvError(message)
    warnings.warn(f"{message} (All episodes start alike: if they also end there, all is well.)", stacklevel=4)


def _check_transition(env: Env, transition: TensorDict) -> None:
    outcome = transition["next"]
    _require_keys(outcome, [*env.observation_spec.keys(), "reward", *FLAGS, *STATISTICS], "a transition's 'next'")
    _require_nothing_else(env, outcome, ("reward", *FLAGS, *STATISTICS), "a transition's 'next'")
    env.observation_spec.assert_contains(outcome.select(*env.observation_spec.keys()), "the observation after a step")
    env.reward_spec.assert_contains(outcome["reward"], "the reward after a step")
    for flag in FLAGS:
        value = outcome[flag]
        if value.dtype is not torch.bool or value.shape != (*env.batch_size, 1):
            raise EnvError(
                explain(
                    f"check_env, flag {flag!r}",
                    expected=f"bool of shape {[*env.batch_size, 1]}",
                    got=f"{value.dtype} of shape {list(value.shape)}",
                )
            )
    if not torch.equal(outcome["done"], outcome["terminated"] | outcome["truncated"]):
        raise EnvError(
            explain(
                "check_env",
                expected="done = terminated or truncated",
                got="an ending without a reason, or a reason without an ending",
                hint="Set terminated when the task is over, truncated when time is up.",
            )
        )
    for key, value in outcome.items(include_nested=True, leaves_only=True):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise EnvError(explain(f"check_env, 'next' {key!r}", expected="finite numbers", got=value.tolist()))


def _check_carry(transition: TensorDict, root: TensorDict) -> None:
    """Raise an error unless the next root equals ``next`` on rows that go on, and starts an episode on the others."""
    outcome = transition["next"]
    ended = outcome["done"]
    _require_keys(root, ROOT_KEYS, "the next root")
    if not torch.equal(root["is_init"], ended):
        raise EnvError(
            explain(
                "check_env",
                expected="is_init true exactly after an ending",
                got=f"{root['is_init'].tolist()} after {ended.tolist()}",
            )
        )
    goes_on = ~ended.squeeze(-1)
    for key in outcome.keys():
        if key in NOT_CARRIED:
            continue
        if key not in root.keys():
            raise KeyMissing(
                explain("check_env", expected=f"the next root with the key {key!r}", got=sorted(map(str, root.keys())))
            )
        if not _equal(root[key][goes_on], outcome[key][goes_on]):
            raise EnvError(
                explain(
                    f"check_env, key {key!r}",
                    expected="the next root to hold what 'next' held on rows that go on",
                    got="another value",
                    hint="Return fresh arrays from reset and step; reusing one changes what was handed out. "
                    "A transform that draws or learns keeps what rows that go on were shown, for its reset.",
                )
            )


def _equal(one: torch.Tensor | TensorDict, other: torch.Tensor | TensorDict) -> bool:
    same = one == other
    return bool(same.all())


def _require_keys(tensordict: TensorDict, keys: list, where: str) -> None:
    missing = [key for key in keys if tensordict.get(key, None) is None]
    if missing:
        hint = "Agents and evaluators read them: the sum of rewards and the number of steps, [*B, 1]."
        hint = hint if set(missing) <= set(STATISTICS) else ""
        got = f"only {sorted(map(str, tensordict.keys()))}"
        raise KeyMissing(explain("check_env", expected=f"{where} with {missing}", got=got, hint=hint))
