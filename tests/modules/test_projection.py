"""Projected: values by hand, log-probs that belong to the recorded action, specs of one row and of a batch."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.devices import needs_cuda
from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import MLP, Actor, Normal, NormalHead, Operator, ProbabilisticActor, Projected, Sequence

ROW = Bounded(-1.0, torch.tensor([1.0, 2.0]), shape=(2,))


def echo(**options):
    """A policy that acts as it sees."""
    return Actor(nn.Identity(), **options)


def seen(*rows):
    return TensorDict({"observation": torch.tensor(rows)}, [len(rows)])


def test_actions_beyond_the_bounds_by_hand():
    policy, roots = Projected(echo(), ROW), seen([-3.0, 3.0], [0.5, 1.5])
    assert policy(roots) is roots
    assert roots["action"].tolist() == [[-1.0, 2.0], [0.5, 1.5]]
    assert roots["observation"].tolist() == [[-3.0, 3.0], [0.5, 1.5]]


@pytest.mark.parametrize("batch", [(), (8,), (3, 5), (0,)])
def test_the_spec_of_one_row_serves_every_batch(batch):
    roots = TensorDict({"observation": 5 * torch.randn(*batch, 2)}, batch)
    spec = ROW.expand(*batch, 2)
    assert spec.contains(Projected(echo(), ROW)(roots.copy())["action"])
    assert torch.equal(Projected(echo(), spec)(roots.copy())["action"], Projected(echo(), ROW)(roots.copy())["action"])


def test_the_spec_of_a_batch_serves_that_batch_only():
    policy = Projected(echo(), ROW.expand(8, 2))
    for batch in ((5,), (8, 4), (1,)):
        with pytest.raises(SpecError, match=r"expected shape \[8, 2\]"):
            policy(TensorDict({"observation": torch.zeros(*batch, 2)}, batch))


def test_mistakes_are_not_repaired():
    with pytest.raises(SpecError, match="float32.*a mistake that projecting would hide"):
        Projected(echo(), Categorical(3))(TensorDict({"observation": torch.zeros(8)}, [8]))
    with pytest.raises(SpecError, match="shape"):
        Projected(echo(), ROW)(seen([0.0], [1.0]))
    assert Projected(echo(), ROW)(seen([float("nan"), 0.0]))["action"].isnan().tolist() == [[True, False]]


def test_the_gradient_ends_at_the_bounds():
    roots = seen([-3.0, 1.5])
    roots["observation"].requires_grad_()
    Projected(echo(), ROW)(roots)["action"].sum().backward()
    assert roots["observation"].grad.tolist() == [[0.0, 1.0]]


def make_actor(seed=0, **options):
    network = nn.Sequential(MLP(3, 2), NormalHead(2, init_log_std=1.0))
    return ProbabilisticActor(network, Normal, generator=torch.Generator().manual_seed(seed), **options)


def test_a_recorded_log_prob_is_that_of_the_projected_action():
    policy, roots = Projected(make_actor(), ROW), TensorDict({"observation": torch.randn(64, 3)}, [64])
    policy(roots)
    at_bound = (roots["action"] == torch.tensor([1.0, 2.0])).any(-1)
    assert at_bound.any() and not at_bound.all() and ROW.expand(64, 2).contains(roots["action"])
    torch.testing.assert_close(roots["action_log_prob"], policy.build(roots).log_prob(roots["action"]))
    by_hand = Normal(roots["loc"], roots["scale"]).log_prob(roots["action"])
    torch.testing.assert_close(roots["action_log_prob"], by_hand)


def test_actors_without_log_probs_are_called_once():
    calls = []
    actor = make_actor(log_prob_key=None)
    actor.module.register_forward_hook(lambda *_: calls.append(1))
    roots = Projected(actor, ROW)(TensorDict({"observation": torch.randn(64, 3)}, [64]))
    assert len(calls) == 1 and "action_log_prob" not in roots
    probabilistic = make_actor()
    with_log_prob = Projected(probabilistic, Bounded(-1.0, 1.0, shape=(2,)), key="loc")
    probabilistic.module.register_forward_hook(lambda *_: calls.append(1))
    roots = with_log_prob(TensorDict({"observation": 9 * torch.randn(64, 3)}, [64]))
    assert len(calls) == 2 and roots["loc"].abs().max() <= 1  # what is projected is not the action


def test_it_looks_like_the_policy_that_it_holds():
    actor = make_actor(action_key=("agents", "action"), log_prob_key="lp")
    policy = Projected(actor, ROW, key=("agents", "action"))
    assert (policy.in_keys, policy.out_keys) == (actor.in_keys, actor.out_keys)
    assert (policy.action_key, policy.log_prob_key) == (("agents", "action"), "lp")
    roots = TensorDict({"observation": torch.randn(4, 3)}, [4])
    torch.testing.assert_close(policy.build(roots).loc, actor.build(roots).loc)
    trunk = Operator(nn.Identity(), in_keys=["pixels"], out_keys=["observation"])
    whole = Sequence(trunk, policy)
    assert whole.action_key == ("agents", "action") and whole.in_keys == ["pixels"]
    roots = whole(TensorDict({"pixels": 9 * torch.randn(64, 3)}, [64]))
    assert ROW.expand(64, 2).contains(roots["agents", "action"])
    torch.testing.assert_close(roots["lp"], whole.build(roots).log_prob(roots["agents", "action"]))
    assert Projected(echo(in_keys=["state"]), ROW).in_keys == ["state"]
    assert not hasattr(Projected(echo(), ROW), "build") and not hasattr(Projected(echo(), ROW), "log_prob_key")


def test_nested_actions_are_projected_as_a_whole():
    spec = Composite({"steer": Bounded(-1.0, 1.0, shape=(1,)), "gas": Bounded(0.0, 1.0, shape=(1,))})

    class Drive(nn.Module):
        def forward(self, x):
            return TensorDict({"steer": x, "gas": x}, x.shape[:1])

    class DriveActor(Operator):
        def forward(self, tensordict):
            return tensordict.set("action", self.module(tensordict["observation"]))

    driver = DriveActor(Drive(), in_keys=["observation"], out_keys=["action"])
    action = Projected(driver, spec)(seen([-3.0], [0.5]))["action"]
    assert action["steer"].tolist() == [[-1.0], [0.5]] and action["gas"].tolist() == [[0.0], [0.5]]


def test_the_spec_moves_with_the_policy_and_keeps_its_dtype():
    policy = Projected(make_actor(), ROW)
    assert policy.to("meta").spec.device.type == "meta" and ROW.device.type == "cpu"
    assert Projected(make_actor(), ROW).double().spec.dtype == torch.float32


@needs_cuda
def test_a_moved_policy_acts_where_it_is():
    policy = Projected(Actor(MLP(3, 2)), ROW).to("cuda")
    roots = policy(TensorDict({"observation": 99 * torch.randn(4, 3, device="cuda")}, [4]))
    assert roots["action"].is_cuda and roots["action"].max() <= 2


def test_computes_the_same_compiled():
    actor = make_actor()
    actor.generator = None
    for policy in (Projected(Actor(MLP(3, 2)), ROW), Projected(actor, ROW)):
        compiled = torch.compile(policy, backend="aot_eager")  # the spec's look at the dtype breaks the graph
        roots = compiled(TensorDict({"observation": 99 * torch.randn(4, 3)}, [4]))
        assert ROW.expand(4, 2).contains(roots["action"].detach())


def test_a_key_that_the_policy_does_not_write_is_refused():
    with pytest.raises(ConfigError, match=r"Projected: expected a key out of \['action'\], got 'act'"):
        Projected(echo(), ROW, key="act")
