"""``check_env``: finds what an environment does against its own specs and the contract, before training does."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from torchrl.envs.base import Env
from torchrl.envs.stepping import NOT_CARRIED
from torchrl.errors import EnvError, KeyMissing, explain

ROOT_KEYS = ("is_init",)
FLAGS = ("terminated", "truncated", "done")


def check_env(env: Env, *, num_steps: int = 200, seed: int = 0) -> None:
    """Act at random for ``num_steps`` steps, twice from the same seed, and hold every transition against the contract.

    Checks keys, shapes and dtypes; that observations and rewards lie in their specs and are finite; that
    ``done`` is ``terminated or truncated``; that the next root carries what ``next`` held, and a fresh episode where
    a row ended; that
    ``is_init`` is true exactly on first rows; and that a seed repeats the whole run.

    Args:
        env: any environment, transformed or not. It is reset and stepped; its streams are re-seeded.
        num_steps: how many vector steps to look at; long enough to see an episode end.
        seed: for both runs.

    Raises:
        EnvError, KeyMissing, SpecError, NonFiniteError: the first mistake, with what to do about it.
    """
    if not isinstance(env, Env):
        hint = "Wrap a gymnasium environment in GymEnv(env), another simulator in SerialEnv."
        raise EnvError(explain("check_env", expected="an Env", got=type(env).__name__, hint=hint))
    first = _checked_run(env, num_steps, seed)
    second = _checked_run(env, num_steps, seed)
    for key, value in first.items(include_nested=True, leaves_only=True):
        if not torch.equal(value, second.get(key)):
            name = key if isinstance(key, str) else "/".join(key)
            raise EnvError(
                explain(
                    "check_env",
                    expected=f"the same run twice after set_seed({seed})",
                    got=f"another {name!r}",
                    hint="Draw every random number from the generator that reset(seed=...) seeds; freeze running "
                    "statistics of transforms first (env.transform.eval()).",
                )
            )


def _checked_run(env: Env, num_steps: int, seed: int) -> TensorDict:
    env.set_seed(seed)
    root = env.reset()
    _require_keys(root, [*env.observation_spec.keys(), *ROOT_KEYS], "the root after reset")
    if not bool(root["is_init"].all()):
        raise EnvError(
            explain("check_env", expected="is_init true on every row after reset", got=root["is_init"].tolist())
        )
    env.observation_spec.assert_contains(root.select(*env.observation_spec.keys()), "the observation after reset")
    steps = []
    for _ in range(num_steps):
        action = env.action_spec.rand(generator=env._generator)
        transition, root = env.step_and_reset(root.set("action", action))
        transition, root = transition.clone(), root.clone()
        _check_transition(env, transition)
        _check_carry(transition, root)
        steps.append(transition)
    return torch.stack(steps, dim=len(env.batch_size))


def _check_transition(env: Env, transition: TensorDict) -> None:
    outcome = transition["next"]
    _require_keys(outcome, [*env.observation_spec.keys(), "reward", *FLAGS], "a transition's 'next'")
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
    """The next root holds what ``next`` held on rows that go on, and starts an episode on rows that ended."""
    outcome = transition["next"]
    ended = outcome["done"]
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
                    hint="Return fresh arrays from reset and step; reusing one changes what was handed out.",
                )
            )


def _equal(one: torch.Tensor | TensorDict, other: torch.Tensor | TensorDict) -> bool:
    return bool((one == other).all())


def _require_keys(tensordict: TensorDict, keys: list, where: str) -> None:
    missing = [key for key in keys if tensordict.get(key, None) is None]
    if missing:
        raise KeyMissing(
            explain("check_env", expected=f"{where} with {missing}", got=f"only {sorted(map(str, tensordict.keys()))}")
        )
