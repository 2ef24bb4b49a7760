"""CompositeDistribution: nested keys, sums over parts, masks for some of them, and mistakes in names."""

import copy
import pickle

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.collectors import Collector
from torchrl.data.specs import Binary, Bounded, Categorical as SpecCategorical, Composite, Unbounded
from torchrl.envs import TorchEnv
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import (
    Bernoulli,
    Categorical,
    CompositeDistribution,
    Delta,
    ExplorationType,
    MaskedCategorical,
    MultiCategorical,
    Normal,
    NormalHead,
    ParallelHeads,
    ProbabilisticActor,
    Sequence,
    TanhNormal,
    TruncatedNormal,
    set_exploration_type,
)
from torchrl.modules.operator import Operator

CAR = CompositeDistribution.of(
    steer=Categorical, gas=TanhNormal.within(0.0, 1.0), lights={"left": Bernoulli, "beam": MaskedCategorical}
)
KEYS = (
    ("steer", "logits"),
    ("gas", "loc"),
    ("gas", "scale"),
    ("lights", "left", "logits"),
    ("lights", "beam", "logits"),
)


def parameters(*shape):
    sizes = (3, 2, 2, 1, 2)
    return [torch.rand(*shape, size) + 0.5 for size in sizes]


def mask(*shape):
    return TensorDict({"lights": {"beam": torch.tensor([True, False]).expand(*shape, 2)}}, shape)


def test_parameters_are_named_by_part():
    assert CAR.parameter_names == KEYS
    assert CAR.takes_mask and CAR.needs_mask
    flat = CompositeDistribution.of({"a b": Categorical, "c": MultiCategorical.of([2, 2])})
    assert flat.parameter_names == (("a b", "logits"), ("c", "logits"))
    assert flat.takes_mask and not flat.needs_mask


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_actions_are_nested_and_log_probs_add_up(shape):
    values = parameters(*shape)
    distribution = CAR(*values, mask=mask(*shape))
    action, log_prob = distribution.sample_and_log_prob()
    assert action.batch_size == action["lights"].batch_size == shape
    assert set(action.keys(True, True)) == {"steer", "gas", ("lights", "left"), ("lights", "beam")}
    parts = {
        "steer": Categorical(values[0]),
        "gas": TanhNormal(values[1], values[2], low=0.0, high=1.0),
        ("lights", "left"): Bernoulli(values[3]),
        ("lights", "beam"): MaskedCategorical(values[4], mask(*shape)["lights", "beam"]),
    }
    torch.testing.assert_close(log_prob, sum(part.log_prob(action[key]) for key, part in parts.items()))
    torch.testing.assert_close(distribution.entropy(), sum(part.entropy() for part in parts.values()))
    for key, part in parts.items():
        assert torch.equal(distribution.mode[key], part.mode)
    assert (action["lights", "beam"] == 0).all()


def test_parts_draw_one_after_the_other_from_one_generator():
    values = parameters(100)
    drawn = CAR(*values, mask=mask(100)).sample(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(drawn["steer"], Categorical(values[0]).sample(generator))
    assert torch.equal(drawn["gas"], TanhNormal(values[1], values[2], low=0.0, high=1.0).sample(generator))


def test_mean_median_and_gradients_where_all_parts_have_them():
    family = CompositeDistribution.of(a=Normal, b={"c": TruncatedNormal})
    values = [torch.full((2, 1), value, requires_grad=True) for value in (0.3, 1.0, -0.2, 0.5)]
    distribution = family(*values)
    torch.testing.assert_close(distribution.mean["a"], torch.full((2, 1), 0.3))
    torch.testing.assert_close(distribution.median["b", "c"], TruncatedNormal(*values[2:]).median)
    action = distribution.rsample()
    gradients = torch.autograd.grad(action["a"].sum() + action["b", "c"].sum(), values)
    assert all(gradient.any() for gradient in gradients)
    with pytest.raises(ConfigError, match="Categorical: expected a family with a mean"):
        _ = CAR(*parameters(2), mask=mask(2)).mean
    with pytest.raises(ConfigError, match="Delta: expected a family with an entropy"):
        CompositeDistribution.of(a=Normal, b=Delta)(*(torch.ones(2, 1) for _ in range(3))).entropy()


def test_an_action_with_other_keys_is_refused():
    distribution = CAR(*parameters(2), mask=mask(2))
    action = distribution.sample()
    for wrong in (action.exclude("gas"), action.clone().set("horn", torch.zeros(2)), action["steer"]):
        with pytest.raises(SpecError, match=r"a TensorDict with the keys \['gas', 'lights', 'steer'\], got"):
            distribution.log_prob(wrong)
    with pytest.raises(SpecError, match=r"keys \['beam', 'left'\], got \['left'\]"):
        distribution.log_prob(action.exclude(("lights", "beam")))


def test_masks_that_are_missing_or_for_nobody_are_refused():
    with pytest.raises(SpecError, match=r"expected masks for \['lights'\], and not without \['lights'\], got .* \[\]"):
        CAR(*parameters(2))
    with pytest.raises(SpecError, match=r"expected masks for \['beam'\], and not without \['beam'\]"):
        CAR(*parameters(2), mask=TensorDict({"lights": TensorDict({}, [2])}, [2]))
    with pytest.raises(SpecError, match=r"masks for \['lights', 'steer'\]"):
        CAR(*parameters(2), mask=mask(2).set("steer", torch.ones(2, 3, dtype=torch.bool)))


def test_parameters_of_different_batch_sizes_are_refused():
    family = CompositeDistribution.of(a=Categorical, b=Bernoulli)
    with pytest.raises(SpecError, match=r"expected parameters of one batch size, got \[\[4, 2\], \[1, 2\]\]"):
        family(torch.zeros(4, 2), torch.zeros(1, 2))


def test_what_is_no_family_is_refused_by_name():
    with pytest.raises(ConfigError, match="a distribution with parameter_names for 'gas', got"):
        CompositeDistribution.of(steer=Categorical, gas=torch.distributions.Normal)
    for nothing in ({}, {"a": {}}):
        with pytest.raises(ConfigError, match="expected at least one part"):
            CompositeDistribution.of(nothing)


def test_divergence_needs_the_same_parts():
    one, other = CompositeDistribution.of(a=Categorical), CompositeDistribution.of(b=Categorical)
    with pytest.raises(ConfigError, match=r"expected the same parts, got \['a'\] and \['b'\]"):
        one(torch.zeros(1, 2)).kl(other(torch.zeros(1, 2)))


def car_actor(**kwargs):
    heads = ParallelHeads(
        nn.Linear(16, 3), nn.Sequential(nn.Linear(16, 2), NormalHead(2)), nn.Linear(16, 1), nn.Linear(16, 2)
    )
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), heads)
    return ProbabilisticActor(network, CAR, mask_key="legal", **kwargs)


