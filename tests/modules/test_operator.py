"""Reading and writing keys: what is called, what is written, and errors that name the key."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import Actor, Operator, ValueOperator


class SumAndDifference(nn.Module):
    def forward(self, a, b):
        return a + b, a - b


def test_reads_and_writes_in_order_nested_keys_included_and_returns_its_argument():
    operator = Operator(SumAndDifference(), in_keys=["a", ("deep", "b")], out_keys=[("deep", "sum"), "difference"])
    tensordict = TensorDict({"a": torch.ones(3), "deep": {"b": torch.full((3,), 2.0)}}, [3])
    assert operator(tensordict) is tensordict
    assert tensordict["deep", "sum"].tolist() == [3.0] * 3 and tensordict["difference"].tolist() == [-1.0] * 3
    assert operator.in_keys == ["a", ("deep", "b")] and operator.out_keys == [("deep", "sum"), "difference"]


def test_a_missing_key_is_named_with_the_nearest_one_and_who_asked():
    with pytest.raises(
        KeyMissing, match=r"^Actor: expected the key 'observation', got .*Did you mean 'observations'\?"
    ):
        Actor(nn.Linear(3, 2))(TensorDict({"observations": torch.zeros(4, 3)}, [4]))
    with pytest.raises(KeyMissing, match=r"expected the key \('deep', 'c'\)"):
        Actor(nn.Linear(3, 2), in_keys=[("deep", "c")])(TensorDict({"deep": {"b": torch.zeros(4, 3)}}, [4]))


@pytest.mark.parametrize("which", ["in_keys", "out_keys"])
def test_a_string_is_not_read_letter_by_letter(which):
    with pytest.raises(ConfigError, match=r"expected a list of keys, got 'value'. Write \['value'\]"):
        ValueOperator(nn.Linear(3, 1), **{which: "value"})


def test_as_many_results_as_keys():
    tensordict = TensorDict({"a": torch.ones(3), "b": torch.ones(3)}, [3])
    with pytest.raises(ConfigError, match="expected 1 tensors from its module, got 2 from SumAndDifference"):
        Operator(SumAndDifference(), in_keys=["a", "b"], out_keys=["sum"])(tensordict)
    assert set(tensordict.keys()) == {"a", "b"}


def test_actor_and_critic_have_their_usual_keys_and_gradients():
    tensordict = TensorDict({"observation": torch.randn(5, 2, 3)}, [5, 2])
    actor, critic = Actor(nn.Linear(3, 2)), ValueOperator(nn.Linear(3, 1))
    critic(actor(tensordict))
    assert tensordict["action"].shape == (5, 2, 2) and tensordict["state_value"].shape == (5, 2, 1)
    assert actor.action_key == "action"
    tensordict["state_value"].sum().backward()
    assert critic.module.bias.grad.item() == 10 and actor.module.bias.grad is None


def test_tensors_by_keyword_or_in_order_give_what_would_be_written():
    operator = Operator(SumAndDifference(), in_keys=["a", ("deep", "b")], out_keys=[("deep", "sum"), "difference"])
    one, two = torch.ones(3), torch.full((3,), 2.0)
    for results in (operator(a=one, deep_b=two), operator(one, two), operator(one, deep_b=two)):
        assert isinstance(results, tuple) and [x.tolist() for x in results] == [[3.0] * 3, [-1.0] * 3]
    single = Actor(nn.Linear(3, 2))
    assert torch.equal(single(observation=torch.ones(4, 3)), single.module(torch.ones(4, 3)))
    tensordict = TensorDict({"observation": torch.zeros(4, 3)}, [4])
    assert single(tensordict=tensordict) is tensordict


def test_tensors_under_other_names_are_refused():
    actor, x = Actor(nn.Linear(3, 2)), torch.zeros(4, 3)
    with pytest.raises(KeyMissing, match=r"got 0 and the keywords \['observations'\]\. Did you mean 'observation'"):
        actor(observations=x)
    with pytest.raises(KeyMissing, match="got 2 and the keywords"):
        actor(x, x)
    with pytest.raises(KeyMissing, match=r"got 1 and the keywords \['observation'\]"):
        actor(x, observation=x)
    with pytest.raises(KeyMissing, match="expected the key 'observation'"):
        actor()


def test_a_function_is_no_module():
    with pytest.raises(ConfigError, match=r"Operator: expected a torch module, got <function.*Write a function as"):
        Operator(lambda x: x, in_keys=["a"], out_keys=["b"])
