"""The cart and pole of gymnasium's ``CartPole-v1``, thousands at a time, in torch. Not a wrapper of gymnasium's."""

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
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, from the hinge to the pole's centre of mass
FORCE = 10.0  # N, to the right with action 1, to the left with action 0
STEP = 0.02  # s
MAX_POSITION = 2.4  # m
MAX_ANGLE = math.radians(12)
START = 0.05  # every number of a first state is drawn between minus this and this


class CartPole(TorchEnv):
    """A batch of gymnasium's ``CartPole-v1`` tasks in torch: balance a pole on a cart that is pushed left or right.

    ``observation``, float32 ``[*B, 4]``: position in m, velocity in m/s, angle of the pole from upright in rad, angular
    velocity in rad/s. Action 0 pushes left, 1 right. Every step pays 1, the last one too. An episode is terminated
    beyond ±2.4 m or ±12°. Starts are not those that gymnasium draws from the same seed.

    The equations of the appendix of Barto, Sutton & Anderson (1983), "Neuronlike adaptive elements that can solve
    difficult learning control problems", without friction; Florian (2007), "Correct equations for the dynamics of the
    cart-pole system", derives them. Euler steps of 0.02 s. With force F, total mass M, pole mass m and half
    length l::

        push  = (F + m l ω² sin θ) / M
        dω/dt = (g sin θ − cos θ · push) / (l (4/3 − m cos² θ / M))
        dv/dt = push − m l · dω/dt · cos θ / M

    >>> env = CartPole(1000)
    >>> env.rollout(20)["next", "reward"].shape
    torch.Size([1000, 20, 1])

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        max_episode_steps: steps after which an episode is truncated; None never does.
        device: where the state lives.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or ``num_envs`` no batch size.
    """

    task = "CartPole-v1"

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        max_episode_steps: int | None = 500,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = batch_shape(num_envs)
        high = torch.tensor([2 * MAX_POSITION, math.inf, 2 * MAX_ANGLE, math.inf])
        observation = Bounded(-high, high, (*shape, 4), device=device)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": observation}, shape=shape),
            action_spec=Categorical(2, shape, device=device),
            reward_spec=Bounded(0.0, 1.0, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            device=device,
        )

    def start(self, random: RowRandom) -> TensorDict:
        """Draw start states close to upright and at rest; see :meth:`TorchEnv.start`."""
        return TensorDict({"observation": random.rand(4).sub_(0.5).mul_(2 * START)}, random.batch_size)

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return every cart's state, reward and termination after one push; see :meth:`TorchEnv.dynamics`."""
        position, velocity, angle, spin = state["observation"].unbind(-1)
        total_mass = CART_MASS + POLE_MASS
        sine, cosine = angle.sin(), angle.cos()
        force = action * (2 * FORCE) - FORCE
        push = (force + POLE_MASS * HALF_LENGTH * spin**2 * sine) / total_mass
        inertia = HALF_LENGTH * (4 / 3 - POLE_MASS * cosine**2 / total_mass)
        spin_rate = (GRAVITY * sine - cosine * push) / inertia
        velocity_rate = push - POLE_MASS * HALF_LENGTH * spin_rate * cosine / total_mass
        position, angle = position + STEP * velocity, angle + STEP * spin
        velocity, spin = velocity + STEP * velocity_rate, spin + STEP * spin_rate
        observation = torch.stack([position, velocity, angle, spin], dim=-1)
        terminated = ((position.abs() > MAX_POSITION) | (angle.abs() > MAX_ANGLE)).unsqueeze(-1)
        reward = torch.ones_like(position).unsqueeze(-1)
        return TensorDict({"observation": observation}, self.batch_size), reward, terminated
