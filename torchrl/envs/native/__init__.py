"""Known tasks in torch, as one batch: thousands of rows at the cost of one, on the device of your choice."""

from torchrl.envs.native.cartpole import CartPole
from torchrl.envs.native.pendulum import Pendulum

__all__ = ["CartPole", "Pendulum"]
