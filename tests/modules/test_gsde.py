"""gSDE by hand and by sampling: the scale is that of the noise, the density a normal's, gradients go where they may."""

import functools

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.devices import DEVICES
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import (
    MLP,
    ExplorationType,
    GSDEHead,
    GSDEMarginal,
    GSDENormal,
    GSDETanhNormal,
    Normal,
    Operator,
    ProbabilisticActor,
    Sequence,
    TanhNormal,
    orthogonal_init_,
    set_exploration_type,
)


def test_two_features_and_two_actions_by_hand():
    head = GSDEHead(2, 2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        head.linear.bias.copy_(torch.tensor([0.5, 0.0]))
        head.log_std.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).log())
    features, noise = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.0], [0.5, -1.0]])
    loc, scale, exploration = head(features, noise)
    torch.testing.assert_close(loc, torch.tensor([-0.5, -4.0]))
    # (1·1)² + (2·3)² and (1·2)² + (2·4)²
    torch.testing.assert_close(scale, torch.tensor([37.0 + 1e-6, 68.0 + 1e-6]).sqrt())
    # 1·1·1 − 2·3·0.5 and 1·2·0 + 2·4·1
    torch.testing.assert_close(exploration, torch.tensor([-2.0, 8.0]))


@pytest.mark.parametrize("device", DEVICES)
def test_the_scale_is_the_deviation_of_the_exploration_over_draws_of_the_noise(device):
    head = GSDEHead(5, 3, init_log_std=-0.5).to(device)
    with torch.no_grad():
        head.log_std.add_(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(device))
    num = 200_000
    features = torch.randn(5, generator=torch.Generator().manual_seed(1)).to(device).expand(num, 5)
    noise = torch.randn(num, 5, 3, generator=torch.Generator().manual_seed(2)).to(device)
    _, scale, exploration = head(features, noise)
    # The relative error of an estimated variance is √(2 / num) = 0.3 %, that of a mean scale / √num: four of each.
    torch.testing.assert_close(exploration.var(0), scale[0].square(), rtol=0.013, atol=0)
    assert (exploration.mean(0).abs() < 4 * scale[0] / num**0.5).all()
    correlation = torch.corrcoef(exploration.T) - torch.eye(3, device=device)
    assert correlation.abs().max() < 4 / num**0.5


def test_the_distribution_is_a_normal_that_acts_by_its_noise():
    loc, scale, exploration = torch.randn(4, 3), torch.rand(4, 3) + 0.5, torch.randn(4, 3)
    ours, plain = GSDENormal(loc, scale, exploration), Normal(loc, scale)
    action, log_prob = ours.sample_and_log_prob()
    torch.testing.assert_close(action, loc + exploration)
    torch.testing.assert_close(log_prob, plain.log_prob(loc + exploration))
    torch.testing.assert_close(ours.entropy(), plain.entropy())
    for name in ("mode", "mean", "median"):
        assert torch.equal(getattr(ours, name), loc)
    other = Normal(loc + 1, scale)
    torch.testing.assert_close(ours.kl(GSDENormal(loc + 1, scale, exploration)), plain.kl(other))


def gradients(learn_features):
    head = GSDEHead(4, 2, learn_features=learn_features).double()
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(6, 4, 2, dtype=torch.float64)
    loc, scale, exploration = head(features, noise)
    return head, features, loc, scale, exploration


@pytest.mark.parametrize("learn_features", [False, True])
def test_the_gradient_reaches_log_std_and_only_on_request_the_features(learn_features):
    head, features, loc, scale, exploration = gradients(learn_features)
    for term in (scale, exploration):
        to_std, to_features = torch.autograd.grad(
            term.sum(), (head.log_std, features), retain_graph=True, allow_unused=True
        )
        assert to_std.all()
        assert to_features.any() if learn_features else to_features is None
    (to_features,) = torch.autograd.grad(loc.sum(), features, retain_graph=True)
    torch.testing.assert_close(to_features, head.linear.weight.sum(0).expand(6, 4))


def test_the_gradient_is_that_of_the_sum_written_out():
    head, features, loc, scale, exploration = gradients(True)
    std = head.log_std.exp()
    variance = sum((features[:, i, None] * std[i]).square() for i in range(4))
    inputs = (features, head.log_std)
    torch.testing.assert_close(scale, (variance + 1e-6).sqrt())
    torch.testing.assert_close(
        torch.autograd.grad(scale.sum(), inputs), torch.autograd.grad((variance + 1e-6).sqrt().sum(), inputs)
    )


def test_without_features_the_scale_and_its_gradient_stay_finite():
    head = GSDEHead(4, 2, learn_features=True)
    features = torch.zeros(3, 4, requires_grad=True)
    loc, scale, exploration = head(features, torch.randn(3, 4, 2))
    torch.testing.assert_close(scale, torch.full((3, 2), 1e-3))
    scale.log().sum().backward()
    assert features.grad.isfinite().all() and head.log_std.grad.isfinite().all()


