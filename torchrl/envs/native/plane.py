"""A point in a square, thousands at a time, in torch: the simplest task where behaviours differ by where they go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv

SPEED = 0.1  # half sides of the square per step, along each axis


class Plane(TorchEnv):
    """A batch of points in torch that begin in the middle of a square and go where they like.

    ``observation``, float32 ``[*B, 2]``: the place, from -1 to 1. The action ``[*B, 2]``, from -1 to 1, moves it by a
    tenth of that; walls stop it. A step pays the distance from the middle after it; episodes do not terminate. The 2D
    navigation of Eysenbach et al. (2018), "Diversity is all you need", https://arxiv.org/abs/1802.06070, figure 2a.

    >>> env = Plane(2)
    >>> state, action = env.start(RowRandom([2], seed=0)), torch.tensor([[1.0, 0.0], [-0.3, 0.4]])
    >>> env.dynamics(state, action)[1].flatten()
    tensor([0.1000, 0.0500])

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
        max_episode_steps: int | None = 20,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = batch_shape(num_envs)
        square = Bounded(-1.0, 1.0, (*shape, 2), device=device)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": square}, shape=shape),
            action_spec=square,
            reward_spec=Bounded(0.0, 2**0.5, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            device=device,
        )

    def start(self, random: RowRandom) -> TensorDict:
        """Put every row into the middle; see :meth:`TorchEnv.start`."""
        middle = torch.zeros(*random.batch_size, 2, device=self.device)
        return TensorDict({"observation": middle}, random.batch_size)

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Move every point; see :meth:`TorchEnv.dynamics`."""
        place = (state["observation"] + SPEED * action.clamp(-1, 1)).clamp(-1, 1)
        distance = place.norm(dim=-1, keepdim=True)
        following = TensorDict({"observation": place}, self.batch_size)
        return following, distance, torch.zeros_like(distance, dtype=torch.bool)
