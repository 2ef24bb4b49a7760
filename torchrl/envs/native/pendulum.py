"""The pendulum of gymnasium's ``Pendulum-v1``, thousands at a time, in torch. Not a wrapper of gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv

GRAVITY = 10.0  # m/s²
MASS, LENGTH = 1.0, 1.0  # kg, m: a rod that turns about its end
STEP = 0.05  # s
MAX_SPEED, MAX_TORQUE = 8.0, 2.0  # rad/s, N m
START_SPEED = 1.0  # rad/s
MAX_COST = math.pi**2 + 0.1 * MAX_SPEED**2 + 0.001 * MAX_TORQUE**2


class Pendulum(TorchEnv):
    """A batch of gymnasium's ``Pendulum-v1`` tasks in torch: swing a pendulum up and hold it.

    ``observation``, float32 ``[*B, 3]``: cosine and sine of the angle from upright, angular velocity in rad/s. The
    action is a torque in N m, float32 ``[*B, 1]``; what lies beyond ±2 counts as ±2. A step pays
    ``-(θ² + 0.1 ω² + 0.001 u²)`` of the state it starts from. No episode is terminated. Starts
    have any angle and up to ±1 rad/s; they are not those that gymnasium draws from the same seed.

    A rod of mass m and length l about its end, ``dω/dt = 3 g sin θ / (2 l) + 3 u / (m l²)``, in steps of 0.05 s; the
    speed is limited to ±8 rad/s and turns the angle after it changed. Source: gymnasium's documentation of Pendulum.

    >>> env = Pendulum(2)
    >>> hanging = TensorDict({"observation": torch.tensor([-1.0, 0.0, 0.0]).expand(2, 3)}, [2])  # at rest: -pi ** 2
    >>> env.dynamics(hanging, torch.zeros(2, 1))[1]
    tensor([[-9.8696],
            [-9.8696]])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    task = "Pendulum-v1"

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = 200,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = batch_shape(num_envs)
        high = torch.tensor([1.0, 1.0, MAX_SPEED])
        observation = Bounded(-high, high, (*shape, 3), device=device)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": observation}, shape=shape),
            action_spec=Bounded(-MAX_TORQUE, MAX_TORQUE, (*shape, 1), device=device),
            reward_spec=Bounded(-1.001 * MAX_COST, 0.0, (*shape, 1), device=device),  # the sum is rounded
            max_episode_steps=max_episode_steps,
            device=device,
        )

    def start(self, random: RowRandom) -> TensorDict:
        """Draw start states with any angle and up to ±1 rad/s; see :meth:`TorchEnv.start`."""
        angle, speed = random.rand(2).mul_(2).sub_(1).unbind(-1)
        return self._state(angle * math.pi, speed * START_SPEED)

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every pendulum's state, reward and termination after one step; see :meth:`TorchEnv.dynamics`."""
        cosine, sine, speed = state["observation"].unbind(-1)
        angle = torch.atan2(sine, cosine)
        torque = action.squeeze(-1).clamp(-MAX_TORQUE, MAX_TORQUE)
        reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
        rate = 1.5 * GRAVITY / LENGTH * sine + 3 / (MASS * LENGTH**2) * torque
        speed = (speed + STEP * rate).clamp(-MAX_SPEED, MAX_SPEED)
        over = torch.zeros((*self.batch_size, 1), dtype=torch.bool, device=self.device)
        return self._state(angle + STEP * speed, speed), reward.unsqueeze(-1), over

    def _state(self, angle: torch.Tensor, speed: torch.Tensor) -> TensorDict:
        observation = torch.stack([angle.cos(), angle.sin(), speed], dim=-1)
        return TensorDict({"observation": observation}, angle.shape)
