"""Small networks that obey the contract of actors and critics, so that these tests depend on no other folder."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import nn


def require_valid(observation):
    """Fail where a network is shown a masked row, which these tests fill with NaN."""
    assert torch.compiler.is_compiling() or observation.isfinite().all(), "a network was shown a masked row"


class Choice:
    """A categorical distribution: what a loss asks of one."""

    def __init__(self, logits):
        self.log_probs = logits.log_softmax(-1)

    def log_prob(self, action):
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self):
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class StandInActor(TensorDictModuleBase):
    def __init__(self, network, *, in_keys=("observation",), log_prob_key="action_log_prob"):
        super().__init__()
        self.network = network
        self.action_key, self.log_prob_key = "action", log_prob_key
        self.in_keys, self.out_keys = list(in_keys), ["action"]

    def build(self, tensordict):
        observation = tensordict.get(self.in_keys[0])
        require_valid(observation)
        return Choice(self.network(observation))


class StandInCritic(TensorDictModuleBase):
    """Counts the rows it is shown, and refuses NaN."""

    def __init__(self, network, *, in_keys=("observation",), out_keys=("state_value",)):
        super().__init__()
        self.network, self.rows = network, 0
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)

    def forward(self, tensordict):
        observation = tensordict.get(self.in_keys[0])
        require_valid(observation)
        if not torch.compiler.is_compiling():
            self.rows += tensordict.numel()
        return tensordict.set(self.out_keys[0], self.network(observation))


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


@pytest.fixture
def make_actor():
    """Build an actor over 3 actions from 4 features."""

    def make(network=None, **kwargs):
        return StandInActor(network or nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), **kwargs)

    return make


@pytest.fixture
def make_critic():
    """Build a critic of 4 features."""

    def make(network=None, **kwargs):
        return StandInCritic(network or nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), **kwargs)

    return make


@pytest.fixture
def make_series():
    """Build a batch ``[*B, T]`` as a collector writes it: between endings, ``next`` observes what the next row does."""

    def make(*shape, seed=0, ending=0.2, rewards=1):
        generator = torch.Generator().manual_seed(seed)
        flags = {name: torch.rand(*shape, 1, generator=generator) < ending for name in ("terminated", "truncated")}
        observation = torch.randn(*shape, 4, generator=generator)
        follows = ~(flags["terminated"] | flags["truncated"])
        follows[..., -1, :] = False
        next_observation = torch.where(
            follows, observation.roll(-1, dims=-2), torch.randn(*shape, 4, generator=generator)
        )
        is_init = torch.ones(*shape, 1, dtype=torch.bool)
        is_init[..., 1:, :] = ~follows[..., :-1, :]
        done = flags["terminated"] | flags["truncated"]
        reward = torch.randn(*shape, rewards, generator=generator)
        after = {"observation": next_observation, "reward": reward, "done": done}
        acted = {
            "action": torch.randint(0, 3, shape, generator=generator),
            "action_log_prob": -1.0 + 0.3 * torch.randn(*shape, generator=generator),
        }
        before = {"observation": observation, "is_init": is_init}
        return TensorDict(before | acted | {"next": after | flags}, batch_size=shape)

    return make


@pytest.fixture
def make_rows():
    """Build a minibatch ``[N]`` as an on-policy loss reads it."""

    def make(*shape, seed=0):
        generator = torch.Generator().manual_seed(seed)
        normal = lambda *tail: torch.randn(*shape, *tail, generator=generator)  # noqa: E731
        return TensorDict(
            {
                "observation": normal(4),
                "action": torch.randint(0, 3, shape, generator=generator),
                "action_log_prob": -1.0 + 0.3 * normal(),
                "state_value": normal(1),
                "advantage": normal(1),
                "value_target": normal(1),
            },
            batch_size=shape,
        )

    return make
