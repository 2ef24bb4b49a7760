"""Envs whose rows have episodes of given lengths, for tests of what collects from them."""

import torch
from tensordict import TensorDict

from fakes import CountingSimulator
from torchrl.envs import SerialEnv
from torchrl.errors import EnvError


class Impatient(SerialEnv):
    """An environment that cannot let a row wait."""

    can_freeze = False


class Unsaveable(CountingSimulator):
    """Has a state, and does not tell it."""

    def get_state(self):
        raise EnvError("Unsaveable: its state cannot be captured.")


def counting(*lengths, kind=SerialEnv):
    """One row per argument, each a length or a cycle of them."""
    return kind([lambda length=length: CountingSimulator(length=length) for length in lengths])


def info(**columns):
    """Parameters of each row, a column for each."""
    columns = {key: torch.as_tensor(column) for key, column in columns.items()}
    return TensorDict(columns, batch_size=next(iter(columns.values())).shape[:1])
