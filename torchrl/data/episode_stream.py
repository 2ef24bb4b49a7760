"""Join the parts of each episode from batch to batch, and apply a user's function to every whole episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.batch_functions import BatchFunction, apply_function, require_batch_function
from torchrl.data.multistep import read_entry
from torchrl.data.trajectories import ENDS, MASK, STARTS, TRAJ_IDS, concatenate, pad

WHO = "EpisodeStream"


class EpisodeStream:
    """Keep the steps of unfinished episodes from batch to batch, and return each episode once it has ended.

    A quantity of the whole episode, such as the return of its rest or the goals that it reached, cannot be computed
    from a batch that shows a part of it. The stream keeps steps until their episode ends, so batches may be as short as
    one step: the episodes do not depend on where batches are cut.

    >>> stream = EpisodeStream()
    >>> len(stream(batch))  # no episode has ended
    0

    Episodes come in the order in which they ended, those of one step in the order of their rows. Batches of several
    workers may come in any order: ``("collector", "traj_ids")`` tells their rows apart. If an episode began before the
    first batch, the stream returns the part that it saw; a masked step inside an episode cuts off what was before it.
    Episodes that have not ended when collecting ends are lost: give the environment a time limit.

    Args:
        function: called with every episode, ``[1, T]``, for example :class:`~torchrl.data.Reward2Go` or
            :class:`~torchrl.data.HindsightRelabel`; its results are returned. None returns episodes unchanged.

    Raises:
        ConfigError: ``function`` is no function of a batch.
    """

    MAX_SILENCE = 1000  # batches without a step of an unfinished episode, before it is dropped: its worker was lost

    def __init__(self, function: BatchFunction | None = None) -> None:
        require_batch_function(WHO, function)
        self.function = function
        self._waiting: dict[int, _Episode] = {}  # by trajectory, the one that was longest silent first
        self._num_batches = 0

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDict:
        """Store the steps of a batch ``[*B, T]``; return the N episodes that end in it, padded to ``[N, longest]``.

        ``("collector", "mask")`` is false behind the end of each. If none ends, the result is ``[0, T]``.

        Raises:
            KeyMissing: ``is_init``, ``traj_ids`` or ``done`` is not there.
            SpecError: ``function`` returns something else than a padded batch.
        """
        self._num_batches += 1
        series = batch.reshape(-1, batch.batch_size[-1])
        ended = self._take_in(series)
        for number, episode in list(self._waiting.items()):
            if self._num_batches - episode.last_batch <= self.MAX_SILENCE:
                break
            del self._waiting[number]
        episodes = [self._apply(pad([episode.join()])) for episode in ended]
        return concatenate(episodes) if episodes else self._apply(_none_of(series))

    def state_dict(self) -> dict:
        """Return the steps of unfinished episodes, and the function's state if it has one."""
        waiting = {
            number: {"last_batch": episode.last_batch, "rows": episode.join()}
            for number, episode in self._waiting.items()
        }
        has_state = hasattr(self.function, "state_dict")
        function = self.function.state_dict() if has_state else {}
        return {"num_batches": self._num_batches, "waiting": waiting, "function": function}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore :meth:`state_dict`."""
        self._num_batches = state["num_batches"]
        self._waiting = {
            number: _Episode([episode["rows"]], episode["last_batch"]) for number, episode in state["waiting"].items()
        }
        if hasattr(self.function, "load_state_dict"):
            self.function.load_state_dict(state["function"])

    def _apply(self, episodes: TensorDictBase) -> TensorDictBase:
        return episodes if self.function is None else apply_function(WHO, self.function, episodes)

    def _take_in(self, series: TensorDictBase) -> list[_Episode]:
        """Store the steps of a batch ``[M, T]``; return the episodes that end in it, in the order of their ends."""
        size = series.batch_size
        keys = (TRAJ_IDS, STARTS, ENDS)
        ids, starts, done = (read_entry(series, key, who=WHO).reshape(size).cpu().numpy() for key in keys)
        mask = series.get(MASK, None)
        valid = np.ones(size, bool) if mask is None else mask.cpu().numpy()
        series = series if mask is None else series.exclude(MASK)
        continues = valid & ~starts  # the row before it, that of the last batch included
        continues[:, 1:] &= valid[:, :-1] & ~done[:, :-1] & (ids[:, 1:] == ids[:, :-1])
        begins, ends = valid & ~continues, valid.copy()
        begins[:, 0] = valid[:, 0]
        ends[:, :-1] &= ~continues[:, 1:]
        for number in ids[~valid[:, 0], 0].tolist():  # the steps behind a masked one may belong to another episode
            self._waiting.pop(number, None)
        ended = []
        for (row, first), last in zip(np.argwhere(begins).tolist(), np.argwhere(ends)[:, 1].tolist(), strict=True):
            number = int(ids[row, first])
            episode = self._waiting.pop(number, None)
            if episode is None or first or not continues[row, 0]:
                episode = _Episode()
            steps = series[row, first : last + 1]
            if done[row, last]:
                episode.parts.append(steps)
                ended.append((last, row, episode))
            elif last == size[1] - 1:
                episode.parts.append(steps.clone())
                episode.last_batch = self._num_batches
                self._waiting[number] = episode
        return [episode for _, _, episode in sorted(ended, key=lambda one: one[:2])]


@dataclass
class _Episode:
    """The steps of an episode so far, ``[T]`` in parts, and the number of the batch with its latest step."""

    parts: list[TensorDictBase] = field(default_factory=list)
    last_batch: int = 0

    def join(self) -> TensorDictBase:
        return torch.cat(self.parts) if len(self.parts) > 1 else self.parts[0]


def _none_of(series: TensorDictBase) -> TensorDict:
    """Return an empty batch of episodes, ``[0, T]``, with all keys."""
    none = series[:0].copy()
    return none.set(MASK, torch.zeros(none.batch_size, dtype=torch.bool))
