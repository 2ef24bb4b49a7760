"""Three known tasks of few states, as tables: a grid, a chain that asks for exploration, a path between cliffs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torchrl.counts import is_count
from torchrl.envs.native.tabular import TabularEnv
from torchrl.errors import ConfigError, explain

SIDE = 5  # cells along a side of the grid
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # north, east, south, west
JUMPS = {(0, 1): ((4, 1), 10.0), (0, 3): ((2, 3), 5.0)}  # from a cell, whatever one does, to another; what it pays
SMALL, LARGE = 0.001, 1.0  # at the left and at the right end of the chain


class GridWorld(TabularEnv):
    """A batch of 5 by 5 grids in torch whose values are printed in a book: come to the cell that pays, again and again.

    ``observation``, float32 ``[*B, 25]``: 1 at the cell where one is, numbered row by row from the north-west. Actions:
    0 north, 1 east, 2 south, 3 west; a step over the edge does not move and pays -1. Whatever one does in the second
    cell of the northern row pays 10 and leads to the second of the southern one; in the fourth it pays 5 and leads to
    the fourth of the middle row. All else pays 0, and nothing terminates. Starts are drawn from all cells. Examples 3.5
    and 3.8 of Sutton & Barto (2018), "Reinforcement Learning: An Introduction", with optimal values in figure 3.5.

    >>> env = GridWorld(2)
    >>> env.action_values(0.9).amax(-1)[:5]  # of the northern row: 22.0, 24.4, 22.0, 19.4 and 17.5 in the book
    tensor([21.9775, 24.4194, 21.9775, 19.4194, 17.4775], dtype=torch.float64)

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = 100,
        device: torch.device | str = "cpu",
    ) -> None:
        following, rewards = [], []
        for row in range(SIDE):
            for column in range(SIDE):
                steps = [_grid_step(row, column, south, east) for south, east in MOVES]
                following.append([number for number, _ in steps])
                rewards.append([reward for _, reward in steps])
        super().__init__(
            torch.tensor(following),
            torch.tensor(rewards),
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
            device=device,
        )


class ChainMDP(TabularEnv):
    """A batch of chains in torch where a small reward is near and a large one far: a task for exploration.

    ``observation``, float32 ``[*B, length]``: 1 at the cell where one is. Actions: 0 left, 1 right. Left in the first
    cell pays 0.001 and right in the last pays 1, and neither moves; all else pays 0. Episodes begin in the second cell
    and do not terminate; they are truncated after ``length + 9`` steps. Who acts at random sees the large reward in few
    of ``2 ** length`` episodes. After the chain of Osband et al. (2016), "Deep exploration via bootstrapped DQN",
    https://arxiv.org/abs/1602.04621, section 5.1.

    >>> env = ChainMDP(2, length=4)
    >>> env.action_values(0.5)[:, 1].tolist()  # of going right: 2 in the last cell, half of it one before
    [0.25, 0.5, 1.0, 2.0]
    >>> env.best_return  # two steps to the last cell, then 1 in each of the 11 that are left
    11.0

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        length: cells of the chain.
        max_episode_steps: steps after which an episode is truncated; None: ``length + 9``.
        device: where the state lives.

    Raises:
        ConfigError: ``length`` is below 2, ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        length: int = 10,
        max_episode_steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not is_count(length, least=2):
            raise ConfigError(explain("ChainMDP", expected="a length of at least 2 cells", got=length))
        cells = torch.arange(length)
        rewards = torch.zeros(length, 2)
        rewards[0, 0], rewards[-1, 1] = SMALL, LARGE
        super().__init__(
            torch.stack([(cells - 1).clamp(min=0), (cells + 1).clamp(max=length - 1)], -1),
            rewards,
            starts=[1],
            num_envs=num_envs,
            max_episode_steps=length + 9 if max_episode_steps is None else max_episode_steps,
            device=device,
        )
        self.length = length


class NarrowPath(TabularEnv):
    """A batch of paths in torch that are left by any wrong step: only a whole row of right actions is paid.

    ``observation``, float32 ``[*B, length]``: 1 at the cell where one is. In cell k the right action is
    ``k % num_actions`` and leads one cell on; every other action terminates the episode and pays 0. The step out of the
    last cell pays 1 and terminates it, too. So ``Q(k, right) = gamma ** (length - 1 - k)``, all else is 0, and who acts
    at random arrives once in ``num_actions ** length`` episodes.

    >>> env = NarrowPath(2, length=3)
    >>> env.action_values(0.5).tolist()
    [[0.25, 0.0], [0.0, 0.5], [1.0, 0.0]]

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        length: cells of the path.
        num_actions: actions in each cell.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Attributes:
        path: the right action of each cell, int64 ``[length]``.

    Raises:
        ConfigError: ``length`` is not positive, ``num_actions`` below 2, ``max_episode_steps`` is not positive, or
            ``num_envs`` no batch size.
    """

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        length: int = 10,
        num_actions: int = 2,
        max_episode_steps: int | None = 100,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value, least in (("length", length, 1), ("num_actions", num_actions, 2)):
            if not is_count(value, least=least):
                raise ConfigError(explain("NarrowPath", expected=f"{name} of at least {least}", got=value))
        cells = torch.arange(length)
        path = cells % num_actions
        following, rewards = cells.unsqueeze(-1).repeat(1, num_actions), torch.zeros(length, num_actions)
        ends = torch.ones(length, num_actions, dtype=torch.bool)
        following[cells, path], ends[cells, path] = (cells + 1).clamp(max=length - 1), cells == length - 1
        rewards[-1, path[-1]] = 1.0
        super().__init__(
            following,
            rewards,
            ends,
            starts=[0],
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
            device=device,
        )
        self.path = path.to(self.device)


def _grid_step(row: int, column: int, south: int, east: int) -> tuple[int, float]:
    """Return the number of the cell that a move of the grid leads to, and what it pays."""
    if (row, column) in JUMPS:
        (row, column), reward = JUMPS[row, column]
        return row * SIDE + column, reward
    if not (0 <= row + south < SIDE and 0 <= column + east < SIDE):
        return row * SIDE + column, -1.0
    return (row + south) * SIDE + column + east, 0.0
