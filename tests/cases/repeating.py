"""Policies with memory on the task of repeating what was shown; worker processes build them from here."""

from torch import nn

from torchrl.envs import TransformedEnv
from torchrl.envs.native import RepeatPrevious
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules import LSTM, Memory, QValueActor, Sequence

NUM_SYMBOLS = 4


def make_policy():
    """An LSTM of eight units and a layer that values the four symbols."""
    head = QValueActor(nn.Linear(8, NUM_SYMBOLS), in_keys=["hidden"])
    return Sequence(LSTM(NUM_SYMBOLS, 8), head, out_keys=head.out_keys)


class Previous(Memory):
    """What was seen at the step before."""

    def step(self, x, state):
        return state, x


def make_right_policy():
    """The policy that always chooses the symbol of the step before: the best one for a delay of 1."""
    return Sequence(Previous((NUM_SYMBOLS,)), QValueActor(nn.Identity(), in_keys=["hidden"]))


def make_env(num_envs=2, *, make=make_policy, **options):
    """The task, whose roots carry the state of the policy that ``make`` builds."""
    return TransformedEnv(RepeatPrevious(num_envs, **options), TensorDictPrimer(make().initial_state()))
