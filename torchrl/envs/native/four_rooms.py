"""Four rooms with a door between neighbours, thousands at a time, in torch: the task that options were shown on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv
from torchrl.errors import ConfigError, explain

SIZE, MIDDLE = 11, 5  # cells along a side; the wall from north to south stands in this column
DOORS = {(2, MIDDLE), (9, MIDDLE), (MIDDLE, 1), (6, 8)}  # row and column
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # north, east, south, west


def _is_free(row: int, column: int) -> bool:
    if not (0 <= row < SIZE and 0 <= column < SIZE):
        return False
    is_wall = column == MIDDLE or (row == MIDDLE if column < MIDDLE else row == MIDDLE + 1)
    return not is_wall or (row, column) in DOORS


CELLS = [(row, column) for row in range(SIZE) for column in range(SIZE) if _is_free(row, column)]


class FourRooms(TorchEnv):
    """A batch of mazes of four rooms in torch: go from anywhere through the doors to the goal.

    ``observation``, float32 ``[*B, 104]``: 1 at the cell where one is, cells numbered row by row from the north-west.
    Actions: 0 north, 1 east, 2 south, 3 west; a step into a wall does not move. Each step pays -1, and the one into the
    goal ends the episode. Starts are drawn from all cells but the goal. The rooms are those of Sutton, Precup and Singh
    (1999), "Between MDPs and semi-MDPs", figure 2; moves do not slip, where those of the paper do in one of three.

    >>> env = FourRooms(2)
    >>> state = env.start(RowRandom([2], seed=0)).set("place", torch.tensor([[0], [0]]))  # the north-western corner
    >>> env.dynamics(state, torch.tensor([0, 1]))[0]["place"].flatten()  # a wall in the north, a cell in the east
    tensor([0, 1])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        goal: row and column of the goal's cell, of 11 by 11; the eastern door by default, as in the paper.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Attributes:
        distances: steps of the shortest way from each cell to the goal, int64 ``[104]``.
        best_return: the mean return of the best policy.

    Raises:
        ConfigError: the goal is a wall, ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        goal: Sequence[int] = (6, 8),
        max_episode_steps: int | None = 200,
        device: torch.device | str = "cpu",
    ) -> None:
        if tuple(goal) not in CELLS:
            raise ConfigError(explain("FourRooms(goal=...)", expected="row and column of a free cell", got=goal))
        shape = batch_shape(num_envs)
        seen = Bounded(0.0, 1.0, (*shape, len(CELLS)), device=device)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": seen}, shape=shape),
            action_spec=Categorical(len(MOVES), shape, device=device),
            reward_spec=Bounded(-1.0, -1.0, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            hidden=["place"],
            device=device,
        )
        numbers = {cell: number for number, cell in enumerate(CELLS)}
        following = [
            [numbers.get((row + south, column + east), numbers[row, column]) for south, east in MOVES]
            for row, column in CELLS
        ]
        self.goal = numbers[tuple(goal)]
        self._following = torch.tensor(following, device=self.device)
        self.distances = _distances(self._following, self.goal)
        self.best_return = -self.distances.sum().item() / (len(CELLS) - 1)

    def start(self, random: RowRandom) -> TensorDict:
        """Draw a cell other than the goal; see :meth:`TorchEnv.start`."""
        place = random.randint(len(CELLS) - 1, 1)
        return self._state(place + (place >= self.goal))

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every row's cell after one step; see :meth:`TorchEnv.dynamics`."""
        place = self._following[state["place"], action.unsqueeze(-1)]
        return self._state(place), -torch.ones_like(place, dtype=torch.float32), place == self.goal

    def _state(self, place: torch.Tensor) -> TensorDict:
        seen = torch.nn.functional.one_hot(place.squeeze(-1), len(CELLS)).float()
        return TensorDict({"observation": seen, "place": place}, place.shape[:-1])


def _distances(following: torch.Tensor, goal: int) -> torch.Tensor:
    """Return the steps of the shortest way from each cell to the goal, int64 ``[n]``, for moves ``[n, 4]``."""
    far = len(following)
    distances = torch.full((far,), far, device=following.device)
    distances[goal] = 0
    for _ in range(far):
        distances = torch.minimum(distances, distances[following].amin(-1) + 1)
    return distances
