"""A policy copy on a device: acts there, writes here, and changes only when told."""

import pytest
import torch

from cases.devices import FIRST_GPU
from torchrl.collectors import Collector, PlacedPolicy, WarmUp
from torchrl.collectors.placement import place_policy
from torchrl.envs import GymEnv
from torchrl.errors import ConfigError
from torchrl.modules import MLP, Categorical, ExplorationType, ProbabilisticActor, set_exploration_type


def make_policy():
    torch.manual_seed(0)
    return ProbabilisticActor(MLP(4, 2), Categorical)


@pytest.mark.parametrize("device", ["cpu", FIRST_GPU])
def test_the_copy_acts_on_its_device_and_writes_into_the_root_it_was_given(device):
    policy = make_policy()
    placed = PlacedPolicy(policy, torch.device(device))
    assert next(placed.copy.parameters()).device == torch.device(device)
    root = GymEnv("CartPole-v1", num_envs=3).reset(seed=0)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        acted, expected = placed(root), policy(root.copy())
    assert acted is root
    for key in ("action", "action_log_prob", "logits"):
        assert acted[key].device.type == "cpu"
        torch.testing.assert_close(acted[key], expected[key])


class Elsewhere(torch.nn.Module):
    """Writes numbers of the CPU wherever it lives, and deep state; a device that holds no numbers shows what moves."""

    def forward(self, root):
        root = root.copy().clear_device_()
        state = {"next": {"deep": {"state": torch.ones(3, 1)}}}
        return root.set("action", torch.arange(3)).update(state)


def test_only_what_the_policy_wrote_comes_back():
    acting = PlacedPolicy(Elsewhere(), torch.device("meta"))
    root = GymEnv("CartPole-v1", num_envs=3).reset(seed=0)
    observation, copy = root["observation"], root["observation"].clone()
    acted = acting(root)
    assert acted is root and root["observation"] is observation and torch.equal(observation, copy)
    assert root["action"].tolist() == [0, 1, 2] and root["next", "deep", "state"].tolist() == [[1.0]] * 3


@pytest.mark.parametrize("device", ["cpu", FIRST_GPU])
def test_the_copy_changes_only_by_refresh(device):
    policy = make_policy()
    placed = PlacedPolicy(policy, torch.device(device))
    with torch.no_grad():
        policy.module.layers[0].weight.add_(1.0)
    assert not torch.equal(placed.copy.module.layers[0].weight.cpu(), policy.module.layers[0].weight)
    placed.refresh()
    assert torch.equal(placed.copy.module.layers[0].weight.cpu(), policy.module.layers[0].weight)


@pytest.mark.parametrize("device", ["cpu", FIRST_GPU])
def test_a_collector_acts_there_stores_here_and_refreshes_with_the_version(device):
    policy = make_policy()
    env = GymEnv("CartPole-v1", num_envs=2)
    collector = Collector(env, policy, frames_per_batch=8, device=device, storage_device=device, seed=0)
    batch = collector.collect()
    assert batch["observation"].device == torch.device(device)
    with torch.no_grad():
        policy.module.layers[4].bias.copy_(torch.tensor([100.0, -100.0]))
    collector.update_policy_weights_()
    batch = collector.collect()
    assert batch["action"].sum() == 0 and (batch["collector", "policy_version"] == 1).all()


def test_the_policy_itself_acts_where_it_already_is():
    policy = make_policy()
    collector = Collector(GymEnv("CartPole-v1"), policy, frames_per_batch=4, device="cpu")
    assert collector._act is policy


class Drawing(torch.nn.Module):
    """Acts at random wherever it lives, with a generator."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, root):
        return root.set("action", torch.randint(2, root.batch_size, generator=self.generator))


def test_the_copy_draws_from_the_policys_own_generator():
    policy = Drawing()
    assert PlacedPolicy(policy, torch.device("cpu")).copy.generator is policy.generator


def test_what_cannot_be_moved_is_refused():
    with pytest.raises(ConfigError, match="one of cpu"):
        place_policy(make_policy(), "cuda:63", torch.device("cpu"))
    assert place_policy(len, "cpu", torch.device("cpu")) is len


def test_a_warm_up_ends_in_the_copy_too():
    env = GymEnv("CartPole-v1", num_envs=2)
    placed_policy = PlacedPolicy(WarmUp(make_policy(), env.action_spec, 4), torch.device("cpu"))
    for _ in range(3):
        placed_policy(env.reset())
        placed_policy.refresh()
    assert placed_policy.copy.frames_acted == 4


def test_a_checkpoint_of_the_policy_holds_the_warm_up_of_its_copy():
    env = GymEnv("CartPole-v1", num_envs=2)
    policy, resumed = (WarmUp(make_policy(), env.action_spec, 4) for _ in range(2))
    acting = PlacedPolicy(policy, torch.device("cpu"))
    for _ in range(2):
        acting(env.reset())
    goes_on = PlacedPolicy(resumed, torch.device("cpu"))
    resumed.load_state_dict(policy.state_dict())
    assert policy.frames_acted == goes_on.copy.frames_acted == 4
