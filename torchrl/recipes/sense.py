"""Check settings against each other: refuse contradictions early, and report settings that have no effect.

A setting whose explanation ends in ``needs CONDITION`` has no effect unless the condition holds. A condition is
``--flag`` or ``--no-flag`` (on or off), ``--flag=value`` (a list holds it), ``--flag above number``,
``--flag below --other``, or a fact of the environment (``pictures``, ``continuous actions``); ``or`` joins
alternatives, ``and`` conditions that all must hold. A condition on a flag that the command lacks holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from torchrl.data.specs import Composite
from torchrl.envs import Env
from torchrl.envs.simulators.ids import is_atari
from torchrl.errors import ConfigError, explain
from torchrl.recipes.collectors import num_trained
from torchrl.recipes.config_file import format_value
from torchrl.recipes.observations import sees_images
from torchrl.recipes.parts import Command
from torchrl.recipes.settings import explanations, parts_of, values_of
from torchrl.recipes.value_types import typed_names

_NEEDS = re.compile(r"\bneeds (.+)$")
_COMPARISON = re.compile(r"--(\w+) (above|below) (?:--)?(\w+)")
_FACTS = ("pictures", "continuous actions")

# What an evaluation reads: these parts and settings, without what is in them for training alone.
_PARTS_READ = ("environment", "networks")
_READ = {"config", "evaluate", "seed", "eval_episodes", "device", "num_threads", "progress_bar", "export"}
_FOR_TRAINING = {
    "num_envs",
    "env_workers",
    "init_with_lag",
    "reward_scaling",
    "norm_rewards",
    "episodic_life",
    "sign_rewards",
}


def require_sense(settings: Command, flags: Sequence[str]) -> None:
    """Refuse ``--record_video`` with ``--evaluate``: films are made while a run trains.

    Args:
        settings: of the command.
        flags: as they were typed.

    Raises:
        ConfigError: both were asked for.
    """
    recording = settings.recording
    if recording.evaluate is not None and recording.record_video and "record_video" in typed_names(flags):
        hint = "Films are made while a run trains, by the same flag; or by the hook RecordVideo in Python."
        raise ConfigError(explain("--record_video", expected="a run that trains", got="--evaluate", hint=hint))


def remarks(settings: Command, flags: Sequence[str]) -> list[str]:
    """Return a line of text for each setting that has no effect, or another effect than a user might expect.

    Args:
        settings: of the command.
        flags: as they were typed.
    """
    if settings.recording.evaluate is not None:
        return [f"no effect on an evaluation: --{name}" for name in _unread(settings, flags)]
    values = values_of(settings)
    remarks = [*_without_effect(settings, values), *_remarks_on_numbers(settings, values)]
    environment = settings.environment
    if environment.env_library == "gym" and is_atari(environment.env_name) and not environment.atari:
        remarks.append(f"{environment.env_name} is played as it is: --atari plays it by the rules of the field")
    return remarks


def remarks_on_env(settings: Command, env: Env) -> list[str]:
    """Return a line of text for each setting that has no effect because of the env's observations or actions.

    Args:
        settings: of the command.
        env: the run's environment, or another that was made by the same settings.
    """
    action = env.action_spec
    leaves = [leaf for _, leaf in action.leaves()] if isinstance(action, Composite) else [action]
    facts = {"pictures": sees_images(env), "continuous actions": any(leaf.dtype.is_floating_point for leaf in leaves)}
    return list(_without_effect(settings, facts))


def _without_effect(settings: Command, known: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each setting that differs from its default and whose condition (``needs ...``) is false."""
    for name, part in parts_of(type(settings)):
        chosen = getattr(settings, name)
        for field in fields(part):
            needs = _NEEDS.search(explanations(type(part))[field.name])
            if needs is None or getattr(chosen, field.name) == getattr(part, field.name):
                continue
            for condition in needs[1].split(" and "):
                if not any(_holds(one, known) for one in condition.split(" or ")):
                    yield f"no effect: --{field.name}, which needs {condition}"


def _holds(condition: str, known: Mapping[str, Any]) -> bool:
    if condition in _FACTS:
        return known.get(condition, True)
    if comparison := _COMPARISON.fullmatch(condition):
        name, relation, bound = comparison.groups()
        if name not in known:
            return True
        limit = known[bound] if bound in known else float(bound)
        return known[name] > limit if relation == "above" else known[name] < limit
    name, _, value = condition.removeprefix("--").partition("=")
    is_off = name.startswith("no-")
    name = name.removeprefix("no-")
    if name not in known:
        return True
    if value and isinstance(known[name], list):
        return value in known[name]
    return format_value(known[name]) == value if value else bool(known[name]) != is_off


def _remarks_on_numbers(settings: Command, values: Mapping[str, Any]) -> Iterator[str]:
    total_frames, frames_per_batch = values["total_frames"], values["frames_per_batch"]
    if values.get("batch_size", 0) > values.get("buffer_size", 0):
        above = f"above the {values['buffer_size']:,} of --buffer_size"
        yield f"--batch_size={values['batch_size']:,} is {above}: items repeat"
    for name, never in (("start_frames", "nothing is learned"), ("init_random_frames", "the policy never acts")):
        if values.get(name, 0) >= total_frames:
            yield f"{never}: --{name}={values[name]:,} is not below the {total_frames:,} of --total_frames"
    if "updates_per_frame" in values and values["start_frames"] < total_frames:
        yield from _remarks_on_updates(values, num_trained(settings.collecting))
    if values.get("minibatch_size", 0) > frames_per_batch:
        yield (
            f"no effect: --minibatch_size={values['minibatch_size']:,} above the {frames_per_batch:,} of "
            "--frames_per_batch; every gradient step takes the whole batch"
        )
    if (trained := num_trained(settings.collecting)) != total_frames:
        whole = f"whole batches of {frames_per_batch:,}: {trained:,} frames"
        yield f"--total_frames={total_frames:,} is rounded up to {whole}"


def _remarks_on_updates(values: Mapping[str, Any], num_frames: int) -> Iterator[str]:
    """Yield a line for each setting of replay that the run is too short for."""
    num_updates = int((num_frames - values["start_frames"]) * values["updates_per_frame"])
    if num_updates < 1:
        ratio = f"--updates_per_frame={values['updates_per_frame']:g}"
        yield f"nothing is learned: {ratio} gives no update in this run"
    elif values["hard_update"] and values["target_update_interval"] > num_updates:
        interval = f"--target_update_interval={values['target_update_interval']:,}"
        yield f"the target networks never move: {interval} is above the {num_updates:,} updates of this run"


def _unread(settings: Command, flags: Sequence[str]) -> list[str]:
    """Return the typed flags that an evaluation does not read."""
    read = {
        field.name for name, part in parts_of(type(settings)) if name in _PARTS_READ for field in fields(part)
    } | _READ
    return [name for name in typed_names(flags) if name not in read - _FOR_TRAINING]
