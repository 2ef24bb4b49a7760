"""Known tasks written in torch, whose rows are all stepped at once by tensors on the device of your choice."""

from torchrl.envs.native.cartpole import CartPole
from torchrl.envs.native.named import native_env
from torchrl.envs.native.pendulum import Pendulum
from torchrl.envs.native.repeat_previous import RepeatPrevious
from torchrl.envs.native.tmaze import TMaze

__all__ = ["CartPole", "Pendulum", "RepeatPrevious", "TMaze", "native_env"]
