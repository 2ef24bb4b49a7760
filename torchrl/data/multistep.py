"""n-step rewards and successors, written into a batch before or after replay. It knows no values and no networks.

Also here: :func:`read_facts`, by which the other modules of this folder read endings and masks of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import NamedTuple

import torch
from tensordict import LazyStackedTensorDict, TensorDictBase
from torch import Tensor

from torchrl.data.batch_functions import require_batch
from torchrl.data.trajectories import MASK, STARTS, TRAJ_IDS
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.functional.endings import is_done, next_step_follows
from torchrl.functional.returns import n_step_return
from torchrl.functional.steps import require_steps
from torchrl.keys import Key

REWARD, ONE_STEP_REWARD = ("next", "reward"), ("next", "original_reward")
NUM_STEPS, FACTOR = ("next", "steps_to_next_obs"), ("next", "gamma")
_SAMPLED = "replay"  # where a buffer notes what it drew


class MultiStep:
    """Replace each step's reward by a discounted sum of up to n rewards, and ``"next"`` by that of the sum's last step.

    >>> MultiStep(3, 0.99)(batch)["next", "steps_to_next_obs"][0, :, 0]  # a postproc, or the transform of a buffer
    tensor([3, 3, 3, 3, 3, 3, 2, 1])

    Step t of the result, with m the number of rewards in it:

    - ``("next", "reward")`` is ``r_{t+1} + γ r_{t+2} + … + γ^{m-1} r_{t+m}``, ``[*B, T, R]``; the one-step reward stays
      as ``("next", "original_reward")``, for statistics;
    - all else under ``"next"`` is that of step t+m-1: observations, flags, recurrent states;
    - ``("next", "steps_to_next_obs")`` is m, int64 ``[*B, T, 1]``;
    - ``("next", "gamma")`` is γ^m, float32 ``[*B, T, 1]``: a target is ``reward + gamma · V(next)``, without the value
      where ``("next", "terminated")`` is true, as for one step.

    A sum ends after ``n_steps``, or before: at an ending, at the edge of the batch, next to a masked step, and where
    another episode (``is_init``) or trajectory (``traj_ids``) begins. Masked steps stay unchanged, with m = 0, and no
    number of theirs reaches another step.

    The result is a new container that shares unchanged entries with the batch, which is not written to. Step t+1 of it
    is no longer the successor of step t, so neither estimators that look at a time series (GAE and the like) nor slices
    have a meaning on it: draw single transitions from a buffer that holds such sums.

    Args:
        n_steps: the largest number of rewards in a sum; 1 changes nothing and adds the three keys.
        gamma: discount γ.
        keep_partial: whether to keep steps with fewer than ``n_steps`` rewards because the batch ends, not the episode.
            Otherwise their ``("collector", "mask")`` becomes false, so each collected batch loses the last
            ``n_steps - 1`` steps of every unfinished episode.

    Raises:
        ConfigError: ``n_steps`` is not a positive integer, or γ is not between 0 and 1.
    """

    def __init__(self, n_steps: int, gamma: float, *, keep_partial: bool = True) -> None:
        if isinstance(n_steps, bool) or not isinstance(n_steps, Integral) or n_steps < 1:
            raise ConfigError(explain("MultiStep", expected="n_steps, an integer of at least 1", got=repr(n_steps)))
        require_discount("MultiStep", gamma)
        self.n_steps = int(n_steps)
        self.gamma = float(gamma)
        self.keep_partial = keep_partial

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return the batch ``[*B, T]`` with n-step rewards and successors.

        Raises:
            KeyMissing: the reward or a flag is not there.
            SpecError: the batch has no time dimension, or single steps of longer episodes; an entry has a wrong shape;
                or the steps are n-step sums already.
        """
        facts = read_facts(batch, who="MultiStep")
        require_single_steps(batch, who="MultiStep")
        if self.keep_partial and self.n_steps > 1:
            hint = "MultiStepStream(n_steps, gamma) lets steps wait for their sum, however short the batches are."
            require_episodes(batch, who="MultiStep", hint=hint)
        reward = read_reward(batch, who="MultiStep")
        finite = reward if facts.mask is None else torch.where(facts.mask, reward, 0)
        sums, num_steps, last = sum_steps(finite, ~facts.follows, n_steps=self.n_steps, gamma=self.gamma)
        after = _take(batch.get("next"), batch.batch_size, last)
        result = batch.copy()
        result.set("next", after)
        if facts.mask is not None:
            sums = torch.where(facts.mask, sums, reward)
            num_steps = torch.where(facts.mask, num_steps, 0)
        result.set(REWARD, sums)
        result.set(ONE_STEP_REWARD, reward)
        result.set(NUM_STEPS, num_steps)
        result.set(FACTOR, torch.pow(self.gamma, num_steps.double()).float())
        if not self.keep_partial:
            ends = _at_rows(facts.ended, last)
            whole = (num_steps == self.n_steps) | ends
            if facts.mask is not None:
                whole &= facts.mask
            result.set(MASK, whole.squeeze(-1))
        return result


