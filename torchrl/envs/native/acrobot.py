"""The two-link pendulum of gymnasium's ``Acrobot-v1``, thousands at a time, in torch. Not a wrapper of gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv

GRAVITY = 9.8  # m/s²
MASS, LENGTH, CENTRE, INERTIA = 1.0, 1.0, 0.5, 1.0  # kg, m, m from the joint above, kg m²; of either link
STEP = 0.2  # s
MAX_SPEEDS = (4 * math.pi, 9 * math.pi)  # rad/s, of the two joints
HEIGHT = 1.0  # m above the upper joint
START = 0.1  # every number of a first state is drawn between minus this and this


class Acrobot(TorchEnv):
    """A batch of gymnasium's ``Acrobot-v1`` tasks in torch: swing the tip of two links up by a torque between them.

    ``observation``, float32 ``[*B, 6]``: cosine and sine of the upper link's angle from hanging, the same of the lower
    link's angle from the upper one, both angular velocities in rad/s. Actions 0, 1, 2 are torques of -1, 0 and 1 N m.
    Every step pays -1, but for the one that lifts the tip more than 1 m above the upper joint: it pays 0 and terminates
    the episode. Starts are not those that gymnasium draws from the same seed.

    The equations of Sutton & Barto (2018), "Reinforcement Learning: An Introduction", section 11.3 of its first
    edition, as gymnasium integrates them: one Runge-Kutta step of fourth order of 0.2 s, then speeds are limited to 4π
    and 9π rad/s. With angles θ, speeds ω, torque u::

        d1 = m (2 c² + l² + 2 l c cos θ2) + 2 I
        d2 = m (c² + l c cos θ2) + I
        p2 = m c g sin(θ1 + θ2)
        p1 = -m l c ω2 (ω2 + 2 ω1) sin θ2 + m (c + l) g sin θ1 + p2
        dω2/dt = (u + d2/d1 · p1 - m l c ω1² sin θ2 - p2) / (m c² + I - d2²/d1)
        dω1/dt = -(d2 · dω2/dt + p1) / d1

    >>> env = Acrobot(2)
    >>> hanging = TensorDict({"observation": torch.tensor([1.0, 0, 1, 0, 0, 0]).expand(2, 6)}, [2])
    >>> state, reward, _ = env.dynamics(hanging, torch.tensor([1, 2]))  # no torque moves nothing
    >>> torch.equal(state["observation"][0], hanging["observation"][0]), reward.tolist()
    (True, [[-1.0], [-1.0]])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    task = "Acrobot-v1"

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = 500,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = batch_shape(num_envs)
        high = torch.tensor([1.0, 1.0, 1.0, 1.0, *MAX_SPEEDS])
        observation = Bounded(-high, high, (*shape, 6), device=device)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": observation}, shape=shape),
            action_spec=Categorical(3, shape, device=device),
            reward_spec=Bounded(-1.0, 0.0, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            device=device,
        )
        self._max_speeds = torch.tensor(MAX_SPEEDS, device=self.device)

    def start(self, random: RowRandom) -> TensorDict:
        """Draw start states that hang almost at rest; see :meth:`TorchEnv.start`."""
        drawn = random.rand(4).mul_(2 * START).sub_(START)
        return self._state(drawn[..., :2], drawn[..., 2:])

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every acrobot's state, reward and termination after one step; see :meth:`TorchEnv.dynamics`."""
        observation = state["observation"]
        angles = torch.atan2(observation[..., 1:4:2], observation[..., 0:4:2])
        now = torch.cat([angles, observation[..., 4:]], -1)
        torque = (action - 1).to(now.dtype)
        first = _rates(now, torque)
        second = _rates(now + STEP / 2 * first, torque)
        third = _rates(now + STEP / 2 * second, torque)
        fourth = _rates(now + STEP * third, torque)
        now = now + STEP / 6 * (first + 2 * (second + third) + fourth)
        angles, speeds = now[..., :2], now[..., 2:]
        over = (-angles[..., :1].cos() - angles.sum(-1, keepdim=True).cos()) * LENGTH > HEIGHT
        return self._state(angles, speeds.clamp(-self._max_speeds, self._max_speeds)), over.float() - 1, over

    def _state(self, angles: torch.Tensor, speeds: torch.Tensor) -> TensorDict:
        turned = torch.stack([angles.cos(), angles.sin()], -1).flatten(-2)
        return TensorDict({"observation": torch.cat([turned, speeds], -1)}, angles.shape[:-1])


def _rates(now: torch.Tensor, torque: torch.Tensor) -> torch.Tensor:
    """Return the change per second of angles and speeds, ``[*B, 4]``."""
    upper, lower, upper_speed, lower_speed = now.unbind(-1)
    lever = MASS * LENGTH * CENTRE
    cosine, sine = lever * lower.cos(), lever * lower.sin()
    of_centre = MASS * CENTRE**2 + INERTIA
    d1 = 2 * of_centre + MASS * LENGTH**2 + 2 * cosine
    d2 = of_centre + cosine
    p2 = MASS * CENTRE * GRAVITY * (upper + lower).sin()
    p1 = MASS * (CENTRE + LENGTH) * GRAVITY * upper.sin() + p2 - sine * lower_speed * (lower_speed + 2 * upper_speed)
    lower_rate = (torque + d2 / d1 * p1 - sine * upper_speed**2 - p2) / (of_centre - d2**2 / d1)
    upper_rate = -(d2 * lower_rate + p1) / d1
    return torch.stack([upper_speed, lower_speed, upper_rate, lower_rate], -1)