def make_actor():
    network = nn.Sequential(MLP(3, 8, num_cells=(8,)), nn.Tanh())
    actor = ProbabilisticActor(GSDEHead(8, 2), GSDENormal, in_keys=["hidden", "gsde_noise"])
    return Sequence(Operator(network, in_keys=["observation"], out_keys=["hidden"]), actor, out_keys=actor.out_keys)


def make_roots(*shape):
    return TensorDict({"observation": torch.randn(*shape, 3), "gsde_noise": torch.randn(*shape, 8, 2)}, shape)


def test_an_actor_records_what_its_learner_recomputes():
    actor, roots = make_actor(), make_roots(5, 4)
    assert actor.in_keys == ["observation", "gsde_noise"]
    with torch.no_grad():
        actor(roots)
    torch.testing.assert_close(actor.build(roots).log_prob(roots["action"]), roots["action_log_prob"])
    torch.testing.assert_close(roots["action"], roots["loc"] + roots["exploration"])
    again = actor(roots.select("observation", "gsde_noise"))
    assert torch.equal(again["action"], roots["action"])  # the same noise, the same state: the same action
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(actor(roots.copy())["action"], again["loc"])


def test_the_first_deviation_and_orthogonal_weights():
    head = GSDEHead(8, 2, init_log_std=-2.0)
    assert (head.log_std == -2).all() and set(head.state_dict()) == {"log_std", "linear.weight", "linear.bias"}
    orthogonal_init_(head, last_gain=0.01)
    torch.testing.assert_close(head.linear.weight @ head.linear.weight.T, 1e-4 * torch.eye(2), atol=1e-9, rtol=0)


def test_acts_and_builds_compiled_without_a_break():
    actor, roots = make_actor(), make_roots(5)
    compile_ = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")
    acted = compile_(actor)(roots.clone())
    log_prob = compile_(lambda batch: actor.build(batch).log_prob(batch["action"]))(acted)
    torch.testing.assert_close(acted["action"], actor(roots)["action"])
    torch.testing.assert_close(log_prob, roots["action_log_prob"])


@pytest.mark.parametrize(
    ("features", "noise"), [((5, 4), (5, 4, 3)), ((5, 3), (5, 3, 2)), ((5, 4), (4, 2)), ((5, 4), (1, 4, 2))]
)
def test_shapes_that_would_broadcast_are_refused(features, noise):
    with pytest.raises(SpecError, match=r"features \[\*B, 4\] and noise \[\*B, 4, 2\]"):
        GSDEHead(4, 2)(torch.zeros(features), torch.zeros(noise))


def test_sizes_and_parameters_are_checked():
    with pytest.raises(ConfigError, match="num_actions"):
        GSDEHead(4, 0)
    with pytest.raises(SpecError, match="loc and exploration of one shape"):
        GSDENormal(torch.zeros(5, 2), torch.ones(5, 2), torch.zeros(5, 1))


class TestSquashed:
    """A policy with bounds: one actor acts by the noise of the moment, another of the same parameters is trained."""

    def make(self):
        head = GSDEHead(4, 2, init_log_std=-0.5)
        acts = ProbabilisticActor(head, GSDETanhNormal.within(-2.0, 3.0), in_keys=["hidden", "gsde_noise"])
        learns = ProbabilisticActor(GSDEMarginal(head), TanhNormal.within(-2.0, 3.0), in_keys=["hidden"])
        return head, acts, learns

    def test_it_acts_by_its_noise(self):
        head, acts, _ = self.make()
        root = TensorDict({"hidden": torch.randn(5, 4), "gsde_noise": torch.randn(5, 4, 2)}, [5])
        loc, _, exploration = head(root["hidden"], root["gsde_noise"])
        torch.testing.assert_close(acts(root.copy())["action"], 0.5 + 2.5 * torch.tanh(loc + exploration))
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            torch.testing.assert_close(acts(root.copy())["action"], 0.5 + 2.5 * torch.tanh(loc))

    def test_both_have_the_same_density(self):
        _, acts, learns = self.make()
        root = TensorDict({"hidden": torch.randn(5, 4), "gsde_noise": torch.randn(5, 4, 2)}, [5])
        action = acts(root.copy())["action"]
        torch.testing.assert_close(acts.build(root).log_prob(action), learns.build(root).log_prob(action))

    def test_a_loss_trains_the_heads_parameters_without_the_noise(self):
        head, _, learns = self.make()
        action, log_prob = learns.build(TensorDict({"hidden": torch.randn(5, 4)}, [5])).rsample_and_log_prob()
        assert not torch.equal(action[0], action[1])
        (action.sum() + log_prob.sum()).backward()
        assert all(parameter.grad.any() for parameter in head.parameters())

    def test_other_shapes_are_refused(self):
        with pytest.raises(SpecError, match="GSDETanhNormal: expected loc and exploration of one shape"):
            GSDETanhNormal(torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3, 1))
