"""The T-maze of Bakker (2001) in torch, thousands of rows at a time: a sign at the start tells where to turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.counts import is_count
from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv
from torchrl.errors import ConfigError, explain

NORTH, EAST, SOUTH, WEST = range(4)
GOAL, MISTAKE = 4.0, -0.1
SIGNS = ((1.0, 1.0, 0.0), (0.0, 1.0, 1.0))  # in the first cell, by the goal: it lies north, it lies south
CORRIDOR, JUNCTION = (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)


class TMaze(TorchEnv):
    """A batch of memory tasks in torch: see a sign, walk down a corridor, and at its end turn as the sign said.

    ``observation``, float32 ``[*B, 3]``: ``(1, 1, 0)`` in the first cell where the goal lies north, ``(0, 1, 1)`` where
    it lies south, ``(1, 0, 1)`` in the corridor, ``(0, 1, 0)`` at the junction. Actions: 0 north, 1 east, 2 south,
    3 west. A step into a wall does not move and gives reward -0.1; a step along the corridor gives 0. At the junction
    north and south terminate the episode, with reward 4 on the side of the goal and -0.1 on the other.

    The best return is 4 for any length. At the junction the observation does not tell the side of the goal, so policies
    without memory get at most 1.95 on average.

    The task of Bakker (2001), "Reinforcement Learning with Long Short-Term Memory", section 4, with a time limit.

    >>> env = TMaze(2, length=1)
    >>> state = env.start(RowRandom([2], seed=0)).set("position", torch.ones(2, 1, dtype=torch.int64))
    >>> state["goal"] = torch.tensor([[0], [1]])  # north, south
    >>> env.dynamics(state, torch.tensor([0, 0]))[1].flatten()  # both go north
    tensor([ 4.0000, -0.1000])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        length: steps from the first cell to the junction.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Attributes:
        best_return: of a policy with memory.
        best_return_without_memory: the mean return of the best policy without memory.

    Raises:
        ConfigError: ``length`` or ``max_episode_steps`` is not positive, an episode is too short for a choice, or
            ``num_envs`` is no batch size.
    """

    best_return = GOAL
    best_return_without_memory = (GOAL + MISTAKE) / 2

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        length: int = 10,
        max_episode_steps: int | None = 200,
        device: torch.device | str = "cpu",
    ) -> None:
        if not is_count(length):
            raise ConfigError(explain("TMaze", expected="a length of at least 1 step", got=length))
        shape = batch_shape(num_envs)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": Bounded(0.0, 1.0, (*shape, 3), device=device)}, shape=shape),
            action_spec=Categorical(4, shape, device=device),
            reward_spec=Bounded(MISTAKE, GOAL, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            hidden=["goal", "position"],
            device=device,
        )
        if self.step_limit <= length:
            expected = f"max_episode_steps above the length of {length}"
            hint = "The last step is the choice."
            raise ConfigError(explain("TMaze", expected=expected, got=max_episode_steps, hint=hint))
        self.length = length
        self._signs, self._corridor, self._junction = (
            torch.tensor(values, device=self.device) for values in (SIGNS, CORRIDOR, JUNCTION)
        )

    def start(self, random: RowRandom) -> TensorDict:
        """Put every row into the first cell, and draw the side of its goal; see :meth:`TorchEnv.start`."""
        goal = random.randint(2, 1)
        return self._state(torch.zeros_like(goal), goal)

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every row's position, reward and termination after one step; see :meth:`TorchEnv.dynamics`."""
        position, goal, action = state["position"], state["goal"], action.unsqueeze(-1)
        chooses = (position == self.length) & ((action == NORTH) | (action == SOUTH))
        is_right = chooses & ((action == SOUTH) == (goal == 1))
        moved = (position + (action == EAST).long() - (action == WEST).long()).clamp(0, self.length)
        is_mistake = (moved == position) & ~is_right  # a wall, or the wrong side
        reward = is_right * GOAL + is_mistake * MISTAKE
        return self._state(moved, goal), reward, chooses

    def _state(self, position: torch.Tensor, goal: torch.Tensor) -> TensorDict:
        seen = torch.where(position == self.length, self._junction, self._corridor)
        seen = torch.where(position == 0, self._signs[goal.squeeze(-1)], seen)
        return TensorDict({"observation": seen, "position": position, "goal": goal}, goal.shape[:-1])
