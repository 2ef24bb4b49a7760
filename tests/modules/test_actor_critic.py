"""A trunk shared by actor and critic: one set of parameters, gradient from both, features never recorded."""

import copy

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.modules import (
    MLP,
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
