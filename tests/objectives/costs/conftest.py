"""A policy, values and four rows for which every loss can be written down by hand, in float64."""

import math

import pytest
import torch
from tensordict import TensorDict

from cases.losses import Constant
from torchrl.modules import Categorical, ProbabilisticActor, ValueOperator


@pytest.fixture
def by_hand():
    """π = (½, ¼, ¼), V = 1; four rows with ratios 1, 1.5, 0.5, 1 and advantages 2, 2, -2, -4; π_old = (⅓, ⅓, ⅓)."""
    actor = ProbabilisticActor(Constant(math.log(2.0), 0.0, 0.0), Categorical)
    critic = ValueOperator(Constant(1.0))
    column = lambda *values: torch.tensor(values, dtype=torch.float64).unsqueeze(-1)  # noqa: E731
    ratio = torch.tensor([1.0, 1.5, 0.5, 1.0], dtype=torch.float64)
    action = torch.tensor([0, 1, 2, 0])
    probability = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)[action]
    batch = TensorDict(
        {
            "observation": torch.zeros(4, 4, dtype=torch.float64),
            "logits": torch.zeros(4, 3, dtype=torch.float64),
            "action": action,
            "action_log_prob": (probability / ratio).log(),
            "advantage": column(2.0, 2.0, -2.0, -4.0),
            "value_target": column(1.0, 2.0, 3.0, 0.0),
            "state_value": column(1.0, 0.0, 0.0, 1.0),
        },
        batch_size=[4],
    )
    return actor, critic, batch
