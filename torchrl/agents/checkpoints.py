"""Checkpoints that outlive their process: folders, whole or absent, with checksums. A file's format: ``checkpoint``.

The hook that keeps the last few of them, and how a later process finds the newest that is whole.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torchrl.agents.checkpoint import save_checkpoint
from torchrl.agents.hooks import BUFFER, BatchReport, Hook
from torchrl.counts import is_count
from torchrl.errors import CheckpointError, ConfigError, explain
from torchrl.files import SUMS, damage_of, remove_folder, remove_partial, write_whole_folder

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent
    from torchrl.data.replay import ReplayBuffer

CHECKPOINTS, AGENT = "checkpoints", "agent.pt"
_NAME = re.compile(r"(\d{12,})(?:-(\d+))?")


class KeepCheckpoints(Hook):
    """Write a checkpoint folder every ``every_frames`` frames and when training ends; keep the last ones.

    Each is ``checkpoints/<frames>/`` in the agent's folder, with ``agent.pt``, ``replay/`` where there is a buffer, and
    ``checksums.json``. It is written under another name and renamed when it is whole and on the disk; then the oldest
    ones go, so that a process killed at any moment leaves a whole one, once there was one. :func:`newest_checkpoint`
    finds it, and the agent and the buffer that load it go on bit for bit. Of a buffer only the items are written that
    the checkpoint before lacks, see :meth:`~torchrl.data.replay.ReplayBuffer.save_in_pieces`.

    A checkpoint that cannot be written, as on a full disk, gives a warning; training goes on, and the earlier ones
    stay. Where the state of the environments cannot be captured, a warning says so after the first batch.

    >>> keep = KeepCheckpoints(10_000, buffer=buffer)  # Agent(..., hooks=[keep], folder="run")
    >>> _ = buffer.extend(batch)
    >>> agent.folder = folder
    >>> keep.on_complete(agent)
    >>> sorted(path.name for path in newest_checkpoint(folder).iterdir())
    ['agent.pt', 'checksums.json', 'replay']

    Args:
        every_frames: frames from one checkpoint to the next.
        keep: how many to keep, at least 1.
        buffer: the replay buffer to save with each; None saves none.

    Raises:
        ConfigError: a number below 1.
    """

    def __init__(self, every_frames: int, *, keep: int = 3, buffer: ReplayBuffer | None = None) -> None:
        for name, value in (("every_frames", every_frames), ("keep", keep)):
            if not is_count(value):
                expected = f"{name} of at least 1, a whole number"
                raise ConfigError(explain("KeepCheckpoints", expected=expected, got=value))
        self.every_frames = every_frames
        self.keep = keep
        self.buffer = buffer
        self._latest: Path | None = None
        self._latest_frames = -1
        self._is_checked = False

    def on_train_start(self, agent: Agent) -> None:
        """Forget what an earlier training wrote: the agent may have been changed since."""
        self._latest_frames, self._is_checked = -1, agent.folder is None

    def on_batch_end(self, agent: Agent, report: BatchReport) -> None:
        """Write a checkpoint if one is due."""
        if report.passes_multiple_of(self.every_frames):
            self._write(agent)
        elif not self._is_checked:
            self._warn_of_new_episodes(agent.collector.state_dict())

    def on_complete(self, agent: Agent) -> None:
        """Write a checkpoint of the trained agent, unless there is one of the last batch."""
        if self._latest_frames != agent.frames:
            self._write(agent)

    def _write(self, agent: Agent) -> None:
        if agent.folder is None:
            return
        folder = agent.folder / CHECKPOINTS
        path, state = _free_name(folder, agent.frames), agent.state_dict()
        if not self._is_checked:
            self._warn_of_new_episodes(state["collector"])
        try:
            remove_partial(folder)
            with write_whole_folder(path, since=self._latest) as temporary:
                save_checkpoint(temporary / AGENT, state)
                if self.buffer is not None and len(self.buffer):
                    since = None if self._latest is None else self._latest / BUFFER
                    self.buffer.save_in_pieces(temporary / BUFFER, since=since)
            for old in checkpoints_in(agent.folder)[self.keep :]:
                remove_folder(old)
        except (OSError, CheckpointError) as error:
            if isinstance(error, CheckpointError) and not isinstance(error.__cause__, (OSError, RuntimeError)):
                raise  # a state that no file can hold
            text = f"The checkpoint after {agent.frames:,} frames is not written, training goes on: {error}"
            warnings.warn(text, stacklevel=2)
        else:
            self._latest, self._latest_frames = path, agent.frames

    def _warn_of_new_episodes(self, state: Mapping) -> None:
        """Warn, once in a training, that a resumed run would begin new episodes, if the state holds no environment."""
        self._is_checked = True
        if reason := next(_env_errors(state), None):
            text = "A run that is resumed from these checkpoints begins new episodes, and so differs from this one"
            warnings.warn(f"{text}: {reason}", stacklevel=3)


def checkpoints_in(folder: str | os.PathLike) -> list[Path]:
    """List the checkpoint folders that :class:`KeepCheckpoints` wrote to an agent's folder, the newest first.

    >>> checkpoints_in(folder)
    []
    """
    found = []
    for path in Path(folder, CHECKPOINTS).glob("[0-9]*"):
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), int(match[2] or 1), path))
    return [path for _, _, path in sorted(found, reverse=True)]


def newest_checkpoint(folder: str | os.PathLike) -> Path | None:
    """Return the newest whole checkpoint folder in an agent's folder, None if there is none; warn of damaged ones.

    >>> newest_checkpoint(folder) is None
    True

    To go on from it: ``buffer.load(path / "replay")``, if there is a buffer, then ``agent.load(path / "agent.pt")``.
    """
    for path in checkpoints_in(folder):
        try:
            require_whole(path)
            return path
        except CheckpointError as error:
            warnings.warn(f"{error} It is left out.", stacklevel=2)
    return None


def require_whole(path: Path) -> None:
    """Refuse a checkpoint folder in which a file is missing or differs from its checksum.

    >>> agent.folder = folder
    >>> KeepCheckpoints(1).on_complete(agent)
    >>> require_whole(folder / "checkpoints" / "000000000000")

    Raises:
        CheckpointError: naming the file.
    """
    if damage := damage_of(path):
        raise CheckpointError(explain("checkpoint", expected=f"all files of {path} as {SUMS} says", got=damage))


def frames_of(path: Path) -> int:
    """Return after how many frames the checkpoint folder was written: its name says so.

    >>> frames_of(Path("run/checkpoints/000000040000"))
    40000
    """
    return int(_NAME.fullmatch(path.name)[1])


def _free_name(folder: Path, frames: int) -> Path:
    """Return the path of a new checkpoint folder; one of these frames that is there already is never replaced."""
    path, number = folder / f"{frames:012d}", 2
    while path.exists():
        path, number = folder / f"{frames:012d}-{number}", number + 1
    return path


def _env_errors(state: object) -> Iterator[str]:
    """Yield why the state of environments was not captured, of a collector's state and those of its workers."""
    if isinstance(state, Mapping):
        if state.get("env_error"):
            yield state["env_error"]
        for part in state.values():
            yield from _env_errors(part)
