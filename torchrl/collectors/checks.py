"""Checks that every collector makes: refuse wrong arguments, policies, transitions and batches. Steps nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.batch_functions import BatchFunction, apply_function
from torchrl.data.specs import Categorical, Composite, MultiCategorical, TensorSpec
from torchrl.data.specs.fitting import first_act, require_fit
from torchrl.envs.base import Env, action_of
from torchrl.errors import ConfigError, EnvError, NonFiniteError, SpecError, explain
from torchrl.keys import key_name
from torchrl.modules import RandomPolicy
from torchrl.seeding import named_seeds


def require_arguments(who: str, env: Env, policy: Callable | None, total_frames: int = -1) -> None:
    """Refuse an ``env`` that is no environment, a ``policy`` that cannot be called, or a wrong ``total_frames``.

    Raises:
        EnvError: ``env`` is no environment.
        ConfigError: ``policy`` cannot be called, or ``total_frames`` is neither a number of frames nor -1.
    """
    if not isinstance(env, Env):
        hint = "A simulator becomes one by SerialEnv(make_simulator, num_envs), a task's name by GymEnv(name)."
        raise EnvError(explain(who, expected="an Env", got=repr(env), hint=hint))
    require_policy(who, policy, total_frames)


def require_policy(who: str, policy: Callable | None, total_frames: int = -1) -> None:
    """Refuse a ``policy`` that cannot be called with a root, or a ``total_frames`` that is no number of frames.

    Raises:
        ConfigError: ``policy`` cannot be called, or ``total_frames`` is neither a number of frames nor -1.
    """
    if policy is not None and (not callable(policy) or isinstance(policy, type)):
        expected = "a policy that can be called with a root, or None"
        hint = f"Make one: {policy.__name__}(...)." if isinstance(policy, type) else ""
        raise ConfigError(explain(who, expected=expected, got=repr(policy), hint=hint))
    if not isinstance(total_frames, Integral) or total_frames < -1:
        expected = "a number of frames, or -1, which never stops"
        raise ConfigError(explain("total_frames", expected=expected, got=total_frames))


def steps_of(frames_per_batch: int, num_envs: int, *, of: str = "environments") -> int:
    """Return the number of steps per row, ``T = frames_per_batch / num_envs``, of a batch.

    Raises:
        ConfigError: ``frames_per_batch`` is not a positive multiple of ``num_envs``.
    """
    if not isinstance(frames_per_batch, Integral) or frames_per_batch < 1 or frames_per_batch % num_envs:
        hint = ""
        if isinstance(frames_per_batch, (Integral, float)):
            hint = f"Use {max(1, round(frames_per_batch / num_envs)) * num_envs}."
        expected = f"a positive multiple of the {num_envs} {of}"
        raise ConfigError(explain("frames_per_batch", expected=expected, got=frames_per_batch, hint=hint))
    return frames_per_batch // num_envs


def random_policy(env: Env, seed: int | None) -> RandomPolicy:
    """Make a policy of random actions; with ``seed`` it draws from its own generator, else from torch's global one."""
    generator = None if seed is None else torch.Generator().manual_seed(named_seeds(seed, "actions")["actions"])
    return RandomPolicy(env.action_spec, mask_key=env.action_mask_key, generator=generator)


def act_and_check(act: Callable, root: TensorDict, env: Env, *, is_first: bool) -> TensorDictBase:
    """Let a policy act on a root, ``[*B]``, and return the result; refuse a missing or wrong action, or changed inputs.

    With ``is_first`` the policy itself is checked against the action spec, later only its actions' form and range.

    Raises:
        ConfigError: the policy cannot be called with a TensorDict.
        SpecError: it returned no TensorDict, replaced an entry that it was given, or its action does not fit the spec.
        KeyMissing: it wrote no action.
    """
    shown = dict(root.items(include_nested=True, leaves_only=True))
    acted = first_act(act, root, env.action_spec, len(env.batch_size)) if is_first else act(root)
    if not isinstance(acted, TensorDictBase):
        hint = "A policy writes into the TensorDict it was given and returns it."
        raise SpecError(explain("policy", expected="a TensorDict", got=type(acted).__name__, hint=hint))
    replaced = [key for key, value in shown.items() if acted.get(key, None) is not value]
    if replaced:
        hint = 'Write the state to go on with under ("next", key), and other results under keys of their own.'
        expected = "a policy that leaves what it is shown as it is"
        got = f"another value under {key_name(replaced[0])!r}"
        raise SpecError(explain("policy", expected=expected, got=got, hint=hint))
    if is_first:
        require_fit(act, action_of(acted), acted, env.action_spec, len(env.batch_size))
        _require_memories(act, acted, env)
    else:
        env.action_spec.assert_form(action_of(acted), "action")
    require_choices(acted.get("action"), env.action_spec, len(env.batch_size))
    return acted


