"""The example of options: what its parts see, which networks it trains, and actions of real numbers."""

import pytest
import torch

from cases.examples import load, settings_of
from torchrl.objectives import total_loss

SMALL = ("--no-progress_bar", "--num_cells", "8", "--num_envs=4", "--num_options=3")


@pytest.fixture
def make_agent():
    """Build the example's agent by flags, and close it."""
    agents = []

    def make_agent(*flags):
        agents.append(load("hierarchical").make_agent(settings_of("hierarchical", *SMALL, *flags)))
        return agents[-1]

    yield make_agent
    for agent in agents:
        agent.close()


def test_options_end_by_chance_after_some_steps_and_with_the_episode(make_agent):
    agent = make_agent("--every=4", "--frames_per_batch=240", "--max_episode_steps=9")
    batch = agent.collector.collect()  # 60 steps
    option, starts = batch["option"], batch["is_init"].squeeze(-1)
    assert torch.equal(option["age"] == 0, option["running"] == 3) and (option["age"] < 4).all()
    assert (option["running"][starts] == 3).all() and not starts.all()
    goes_on = option["running"] != 3
    assert (option["termination"][goes_on] < 1).all() and (option["termination"][~goes_on] == 1).all()
    assert (option["begins"] & goes_on).any()  # ended by chance


@pytest.mark.parametrize("flags", [(), ("--every=5", "--no-learn_termination"), ("--env_name=Pendulum-v1",)])
def test_every_network_is_trained(make_agent, flags):
    agent = make_agent("--frames_per_batch=80", *flags)
    terms = agent.loss(agent.advantage(agent.collector.collect()))
    assert {"loss_objective", "loss_critic", "entropy"} <= set(terms.keys())
    assert ("loss_termination" in terms.keys()) == ("--no-learn_termination" not in flags)
    total_loss(terms).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in agent.loss.trainable_parameters())
