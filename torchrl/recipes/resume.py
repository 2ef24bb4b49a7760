"""Go on with a saved run: find its newest whole checkpoint, load it, and take over what a new folder needs of it."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

from torchrl.agents import (
    AGENT,
    BEST,
    BUFFER,
    CHECKPOINTS,
    LAST,
    Agent,
    ReplayUpdates,
    frames_of,
    load_checkpoint,
    newest_checkpoint,
    require_whole,
)
from torchrl.errors import CheckpointError, ConfigError, explain
from torchrl.files import link_folder
from torchrl.objectives import Coefficient
from torchrl.recipes.parts import Command, Recording
from torchrl.recipes.record import CONFIG, PROGRESS, naming_other_networks, saved_run
from torchrl.recipes.settings import values_of
from torchrl.record import copy_table


def take_over(settings: Recording, agent: Agent, source: Path, folder: Path) -> None:
    """Put the best checkpoint, the CSV table and the checkpoint folder of the run before into a new run's folder.

    So the new run can be resumed in its turn, however soon it is killed.

    Args:
        settings: of the new run.
        agent: has loaded the checkpoint.
        source: path of the checkpoint's file.
        folder: of the new run.
    """
    parent, _ = saved_run(source)
    if (parent / BEST).is_file():
        shutil.copyfile(parent / BEST, folder / BEST)
    if "csv" in settings.loggers and (parent / PROGRESS).is_file():
        copy_table(parent / PROGRESS, folder / PROGRESS, until=agent.frames)
    if source.name == AGENT:
        link_folder(source.parent, folder / CHECKPOINTS / source.parent.name)


def resume(settings: Command, agent: Agent) -> Path:
    """Load the newest whole checkpoint of the run that ``--resume`` names, or the one; return the path of its file.

    Learning rate and loss coefficients are of the flags: the checkpoint holds these numbers too, in the optimizer and
    the loss, but flags win. A damaged checkpoint gives a warning, and the one before is taken; without another, the
    best one.

    Raises:
        CheckpointError: the run has no checkpoint, or it does not fit the flags.
        ConfigError: the run has already collected ``total_frames``, or had another optimizer.
    """
    folder, names = saved_run(settings.recording.resume)
    source, state = _newest_of(folder) if len(names) > 1 else _named(folder / names[0])
    buffer = source.parent / BUFFER
    if buffer.is_dir() and isinstance(agent.optimise, ReplayUpdates):
        agent.optimise.buffer.load(buffer)  # first: without it, updates wait for frames to be collected anew
    with naming_other_networks(settings, folder):
        agent.load_state_dict(state)
    total_frames, optimising = settings.collecting.total_frames, settings.optimising
    if agent.frames >= total_frames:
        got = f"{total_frames:,}, which the run has"
        raise ConfigError(explain("--total_frames", expected=f"more than {agent.frames:,}", got=got))
    began_with = agent.configuration.get("optimizer", optimising.optimizer)
    if optimising.optimizer != began_with:
        raise ConfigError(explain("--optimizer", expected=f"{began_with}, as the run began", got=optimising.optimizer))
    agent.configuration = values_of(settings)
    for name, value in agent.configuration.items():
        if isinstance(getattr(type(agent.loss), name, None), Coefficient):
            setattr(agent.loss, name, value)
    for group in agent.optimizer.param_groups:
        group |= {"lr": optimising.lr, "weight_decay": optimising.weight_decay}
    return source


def _named(path: Path) -> tuple[Path, dict]:
    if path.name == AGENT:
        require_whole(path.parent)
    return path, load_checkpoint(path)


def _newest_of(folder: Path) -> tuple[Path, dict]:
    """Return the newest whole checkpoint of a run, its path and its state; warn about damaged ones."""
    newest = newest_checkpoint(folder)
    if newest is None:
        return _first_readable(folder)
    found = newest / AGENT, load_checkpoint(newest / AGENT)
    lacks_buffer = (newest / BUFFER).is_dir() and not (folder / BUFFER).is_dir()
    if lacks_buffer or not (folder / LAST).is_file():  # an evaluation's last.pt has no buffer beside it
        return found
    try:
        last = load_checkpoint(folder / LAST)
    except CheckpointError as error:
        warnings.warn(f"{error} {newest} is taken instead.", stacklevel=3)
        return found
    return (folder / LAST, last) if last["counters"]["frames"] > frames_of(newest) else found


def _first_readable(folder: Path) -> tuple[Path, dict]:
    """Return the last or the best checkpoint, the first that can be read; warn about the last where it cannot."""
    if not any((folder / name).is_file() for name in (LAST, BEST)):
        expected, got = "a run with a checkpoint that is whole", f"none in {folder}"
        raise CheckpointError(explain("--resume", expected=expected, got=got, hint=_way_out(folder)))
    try:
        return folder / LAST, load_checkpoint(folder / LAST)
    except CheckpointError as error:
        if not (folder / BEST).is_file():
            raise
        warnings.warn(f"{error} {BEST} is taken instead.", stacklevel=3)
        return folder / BEST, load_checkpoint(folder / BEST)


def _way_out(folder: Path) -> str:
    """Return what to write instead of resuming a run that ended before its first checkpoint."""
    with (folder / CONFIG).open(encoding="utf-8") as file:
        origin = re.search(r", resumed from (.+)$", file.readline().rstrip())
    if origin is not None:
        return f"It went on from another one: --resume={origin[1]}."
    return f"Begin anew with its settings: --config={folder / CONFIG}."
