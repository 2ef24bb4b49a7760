"""Actor and critic together. A shared trunk: one set of parameters, gradient from both, features never recorded."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules import (
    MLP,
    Actor,
    ActorCriticOperator,
    ActorCriticWrapper,
    ActorValueOperator,
    Categorical,
    ObservationNormalizer,
    Operator,
    ProbabilisticActor,
    ValueOperator,
)


def make_operator():
    network = nn.Sequential(ObservationNormalizer(4), MLP(4, 6, num_cells=(8,)), nn.Tanh())
    return ActorValueOperator(
        Operator(network, in_keys=["observation"], out_keys=["hidden"]),
        ProbabilisticActor(nn.Linear(6, 3), Categorical, in_keys=["hidden"]),
        ValueOperator(nn.Linear(6, 1), in_keys=["hidden"]),
    )


def roots(*shape):
    return TensorDict({"observation": torch.randn(*shape, 4)}, shape)


def test_each_half_goes_from_the_observation_to_its_own_keys():
    operator = make_operator()
    assert operator.actor.in_keys == operator.critic.in_keys == operator.in_keys == ["observation"]
    assert set(operator.actor(roots(8)).keys()) == {"observation", "logits", "action", "action_log_prob"}
    assert set(operator.critic(roots(8)).keys()) == {"observation", "state_value"}


def test_the_whole_writes_what_both_halves_write():
    operator, tensordict = make_operator(), roots(8, 5)
    assert operator(tensordict) is tensordict
    assert set(tensordict.keys()) == {"observation", *operator.out_keys}
    assert operator.out_keys == ["logits", "action", "action_log_prob", "state_value"]
    torch.testing.assert_close(tensordict["logits"], operator.actor.build(tensordict).logits)
    torch.testing.assert_close(
        tensordict["state_value"], operator.critic(roots(8, 5).update(tensordict))["state_value"]
    )


def test_the_trunk_is_one_object_trained_by_both():
    operator, batch = make_operator(), roots(8)
    trunk = operator.common
    assert operator.actor[0] is operator.critic[0] is trunk
    assert len(list(operator.parameters())) == 4 + 2 + 2
    gradients = []
    for loss in (operator.actor.build(batch).entropy().sum(), operator.critic(batch)["state_value"].sum()):
        operator.zero_grad()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in trunk.parameters()])
    assert all(gradient.any() for half in gradients for gradient in half)
    assert operator.actor[1].module.weight.grad is None  # from the critic's loss nothing reaches the actor's head


def test_a_copy_keeps_sharing_and_a_state_dict_restores_it():
    operator, other = make_operator(), make_operator()
    operator.common.module[0].update(5 + torch.randn(100, 4))
    other.load_state_dict(operator.state_dict())
    tensordict = roots(8)
    for twin in (other, copy.deepcopy(operator)):
        assert twin.actor[0] is twin.critic[0]
        torch.testing.assert_close(twin.actor.build(tensordict).logits, operator.actor.build(tensordict).logits)


def test_halves_compile_without_a_break():
    operator, tensordict = make_operator(), roots(8)
    for half in (operator.actor, operator.critic, operator):
        compiled = torch.compile(half, fullgraph=True, backend="aot_eager")
        assert set(compiled(tensordict.clone()).keys()) == {"observation", *half.out_keys}
    build = torch.compile(
        lambda batch: operator.actor.build(batch).log_prob(batch["action"]), fullgraph=True, backend="aot_eager"
    )
    batch = operator.actor(tensordict)
    torch.testing.assert_close(build(batch), batch["action_log_prob"])


def make_action_critic(in_keys=("hidden", "action")):
    trunk = nn.Sequential(MLP(4, 6, num_cells=(8,)), nn.Tanh())
    return ActorCriticOperator(
        Operator(trunk, in_keys=["observation"], out_keys=["hidden"]),
        Actor(MLP(6, 2, num_cells=()), in_keys=["hidden"]),
        ValueOperator(MLP(8, 1, num_cells=()), in_keys=in_keys),
    )


def test_the_critic_judges_the_action_of_the_batch_or_the_one_just_chosen():
    operator, tensordict = make_action_critic(), roots(8)
    assert operator.in_keys == operator.actor.in_keys == ["observation"]
    assert operator.critic.in_keys == ["observation", "action"]
    assert operator.out_keys == ["action", "state_action_value"]
    assert operator(tensordict) is tensordict and set(tensordict.keys()) == {"observation", *operator.out_keys}
    hidden = operator.common.module(tensordict["observation"])
    torch.testing.assert_close(tensordict["action"], operator.actor[1].module(hidden))
    by_hand = operator.critic[1].module(torch.cat([hidden, tensordict["action"]], -1))
    torch.testing.assert_close(tensordict["state_action_value"], by_hand)
    other = tensordict.copy().set("action", tensordict["action"] + 1)
    judged = operator.critic(other)["state_action_value"]
    torch.testing.assert_close(judged, operator.critic[1].module(torch.cat([hidden, other["action"]], -1)))
    assert not torch.allclose(judged, by_hand)


def test_the_trunk_runs_once_and_gets_gradient_from_both():
    operator, calls = make_action_critic(), []
    operator.common.module.register_forward_hook(lambda *_: calls.append(1))
    value = operator(roots(8))["state_action_value"]
    assert len(calls) == 1
    value.sum().backward()
    assert all(parameter.grad is not None for parameter in operator.parameters())  # the actor through its action
    assert len(list(operator.parameters())) == 4 + 2 + 2


def test_a_critic_blind_to_the_action_is_refused():
    with pytest.raises(ConfigError, match=r"reads one of \['action'\], got \['hidden'\].*ActorValueOperator"):
        make_action_critic(in_keys=["hidden"])


@pytest.mark.parametrize("reads_action", [False, True])
def test_two_networks_without_a_trunk(reads_action):
    actor = ProbabilisticActor(MLP(4, 3), Categorical)
    in_keys = ["observation", "action"] if reads_action else ["observation"]

    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = MLP(5 if reads_action else 4, 1)

        def forward(self, observation, action=None):
            return self.network(observation if action is None else torch.cat([observation, action[..., None]], -1))

    pair = ActorCriticWrapper(actor, ValueOperator(Judge(), in_keys=in_keys))
    assert pair.actor is actor and pair.in_keys == ["observation"]
    name = "state_action_value" if reads_action else "state_value"
    assert pair.out_keys == ["logits", "action", "action_log_prob", name]
    tensordict = roots(8)
    assert pair(tensordict) is tensordict and set(tensordict.keys()) == {"observation", *pair.out_keys}
    torch.testing.assert_close(pair.critic(tensordict.exclude(name))[name], tensordict[name])
    assert list(pair.state_dict())[0].startswith("actor.") and copy.deepcopy(pair)(roots(8)).batch_size == (8,)


def test_operators_with_an_action_critic_compile_and_copy():
    operator, tensordict = make_action_critic(), roots(8)
    pair = ActorCriticWrapper(operator.actor, operator.critic)
    expected = operator(tensordict.copy())["state_action_value"]
    for whole in (operator, pair, copy.deepcopy(operator)):
        compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(tensordict.copy())["state_action_value"], expected)
    other = make_action_critic()
    other.load_state_dict(operator.state_dict())
    torch.testing.assert_close(other(tensordict.copy())["state_action_value"], expected)
