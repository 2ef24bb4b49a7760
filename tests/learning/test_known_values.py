"""DQN on every state and action of a known world: exact value iteration, which ends at the world's own values."""

import pytest
import torch
from torch import nn

from torchrl.envs import ChainMDP, GridWorld, NarrowPath
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss, HardUpdate


def every_transition(kind, size, **options):
    """Step each state of a world by each action: transitions ``[S, A]``."""
    num_states, num_actions = size
    env = kind(size, **options)
    env.reset()
    state = env.state_dict()
    place = torch.arange(num_states).unsqueeze(-1).expand(num_states, num_actions).unsqueeze(-1)
    seen = nn.functional.one_hot(place.squeeze(-1), num_states).float()
    state["root"] |= {"place": place, "observation": seen}
    root = env.load_state_dict(state)
    action = torch.arange(num_actions).expand(num_states, num_actions)
    return env, env.step(root.set("action", action))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    ("kind", "size", "options", "gamma"),
    [
        (GridWorld, (25, 4), {}, 0.9),
        (ChainMDP, (12, 2), {"length": 12}, 0.8),
        (NarrowPath, (6, 3), {"length": 6, "num_actions": 3}, 0.9),
    ],
)
def test_dqn_ends_at_the_known_values(kind, size, options, gamma, double):
    env, table = every_transition(kind, size, **options)
    network = nn.Linear(size[0], size[1], bias=False)  # a table: one weight for each state and action
    loss = DQNLoss(QValueActor(network), gamma=gamma, double=double, distance="l2")
    update, num = HardUpdate(loss, interval=1), size[0] * size[1]
    with torch.no_grad():
        before = network.weight.clone()
    for _ in range(130):
        network.zero_grad()
        loss(table)["loss_value"].backward()
        with torch.no_grad():  # the gradient of a mean of squares: this step ends at the target
            network.weight -= network.weight.grad * num / 2
        update.step()
    assert not torch.allclose(before, network.weight)
    expected = env.action_values(gamma).float()
    torch.testing.assert_close(network.weight.T.detach(), expected, atol=1e-3, rtol=1e-4)
