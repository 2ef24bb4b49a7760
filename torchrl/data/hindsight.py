"""Hindsight: copies of episodes, relabelled with goals that they reached. Stores nothing, draws no samples.

Andrychowicz et al., "Hindsight Experience Replay" (2017), https://arxiv.org/abs/1707.01495.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral

import torch
from tensordict import TensorDictBase
from tensordict.utils import unravel_key
from torch import Tensor

from torchrl.data.multistep import (
    REWARD,
    piece_bounds,
    read_entry,
    read_facts,
    read_reward,
    require_episodes,
    require_single_steps,
)
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.endings import is_done
from torchrl.keys import Key

GoalFn = Callable[[Tensor, Tensor, TensorDictBase], Tensor]

STRATEGIES = ("future", "final", "episode")


class HindsightRelabel:
    """Return a batch and, behind it, k copies of its steps with goals that the same episode reached, and new rewards.

    >>> reward_fn = lambda achieved, goal, steps: -((achieved - goal).norm(dim=-1, keepdim=True) > 0.05).float()
    >>> goals = torch.rand(2, 8, 2)
    >>> batch["desired_goal"] = batch["next", "desired_goal"] = batch["next", "achieved_goal"] = goals
    >>> HindsightRelabel(reward_fn)(batch).shape  # [N, T] in, [5 N, T] out
    torch.Size([10, 8])

    ``[*B, T]`` becomes ``[(1 + k) N, T]``, with N the number of rows in ``[*B]``: first the steps as they were, then k
    times all of them with new goals, in the same order of time. The goal of a copied step is what was achieved *after*
    a step of the same piece of the episode (``("next", achieved_key)``), and is written both at the root and under
    ``"next"``. The strategy says which step that is (the names are those of section 4.5 of the paper):

    - ``"future"``: this step or a later one of the piece, drawn uniformly for every step;
    - ``"episode"``: any step of the piece, drawn uniformly for every step;
    - ``"final"``: the last step of the piece.

    A *piece* is a run of consecutive steps of one episode; it ends with the episode, at the edge of the batch, and next
    to a masked step. ``EpisodeStream(HindsightRelabel(...))`` relabels only whole episodes, whatever the batches hold.
    Masked steps are copied unchanged, and their outcomes never become goals.

    Only with ``"final"`` have the steps of a piece one goal. With the others each step has its own; its reward and
    ``next`` are right, but step t+1 is not the successor of step t: train on single transitions, not on sums over time
    or recurrent slices. The same holds with every strategy at the seam of two batches. What a policy or an estimator
    wrote (log-probs, hidden states, values) is copied and still about the old goal.
    :class:`~torchrl.data.MultiStep` would mix goals.

    Flags are copied, too, unless there is a ``terminated_fn``: then ``terminated`` is its result, and a copy whose
    episode had ended although the task with the new goal was not over is truncated. ``is_init`` is never changed.

    Args:
        reward_fn: computes the reward from what was achieved after each step and the new goal, ``[n, F]`` each, and the
            n steps themselves (with the new goal and the old reward); gives ``[n, R]``, like the stored reward.
        goal_key: the goal, at the root and under ``"next"``.
        achieved_key: what was achieved, read under ``"next"``; of the goal's shape and dtype.
        strategy: ``"future"``, ``"final"`` or ``"episode"``.
        num_goals: k; None means 4 as in the paper, and 1 with ``"final"``, the only k possible there.
        terminated_fn: takes the same arguments; tells where the task with the new goal was over, bool ``[n, 1]``.
        generator: source of the draws, on its own device; None uses torch's global one.

    Raises:
        ConfigError: an unknown strategy, or a ``num_goals`` that is not possible.
    """

    def __init__(
        self,
        reward_fn: GoalFn,
        *,
        goal_key: Key = "desired_goal",
        achieved_key: Key = "achieved_goal",
        strategy: str = "future",
        num_goals: int | None = None,
        terminated_fn: GoalFn | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            expected = f"a strategy of {', '.join(STRATEGIES)}"
            raise ConfigError(explain("HindsightRelabel", expected=expected, got=repr(strategy)))
        if num_goals is None:
            num_goals = 1 if strategy == "final" else 4
        if isinstance(num_goals, bool) or not isinstance(num_goals, Integral) or num_goals < 1:
            expected = "num_goals, an integer of at least 1"
            raise ConfigError(explain("HindsightRelabel", expected=expected, got=repr(num_goals)))
        if strategy == "final" and num_goals > 1:
            hint = "All copies would be alike."
            expected = "num_goals 1 with the strategy 'final'"
            raise ConfigError(explain("HindsightRelabel", expected=expected, got=num_goals, hint=hint))
        self.reward_fn = reward_fn
        self.terminated_fn = terminated_fn
        self.goal_key = unravel_key(goal_key)
        self.achieved_key = unravel_key(achieved_key)
        self.strategy = strategy
        self.num_goals = int(num_goals)
        self.generator = generator

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return the steps of a batch ``[*B, T]`` and their copies, ``[(1 + k) N, T]``; the batch is not written to.

        Raises:
            KeyMissing: a goal, what was achieved, the reward or a flag is not there.
            SpecError: the batch has no time dimension, or single steps of longer episodes, or n-step transitions; the
                achieved goal differs from the goal in shape or dtype; or a user's function returned a wrong tensor.
        """
        who = "HindsightRelabel"
        facts = read_facts(batch, who=who)
        require_episodes(batch, who=who)
        require_single_steps(batch, who=who)
        read_reward(batch, who=who)
        self._require_goals(batch)
        num_rows, num_steps = batch.batch_size[:-1].numel(), batch.batch_size[-1]
        series = batch.reshape(num_rows, num_steps)
        first, last = (bound.reshape(num_rows, num_steps) for bound in piece_bounds(facts.follows))
        mask = torch.ones_like(first, dtype=torch.bool) if facts.mask is None else facts.mask.reshape(first.shape)
        mask = mask.repeat(self.num_goals, 1)
        chosen = torch.cat([torch.zeros_like(first, dtype=torch.bool), mask])  # steps of the result to relabel
        result = torch.cat([series] * (1 + self.num_goals))
        row = torch.arange(num_rows, device=first.device).repeat(self.num_goals).unsqueeze(-1)
        achieved = read_entry(series, unravel_key(("next", self.achieved_key)), who=who)
        goal = achieved[row, self._choose_steps(first, last)][mask]
        for key in (self.goal_key, unravel_key(("next", self.goal_key))):
            result.get(key)[chosen] = goal
        rows = result[chosen]
        arguments = rows.get(unravel_key(("next", self.achieved_key))), goal, rows
        reward = self.reward_fn(*arguments)
        _require_like(reward, rows.get(REWARD), name="reward_fn")
        result.get(REWARD)[chosen] = reward
        if self.terminated_fn is not None:
            ended = facts.ended.reshape(num_rows, num_steps, 1).repeat(self.num_goals, 1, 1)[mask]
            terminated = self.terminated_fn(*arguments)
            _require_like(terminated, ended, name="terminated_fn")
            truncated = rows.get(("next", "truncated")) | (ended & ~terminated)
            flags = {"terminated": terminated, "truncated": truncated, "done": is_done(terminated, truncated)}
            for name, flag in flags.items():
                if result.get(("next", name), None) is not None:
                    result.get(("next", name))[chosen] = flag
        return result

    def state_dict(self) -> dict:
        """Return the state of the generator; torch's global stream is not part of it."""
        return {"generator": None if self.generator is None else self.generator.get_state()}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore :meth:`state_dict`."""
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def _choose_steps(self, first: Tensor, last: Tensor) -> Tensor:
        """Choose the step whose achieved goal each copy gets, int64 ``[k N, T]``, by the strategy.

        ``first`` and ``last`` are the bounds of each step's piece, int64 ``[N, T]``.
        """
        last = last.repeat(self.num_goals, 1)
        if self.strategy == "final":
            return last
        if self.strategy == "episode":
            lowest = first.repeat(self.num_goals, 1)
        else:
            lowest = torch.arange(last.shape[1], device=last.device)
        num = last - lowest + 1
        device = None if self.generator is None else self.generator.device
        share = torch.rand(last.shape, generator=self.generator, dtype=torch.float64, device=device).to(last.device)
        return lowest + (share * num).long().clamp(max=num - 1)

    def _require_goals(self, batch: TensorDictBase) -> None:
        """Refuse a batch whose goal and achieved goal differ in shape or dtype."""
        who = "HindsightRelabel"
        achieved = read_entry(batch, unravel_key(("next", self.achieved_key)), who=who)
        for key in (self.goal_key, unravel_key(("next", self.goal_key))):
            goal = read_entry(batch, key, who=who)
            if goal.shape != achieved.shape or goal.dtype is not achieved.dtype:
                expected = f"the goal {key!r} to look like what was achieved, {achieved.dtype} {list(achieved.shape)}"
                raise SpecError(explain(who, expected=expected, got=f"{goal.dtype} {list(goal.shape)}"))


def _require_like(given: Tensor, stored: Tensor, *, name: str) -> None:
    """Refuse a user function's result unless it is a tensor with the shape and dtype of the stored one."""
    if not isinstance(given, Tensor) or given.shape != stored.shape or given.dtype is not stored.dtype:
        got = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        expected = f"{stored.dtype} {list(stored.shape)} from {name}"
        hint = "It gets n steps, [n, ...]: keep the last dimension (keepdim=True), and convert with .float()."
        raise SpecError(explain("HindsightRelabel", expected=expected, got=got, hint=hint))
