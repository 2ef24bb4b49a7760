"""Known tasks written in torch: tensor operations step all rows at once, on any device."""

from torchrl.envs.native.acrobot import Acrobot
from torchrl.envs.native.cartpole import CartPole
from torchrl.envs.native.four_rooms import FourRooms
from torchrl.envs.native.mountain_car import MountainCar, MountainCarContinuous
from torchrl.envs.native.named import native_env
from torchrl.envs.native.pendulum import Pendulum
from torchrl.envs.native.plane import Plane
from torchrl.envs.native.repeat_previous import RepeatPrevious
from torchrl.envs.native.tables import ChainMDP, GridWorld, NarrowPath
from torchrl.envs.native.tabular import TabularEnv
from torchrl.envs.native.tmaze import TMaze

__all__ = [
    "Acrobot",
    "CartPole",
    "ChainMDP",
    "FourRooms",
    "GridWorld",
    "MountainCar",
    "MountainCarContinuous",
    "NarrowPath",
    "Pendulum",
    "Plane",
    "RepeatPrevious",
    "TMaze",
    "TabularEnv",
    "native_env",
]