def roots(*shape):
    return TensorDict({"observation": torch.randn(*shape, 4), "legal": mask(*shape)}, shape)


def test_an_actor_writes_nested_parameters_and_a_nested_action():
    actor = car_actor()
    assert actor.in_keys == ["observation", "legal"] and actor.out_keys == [*KEYS, "action", "action_log_prob"]
    batch = actor(roots(8, 5))
    assert batch["gas", "loc"].shape == (8, 5, 2) and batch["action", "lights", "left"].shape == (8, 5, 1)
    assert torch.equal(actor.build(batch).log_prob(batch["action"]), batch["action_log_prob"])
    actor.build(batch).log_prob(batch["action"]).sum().backward()
    assert all(parameter.grad.any() for name, parameter in actor.named_parameters() if "heads.3" not in name)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        acted = actor(batch.clone())
    assert (acted["action"] == actor.build(batch).mode).all()


def test_an_actor_may_write_its_nested_action_anywhere_and_end_a_sequence():
    actor = car_actor(in_keys=["hidden"], action_key=("car", "action"), log_prob_key=("car", "log_prob"))
    actor.module[0] = nn.Identity()
    trunk = Operator(nn.Linear(4, 16), in_keys=["observation"], out_keys=["hidden"])
    whole = Sequence(trunk, actor, out_keys=[("car", "action"), ("car", "log_prob")])
    assert whole.in_keys == ["observation", "legal"]
    batch = whole(roots(6))
    assert set(batch.keys()) == {"observation", "legal", "car"}
    assert torch.equal(whole.build(batch).log_prob(batch["car", "action"]), batch["car", "log_prob"])


def test_a_generator_is_the_only_source_of_chance_in_copies_too():
    actor = car_actor(generator=torch.Generator().manual_seed(3))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(actor)))
    batch = roots(50)
    before = torch.get_rng_state()
    first, second = actor(batch.clone())["action"], twin(batch.clone())["action"]
    assert (first == second).all() and torch.equal(torch.get_rng_state(), before)


class Crossing(TorchEnv):
    """A place on a line; at the left end the left turn is illegal, and a step to the left is the first choice."""

    action_mask_key = "legal"

    def __init__(self, num_envs):
        action = Composite(
            {"turn": SpecCategorical(2, (num_envs,)), "speed": Bounded(0.0, 1.0, (num_envs, 1))}, [num_envs]
        )
        legal = Composite({"turn": Binary((num_envs, 2), torch.bool)}, [num_envs])
        super().__init__(
            batch_size=[num_envs],
            observation_spec=Composite({"place": Unbounded((num_envs, 1)), "legal": legal}, [num_envs]),
            action_spec=action,
        )

    def state(self, place):
        legal = torch.cat([place > 0, torch.ones_like(place, dtype=torch.bool)], -1)
        return TensorDict({"place": place, "legal": {"turn": legal}}, place.shape[:-1])

    def start(self, random):
        return self.state(torch.zeros(*random.batch_size, 1))

    def dynamics(self, state, action):
        step = torch.where(action["turn"][:, None] == 0, -1.0, 1.0) * action["speed"].round()
        place = state["place"] + step
        return self.state(place), step, torch.zeros_like(place, dtype=torch.bool)


def test_a_collected_batch_holds_nested_legal_actions_with_their_log_probs():
    torch.manual_seed(0)
    family = CompositeDistribution.of(turn=MaskedCategorical, speed=TanhNormal.within(0.0, 1.0))
    heads = ParallelHeads(nn.Linear(1, 2), nn.Sequential(nn.Linear(1, 1), NormalHead(1)))
    actor = ProbabilisticActor(heads, family, in_keys=["place"], mask_key="legal")
    nn.init.zeros_(heads.heads[0].weight)  # else the walk leaves the left end for good
    batch = Collector(Crossing(6), actor, frames_per_batch=240, seed=0).collect()
    assert batch["action", "turn"].shape == (6, 40) and batch["speed", "loc"].shape == (6, 40, 1)
    at_the_end = ~batch["legal", "turn"][..., 0]
    assert at_the_end.sum() > 20 and (batch["action", "turn"][at_the_end] == 1).all() and (batch["place"] >= 0).all()
    distribution = actor.build(batch)
    torch.testing.assert_close(distribution.log_prob(batch["action"]), batch["action_log_prob"])
    torch.testing.assert_close(distribution.parts["speed"].loc, batch["speed", "loc"])
