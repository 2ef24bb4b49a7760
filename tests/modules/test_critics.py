"""ValueOperator: what it reads decides what it writes, unless it is told."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.errors import ConfigError
from torchrl.modules import MLP, ValueOperator


@pytest.mark.parametrize(
    ("in_keys", "out_keys"),
    [
        (["observation"], ["state_value"]),
        (["observation", "last_action"], ["state_value"]),
        (["observation", "action"], ["state_action_value"]),
        (["observation", ("agents", "action")], ["state_action_value"]),
        (["observation", ("action", "steer")], ["state_action_value"]),
    ],
)
def test_a_critic_that_reads_the_action_judges_it(in_keys, out_keys):
    assert ValueOperator(MLP(4, 1), in_keys=in_keys).out_keys == out_keys
    assert ValueOperator(MLP(4, 1), in_keys=in_keys, out_keys=["q"]).out_keys == ["q"]


def test_observation_and_action_are_given_in_order():
    critic = ValueOperator(MLP(5, 1, num_cells=()), in_keys=["observation", "action"])
    batch = TensorDict({"observation": torch.randn(6, 3), "action": torch.randn(6, 2)}, [6])
    both = torch.cat([batch["observation"], batch["action"]], -1)
    torch.testing.assert_close(critic(batch)["state_action_value"], critic.module(both))


def test_a_bare_key_is_refused():
    with pytest.raises(ConfigError, match=r"ValueOperator\(in_keys=...\)"):
        ValueOperator(MLP(4, 1), in_keys="observation")