def _require_memories(act: Callable, acted: TensorDictBase, env: Env) -> None:
    """Refuse a policy with memory that leaves the state of another one, such as a critic's, standing still.

    Raises:
        SpecError: the env starts episodes with a state that the policy does not write, though it writes others.
    """
    primed, written = env.carried.primed, acted.get("next", None)
    if primed is None or written is None:
        return
    keys = list(primed.keys(include_nested=True, leaves_only=True))
    idle = [key for key in keys if written.get(key, None) is None]
    if idle and len(idle) < len(keys):
        hint = "A critic with memory has to see the steps it judges: collect with ActorCriticWrapper(actor, critic)."
        expected = "a policy that writes the next value of each state in the environment's TensorDictPrimer"
        got = f"a {type(act).__name__} that leaves out {key_name(idle[0])!r}"
        raise SpecError(explain("policy", expected=expected, got=got, hint=hint))


def require_specs(who: str, transition: TensorDict, env: Env) -> None:
    """Refuse a transition, ``[*B]``, whose observations or reward do not fit the specs of the environment.

    Raises:
        SpecError: an observation is missing, or an observation or the reward does not fit its spec.
    """
    for name, source in (("observation", transition), ("next observation", transition.get("next"))):
        for key, spec in env.observation_spec.items():
            if source.get(key, None) is None:
                got = f"the keys {sorted(map(str, source.keys()))}"
                raise SpecError(explain(who, expected=f"{name} with the key {key!r}", got=got))
            spec.assert_contains(source.get(key), f"{name} {key!r}")
    env.reward_spec.assert_contains(transition.get(("next", "reward")), "reward")


def postprocess(postproc: BatchFunction | None, batch: TensorDict) -> TensorDictBase:
    """Apply ``postproc`` to a batch and return the result; if ``postproc`` is None, return the batch itself.

    Raises:
        SpecError: ``postproc`` returns no TensorDict.
    """
    return batch if postproc is None else apply_function("postproc", postproc, batch)


def require_finite(batch: TensorDict, env: Env) -> None:
    """Refuse a batch ``[*B, T]`` with a NaN or infinite observation, or number under ``"next"``, such as the reward.

    Raises:
        NonFiniteError: naming one such key, environment and step; the earliest step in that environment.
    """
    time_dim = len(env.batch_size)
    outcome = batch.get("next").items(include_nested=True, leaves_only=True)
    values = [(("next", key), value) for key, value in outcome]
    values += [(key, batch.get(key)) for key, _ in env.observation_spec.leaves()]
    values = [(key, value) for key, value in values if value.is_floating_point()]
    if math.isfinite(sum(value.sum() for _, value in values)):  # one look at the device for all
        return
    for key, value in values:
        bad = ~torch.isfinite(value)
        if not bool(bad.any()):  # the sum of finite numbers overflowed
            continue
        place = bad.nonzero()[0].tolist()
        raise NonFiniteError(
            explain(
                f"Collector, key {key_name(key)!r}",
                expected="finite numbers",
                got=f"{value[tuple(place)].item()} in environment {place[:time_dim]} at step {place[time_dim]}",
                hint="The batch was not handed out; look at the simulator, or at the action it was given.",
            )
        )


def require_choices(action: torch.Tensor | TensorDictBase | None, spec: TensorSpec, batch_dims: int) -> None:
    """Refuse discrete actions out of range; if ``action`` is None do nothing, since the environment refuses that.

    Args:
        action: ``[*B, ...]`` or ``[*B, T, ...]``.
        spec: the environment's ``action_spec``, ``[*B, ...]``.
        batch_dims: number of the dimensions ``*B``.

    Raises:
        SpecError: an index below 0 or not below the number of choices.
    """
    if isinstance(spec, Composite):
        for key, leaf in spec.leaves() if isinstance(action, TensorDictBase) else ():
            _require_choices_of_leaf(f"action {key_name(key)!r}", action.get(key, None), leaf, batch_dims)
    else:
        _require_choices_of_leaf("action", action, spec, batch_dims)


def _require_choices_of_leaf(name: str, action: torch.Tensor | None, spec: TensorSpec, batch_dims: int) -> None:
    if action is None or not isinstance(spec, (Categorical, MultiCategorical)) or action.dtype is not spec.dtype:
        return
    hint = "Give the actor's network as many outputs as there are choices."
    if isinstance(spec, Categorical):
        least, most = action.aminmax()
        if least < 0 or most >= spec.n:
            got = f"indices from {int(least)} to {int(most)}"
            raise SpecError(explain(name, expected=f"an index from 0 to {spec.n - 1}", got=got, hint=hint))
        return
    nvec = spec.nvec[(0,) * batch_dims]
    rows = action.reshape(-1, *spec.shape[batch_dims:])
    if bool(((rows < 0) | (rows >= nvec)).any()):
        got = f"indices up to {rows.amax(0).tolist()}, from {rows.amin(0).tolist()}"
        raise SpecError(explain(name, expected=f"indices below {nvec.tolist()}", got=got, hint=hint))
