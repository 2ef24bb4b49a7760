"""The cars of gymnasium's two MountainCar tasks, thousands at a time, in torch. Not wrappers of gymnasium's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, Composite, TensorSpec
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv

LEFT, RIGHT, MAX_SPEED = -1.2, 0.6, 0.07  # the walls, and the speed per step
GRAVITY = 0.0025
START = (-0.6, -0.4)  # at rest, around the valley's floor
FORCE, GOAL = 0.001, 0.5  # of MountainCar
POWER, NEAR_GOAL, PRIZE = 0.0015, 0.45, 100.0  # of MountainCarContinuous


class _Valley(TorchEnv):
    """What both tasks share: a car between two hills, of position and speed."""

    def __init__(
        self,
        num_envs: int | Sequence[int] | None,
        *,
        action_spec: TensorSpec,
        reward: tuple[float, float],
        max_episode_steps: int | None,
        device: torch.device | str,
    ) -> None:
        shape = batch_shape(num_envs)
        low, high = torch.tensor([LEFT, -MAX_SPEED]), torch.tensor([RIGHT, MAX_SPEED])
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": Bounded(low, high, (*shape, 2), device=device)}, shape=shape),
            action_spec=action_spec,
            reward_spec=Bounded(*reward, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            device=device,
        )

    def start(self, random: RowRandom) -> TensorDict:
        """Draw start states at rest on the valley's floor; see :meth:`TorchEnv.start`."""
        low, high = START
        position = random.rand().mul_(high - low).add_(low)
        return self._state(position, torch.zeros_like(position))

    def _move(self, state: TensorDict, force: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return position and speed after one step under a force, ``[*B]`` each."""
        position, speed = state["observation"].unbind(-1)
        speed = (speed + (force - GRAVITY * (3 * position).cos())).clamp(-MAX_SPEED, MAX_SPEED)
        position = (position + speed).clamp(LEFT, RIGHT)
        return position, speed.masked_fill((position <= LEFT) & (speed < 0), 0)

    def _state(self, position: torch.Tensor, speed: torch.Tensor) -> TensorDict:
        return TensorDict({"observation": torch.stack([position, speed], -1)}, position.shape)


class MountainCar(_Valley):
    """A batch of gymnasium's ``MountainCar-v0`` tasks in torch: swing a weak car out of a valley.

    ``observation``, float32 ``[*B, 2]``: position and speed. Actions: 0 push left, 1 do nothing, 2 push right. Every
    step pays -1; an episode is terminated at position 0.5. Starts are at rest between -0.6 and -0.4; they are not those
    that gymnasium draws from the same seed. The task of Moore (1990), "Efficient memory-based learning for robot
    control", chapter 4.3; with force u, ``v += 0.001 u - 0.0025 cos(3 x)``, limited to ±0.07, then ``x += v``, and the
    wall at -1.2 stops the car.

    >>> env = MountainCar(2)
    >>> state = TensorDict({"observation": torch.tensor([[-0.5, 0.0], [0.49, 0.02]])}, [2])
    >>> env.dynamics(state, torch.tensor([2, 2]))[2].flatten()  # at the goal?
    tensor([False,  True])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    task = "MountainCar-v0"

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = 200,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            num_envs,
            action_spec=Categorical(3, batch_shape(num_envs), device=device),
            reward=(-1.0, -1.0),
            max_episode_steps=max_episode_steps,
            device=device,
        )

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every car's state, reward and termination after one step; see :meth:`TorchEnv.dynamics`."""
        position, speed = self._move(state, (action - 1) * FORCE)
        over = ((position >= GOAL) & (speed >= 0)).unsqueeze(-1)
        return self._state(position, speed), torch.full_like(over, -1.0, dtype=position.dtype), over


class MountainCarContinuous(_Valley):
    """A batch of gymnasium's ``MountainCarContinuous-v0`` tasks in torch: leave a valley with little force.

    ``observation``, float32 ``[*B, 2]``: position and speed. The action, float32 ``[*B, 1]``, is a force; what lies
    beyond ±1 moves the car like ±1, but is paid for as it is: a step pays ``-0.1 u²``, and 100 more where it arrives at
    position 0.45, which terminates the episode. Starts are those of :class:`MountainCar`. Source: gymnasium's
    documentation of the task: ``v += 0.0015 u - 0.0025 cos(3 x)``, limited to ±0.07, then ``x += v``.

    >>> env = MountainCarContinuous(1)
    >>> state = TensorDict({"observation": torch.tensor([[0.44, 0.02]])}, [1])
    >>> env.dynamics(state, torch.tensor([[0.5]]))[1]  # 100 - 0.1 * 0.25
    tensor([[99.9750]])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    task = "MountainCarContinuous-v0"

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = 999,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            num_envs,
            action_spec=Bounded(-1.0, 1.0, (*batch_shape(num_envs), 1), device=device),
            reward=(-float("inf"), PRIZE),
            max_episode_steps=max_episode_steps,
            device=device,
        )

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every car's state, reward and termination after one step; see :meth:`TorchEnv.dynamics`."""
        position, speed = self._move(state, POWER * action.squeeze(-1).clamp(-1, 1))
        over = ((position >= NEAR_GOAL) & (speed >= 0)).unsqueeze(-1)
        return self._state(position, speed), PRIZE * over - 0.1 * action**2, over