class MultiStepStream:
    """Sum up to n rewards as :class:`MultiStep` does, also over the border between consecutive batches.

    If a batch ends before a step has its n rewards, the stream stores the step and returns it with a later batch of
    its trajectory. So every step is returned once, with fewer than ``n_steps`` rewards only if its episode ended, and
    batches may be as short as one step. Steps that are still stored when collecting ends are lost.

    >>> stream = MultiStepStream(3, 0.99)
    >>> stream(batch)["collector", "mask"].sum()  # two steps of each row are stored until the next batch
    tensor(12)

    Batches of several workers may come in any order: they are told apart by ``("collector", "traj_ids")``.

    Args:
        n_steps: the largest number of rewards in a sum.
        gamma: discount γ.

    Raises:
        ConfigError: as :class:`MultiStep`.
    """

    MAX_WAITING = 64  # of parts of batches, more than there are workers: those of a worker that was lost go in the end

    def __init__(self, n_steps: int, gamma: float) -> None:
        self._sum = MultiStep(n_steps, gamma, keep_partial=False)
        self._waiting: list[TensorDictBase] = []

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return the stored steps and behind them, in time, the batch ``[*B, T]``, with n-step rewards and successors.

        ``("collector", "mask")`` is false on steps that were returned before, and on steps stored for later.

        Raises:
            KeyMissing: ``is_init``, ``traj_ids``, the reward or a flag is not there.
            SpecError: as :class:`MultiStep`.
        """
        who = "MultiStepStream"
        ids, starts = read_entry(batch, TRAJ_IDS, who=who), read_entry(batch, STARTS, who=who)
        batch = batch.copy()
        batch.set("collector", batch.get("collector").copy())
        if batch.get(MASK, None) is None:
            batch.set(MASK, torch.ones_like(ids, dtype=torch.bool))
        waited = self._resume(ids[..., 0], starts[..., 0, 0])
        if waited is not None:
            batch = torch.cat([waited, batch], dim=-1)
        result = self._sum(batch)
        self._keep(batch, result)
        return result

    def state_dict(self) -> dict:
        """Return the stored steps, whose sums are not complete."""
        return {"waiting": list(self._waiting)}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore :meth:`state_dict`."""
        self._waiting = list(state["waiting"])

    def _resume(self, ids: Tensor, starts: Tensor) -> TensorDictBase | None:
        """Take out the stored steps of these trajectories, ``[*B, fewer than n]``; None if there are none."""
        for index, waiting in enumerate(self._waiting):
            last = waiting.get(TRAJ_IDS)[..., -1]
            if last.shape == ids.shape:
                same = last == ids
                if bool(same.any()) and bool((same | starts).all()):
                    return self._waiting.pop(index)
        return None

    def _keep(self, batch: TensorDictBase, result: TensorDictBase) -> None:
        num = min(self._sum.n_steps - 1, batch.batch_size[-1])
        if not num:
            return
        tail = batch[..., batch.batch_size[-1] - num :].clone()
        waits = tail.get(MASK) & ~result.get(MASK)[..., -num:]
        tail.set(MASK, waits)
        if bool(waits.any()):
            self._waiting = [*self._waiting[1 - self.MAX_WAITING :], tail]


