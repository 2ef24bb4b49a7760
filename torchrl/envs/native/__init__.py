"""Known tasks written in torch, whose rows are all stepped at once by tensors on the device of your choice."""

from torchrl.envs.native.cartpole import CartPole
from torchrl.envs.native.pendulum import Pendulum

__all__ = ["CartPole", "Pendulum"]
