"""Worlds of few states in torch that are tables: of successors, rewards and endings. Their values can be computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv
from torchrl.errors import ConfigError, explain


class TabularEnv(TorchEnv):
    """A batch of copies of a finite deterministic world in torch, given by tables; it knows its optimal values.

    ``observation``, float32 ``[*B, S]``: 1 at the present state, of S states. The action is the number of one of A.
    Starts are drawn evenly from ``starts``.

    >>> ring = TabularEnv(torch.tensor([[1], [0]]), torch.tensor([[1.0], [0.0]]))  # there and back, one action
    >>> ring.action_values(0.5).flatten().tolist()  # 1 + 1/4 + 1/16 + ..., and half of it
    [1.3333..., 0.6666...]

    Args:
        following: the state after each state and action, int64 ``[S, A]``.
        rewards: what that step pays, float32 ``[S, A]``.
        ends: whether it terminates the episode, bool ``[S, A]``; None: no step does.
        starts: the states where episodes begin; None: all.
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Attributes:
        best_return: the largest mean sum of rewards of an episode, over the starts; None without a limit of steps.

    Raises:
        ConfigError: tables of different shapes or wrong dtypes, states that there are not; ``max_episode_steps`` is not
            positive, or ``num_envs`` no batch size.
    """

    def __init__(
        self,
        following: torch.Tensor,
        rewards: torch.Tensor,
        ends: torch.Tensor | None = None,
        *,
        starts: Sequence[int] | None = None,
        num_envs: int | Sequence[int] | None = None,
        max_episode_steps: int | None = 100,
        device: torch.device | str = "cpu",
    ) -> None:
        ends = torch.zeros_like(following, dtype=torch.bool) if ends is None else ends
        starts = range(len(following)) if starts is None else starts
        _require_tables(type(self).__name__, following, rewards, ends, starts)
        shape, (num_states, num_actions) = batch_shape(num_envs), following.shape
        seen = Bounded(0.0, 1.0, (*shape, num_states), device=device)
        least, most = rewards.min().item(), rewards.max().item()
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": seen}, shape=shape),
            action_spec=Categorical(num_actions, shape, device=device),
            reward_spec=Bounded(least, most, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            hidden=["place"],
            device=device,
        )
        self._following, self._rewards, self._ends, self._starts = (
            table.to(self.device) for table in (following, rewards, ends, torch.tensor(list(starts)))
        )
        self.best_return = None if max_episode_steps is None else self._best_return(max_episode_steps)

    def start(self, random: RowRandom) -> TensorDict:
        """Draw start states; see :meth:`TorchEnv.start`."""
        return self._state(self._starts[random.randint(len(self._starts), 1)])

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Look up every row's next state, reward and termination; see :meth:`TorchEnv.dynamics`."""
        at = state["place"], action.unsqueeze(-1)
        return self._state(self._following[at]), self._rewards[at], self._ends[at]

    def action_values(self, gamma: float) -> torch.Tensor:
        """Return the optimal action values ``Q(s, a)``, float64 ``[S, A]``, without the limit of steps.

        By policy iteration, Howard (1960), "Dynamic programming and Markov processes": values of a policy by a linear
        equation, the next policy chooses the best of them, until nothing is better.

        Args:
            gamma: the discount, from 0 to below 1.

        Raises:
            ConfigError: ``gamma`` is out of range.
        """
        if not 0 <= gamma < 1:
            expected = "gamma from 0 to below 1"
            raise ConfigError(explain(f"{type(self).__name__}.action_values", expected=expected, got=gamma))
        goes_on = gamma * (~self._ends).double()
        rows = torch.arange(len(self._following), device=self.device)
        choice = torch.zeros_like(rows)
        while True:
            moves = torch.eye(len(rows), dtype=torch.float64, device=self.device)
            moves[rows, self._following[rows, choice]] -= goes_on[rows, choice]
            values = torch.linalg.solve(moves, self._rewards.double()[rows, choice])
            actions = self._rewards.double() + goes_on * values[self._following]
            best, better = actions.max(-1)
            is_better = best > actions[rows, choice] + 1e-12 * (1 + best.abs())
            if not bool(is_better.any()):
                return actions
            choice = torch.where(is_better, better, choice)

    def _best_return(self, num_steps: int) -> float:
        values = torch.zeros(len(self._following), dtype=torch.float64, device=self.device)
        for _ in range(num_steps):
            values = (self._rewards.double() + values[self._following].masked_fill(self._ends, 0)).amax(-1)
        return values[self._starts].mean().item()

    def _state(self, place: torch.Tensor) -> TensorDict:
        seen = torch.nn.functional.one_hot(place.squeeze(-1), len(self._following)).float()
        return TensorDict({"observation": seen, "place": place}, place.shape[:-1])


def _require_tables(
    who: str, following: torch.Tensor, rewards: torch.Tensor, ends: torch.Tensor, starts: Sequence[int]
) -> None:
    """Refuse tables that do not describe one world."""
    dtypes = {"following": torch.int64, "rewards": torch.float32, "ends": torch.bool}
    for (name, dtype), table in zip(dtypes.items(), (following, rewards, ends), strict=True):
        if table.dtype is not dtype or table.ndim != 2 or table.shape != following.shape or not table.numel():
            expected = f"{name} of {dtype} and shape [S, A], as following"
            raise ConfigError(explain(who, expected=expected, got=f"{table.dtype} of {list(table.shape)}"))
    num = len(following)
    if following.min() < 0 or following.max() >= num:
        expected = f"following states from 0 to {num - 1}"
        raise ConfigError(explain(who, expected=expected, got=f"{following.min()} to {following.max()}"))
    if not len(starts) or min(starts) < 0 or max(starts) >= num:
        raise ConfigError(explain(who, expected=f"starts from 0 to {num - 1}", got=list(starts)))