def sum_steps(reward: Tensor, cut: Tensor, *, n_steps: int, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sum ``r_{t+1} + γ r_{t+2} + … + γ^{m-1} r_{t+m}`` with m = ``n_steps``, or fewer where a cut comes before.

    Args:
        reward: received on entering t+1, finite, ``[*B, T, R]``; put 0 into steps that do not count.
        cut: step t+1 does not continue step t, bool ``[*B, T, 1]``; the last step always is a cut.
        n_steps: the largest m, at least 1.
        gamma: discount γ.

    Returns:
        the sums, ``[*B, T, R]``; m, int64 ``[*B, T, 1]``; the step t+m-1 of the last reward in it, int64 ``[*B, T]``.

    Raises:
        SpecError: the shapes are others.
    """
    require_steps("sum_steps", {"reward": reward}, {"cut": cut})
    _, end = piece_bounds(~cut)
    rows = torch.arange(cut.shape[-2], device=cut.device).expand_as(end)
    last = torch.minimum(rows + n_steps - 1, end)
    sums = n_step_return(reward, torch.zeros_like(reward), cut, cut, gamma=gamma, n=n_steps)
    return sums, (last - rows + 1).unsqueeze(-1), last


def piece_bounds(follows: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each step the first and the last step of its piece: a run of steps that follow each other.

    Args:
        follows: step t+1 continues step t, bool ``[*B, T, 1]``; the entry of the last step is ignored.

    Returns:
        first and last, int64 ``[*B, T]`` each.
    """
    follows = follows.squeeze(-1).clone()
    length = follows.shape[-1]
    rows = torch.arange(length, device=follows.device).expand_as(follows)
    follows[..., -1:] = False
    last = torch.where(follows, length, rows).flip(-1).cummin(-1).values.flip(-1)
    begins = torch.ones_like(follows)
    begins[..., 1:] = ~follows[..., :-1]
    first = torch.where(begins, rows, 0).cummax(-1).values
    return first, last


class Facts(NamedTuple):
    """Hold bool masks of a batch ``[*B, T]``: where episodes end and begin, which steps follow each other, are valid.

    Attributes:
        ended: the episode ended on entering t+1, for whichever reason.
        follows: step t+1 of the batch is the successor of step t.
        starts: step t begins an episode or a trajectory; None where the batch does not say.
        mask: step t is valid; None where all are.
    """

    ended: Tensor
    follows: Tensor
    starts: Tensor | None
    mask: Tensor | None


def read_facts(batch: TensorDictBase, *, who: str) -> Facts:
    """Compute a batch's masks of endings, beginnings, successors and validity from its flags, ``[*B, T]``.

    Raises:
        KeyMissing: ``terminated`` or ``truncated`` is not there.
        SpecError: the batch has no time dimension, or a flag has a wrong shape or dtype.
    """
    require_batch(who, batch)
    if not batch.batch_dims:
        raise SpecError(explain(who, expected="a batch [*B, T], time last", got="batch size []"))
    if batch.batch_dims == 1 and batch.get(_SAMPLED, None) is not None:
        hint = "Steps that were drawn one by one have no order: give the buffer a SliceSampler."
        raise SpecError(explain(who, expected="slices [N, T] of a buffer", got=list(batch.batch_size), hint=hint))
    ended = is_done(*(_flag(batch, ("next", name), who=who) for name in ("terminated", "truncated")))
    if batch.get(("next", "done"), None) is not None:
        ended = ended | _flag(batch, ("next", "done"), who=who)
    starts = None if batch.get(STARTS, None) is None else _flag(batch, STARTS, who=who)
    ids = batch.get(TRAJ_IDS, None)
    if ids is not None:
        changes = torch.zeros_like(ended)
        changes[..., 1:, 0] = ids[..., 1:] != ids[..., :-1]
        starts = changes if starts is None else starts | changes
    mask = batch.get(MASK, None)
    if mask is not None:
        if mask.shape != batch.batch_size or mask.dtype is not torch.bool:
            got = f"{mask.dtype} {list(mask.shape)}"
            raise SpecError(explain(who, expected=f"a bool mask of shape {list(batch.batch_size)}", got=got))
        mask = mask.unsqueeze(-1)
    return Facts(ended, next_step_follows(ended, ended, is_init=starts, mask=mask), starts, mask)


def read_reward(batch: TensorDictBase, *, who: str) -> Tensor:
    """Return the reward of a batch ``[*B, T]``, a float ``[*B, T, R]``.

    Raises:
        KeyMissing: the batch has no reward.
        SpecError: the reward has another shape or no floating dtype.
    """
    reward = read_entry(batch, REWARD, who=who)
    if reward.shape[:-1] != batch.batch_size or not reward.is_floating_point():
        expected = f"a float reward [*B, T, R] in a batch [*B, T] = {list(batch.batch_size)}"
        raise SpecError(explain(who, expected=expected, got=f"{reward.dtype} {list(reward.shape)}"))
    return reward


def read_entry(batch: TensorDictBase, key: Key, *, who: str) -> Tensor:
    """Return the entry of a batch under a key, or refuse a batch without it.

    Raises:
        KeyMissing: naming the key, the reader and the keys that are there.
    """
    value = batch.get(key, None)
    if value is None:
        there = sorted(map(str, batch.keys(include_nested=True, leaves_only=True)))
        raise KeyMissing(explain(who, expected=f"the key {key!r} in the batch", got=", ".join(there)))
    return value


def require_single_steps(batch: TensorDictBase, *, who: str) -> None:
    """Refuse a batch of n-step transitions, which :class:`MultiStep` made: single steps are needed.

    Raises:
        SpecError: the batch has n-step transitions.
    """
    if batch.get(NUM_STEPS, None) is not None:
        hint = "MultiStep comes once, and last: either before the buffer or behind it."
        raise SpecError(explain(who, expected="single transitions", got=f"sums with {NUM_STEPS}", hint=hint))


def require_episodes(batch: TensorDictBase, *, who: str, hint: str | None = None) -> None:
    """Refuse a batch with T = 1 where an episode does not end: it is too short to compute anything over time.

    Raises:
        SpecError: T is 1 and an episode goes on; or as :func:`read_facts`.
    """
    if batch.batch_size[-1:] != (1,):
        return
    facts = read_facts(batch, who=who)
    goes_on = ~facts.ended if facts.mask is None else ~facts.ended & facts.mask
    if bool(goes_on.any()):
        if hint is None:
            hint = (
                f"EpisodeStream({who}(...)) lets steps wait for their episode's end; an EpisodeCollector has no others."
            )
        got = f"a batch {list(batch.batch_size)}, one step of longer ones"
        raise SpecError(explain(who, expected="batches that show episodes", got=got, hint=hint))


def require_discount(who: str, gamma: float) -> None:
    """Refuse a discount that is not a number between 0 and 1.

    Raises:
        ConfigError: naming the discount.
    """
    if isinstance(gamma, bool) or not isinstance(gamma, Real) or not 0 <= gamma <= 1:
        raise ConfigError(explain(who, expected="gamma, a number between 0 and 1", got=repr(gamma)))


def _flag(batch: TensorDictBase, key: Key, *, who: str) -> Tensor:
    flag = read_entry(batch, key, who=who)
    due = (*batch.batch_size, 1)
    if flag.shape != due or flag.dtype is not torch.bool:
        got = f"{flag.dtype} {list(flag.shape)}"
        raise SpecError(explain(who, expected=f"{key!r} as torch.bool {list(due)}", got=got))
    return flag


def _take(after: TensorDictBase, size: torch.Size, rows: Tensor) -> TensorDictBase:
    """Return each entry, ``[*B, T, *F]``, at the step numbers ``rows``, ``[*B, T]``, of the same row; a copy."""
    first = torch.arange(size[:-1].numel(), device=rows.device).unsqueeze(-1) * size[-1]
    index = (rows.reshape(first.shape[0], size[-1]) + first).flatten()

    def take(leaf: Tensor) -> Tensor:
        return leaf.reshape(size.numel(), *leaf.shape[len(size) :])[index.to(leaf.device)].reshape(leaf.shape)

    if isinstance(after, LazyStackedTensorDict):  # its apply() is called with the leaves of each part
        after = after.contiguous()
    return after.apply(take)


def _at_rows(flags: Tensor, rows: Tensor) -> Tensor:
    """Return ``flags``, ``[*B, T, 1]``, at the step numbers ``rows``, ``[*B, T]``, of the same row."""
    return flags.gather(-2, rows.unsqueeze(-1))
