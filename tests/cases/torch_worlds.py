"""A world written in torch whose every number is known."""

import torch
from tensordict import TensorDict

from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs import TorchEnv


class Counter(TorchEnv):
    """Counts its own steps in float; ends as terminated when the action is 1; pays 10 and the action."""

    def __init__(self, batch_size=(3,), **kwargs):
        shape = (*batch_size, 1)
        spec = Composite({"count": Unbounded(shape), "inner": {"start": Unbounded(shape)}}, shape=batch_size)
        super().__init__(batch_size=batch_size, observation_spec=spec, action_spec=Categorical(2, batch_size), **kwargs)

    def start(self, random):
        drawn = random.rand(1)
        return TensorDict({"count": torch.zeros_like(drawn), "inner": {"start": drawn}}, random.batch_size)

    def dynamics(self, state, action):
        following = state.copy().set("count", state["count"] + 1)
        over = action.unsqueeze(-1) == 1
        return following, 10.0 + over, over
