"""ProbabilisticActor: what it writes, how it chooses, that a learner recomputes it, and that it compiles."""

import copy
import pickle
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data import specs
from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import (
    MLP,
    Categorical,
    ExplorationType,
    Normal,
    NormalHead,
    ObservationNormalizer,
    ProbabilisticActor,
    StateDependentNormalHead,
    TanhNormal,
    set_exploration_type,
)


def categorical(**kwargs):
    return ProbabilisticActor(MLP(4, 3), Categorical, **kwargs)


def normal(**kwargs):
    return ProbabilisticActor(nn.Sequential(ObservationNormalizer(4), MLP(4, 2), NormalHead(2)), Normal, **kwargs)


def tanh_normal(**kwargs):
    network = nn.Sequential(MLP(4, 4), StateDependentNormalHead())
    return ProbabilisticActor(network, TanhNormal.within(-2.0, 3.0), **kwargs)


ACTORS = [categorical, normal, tanh_normal]


def roots(*shape):
    return TensorDict({"observation": torch.randn(*shape, 4)}, shape)


@pytest.mark.parametrize("make_actor", ACTORS)
@pytest.mark.parametrize("shape", [(), (8,), (8, 5)])
def test_what_is_written_and_its_shapes(make_actor, shape):
    actor, tensordict = make_actor(), roots(*shape)
    assert actor(tensordict) is tensordict
    assert set(tensordict.keys()) == {"observation", *actor.out_keys}
    assert actor.out_keys == [*actor.parameter_names, "action", "action_log_prob"]
    assert tensordict["action_log_prob"].shape == shape
    if make_actor is categorical:
        assert tensordict["action"].shape == shape and tensordict["action"].dtype == torch.int64
        assert tensordict["logits"].shape == (*shape, 3)
    else:
        assert tensordict["action"].shape == tensordict["loc"].shape == tensordict["scale"].shape == (*shape, 2)


@pytest.mark.parametrize("make_actor", ACTORS)
def test_build_gives_back_the_collected_log_prob_with_gradient_and_writes_nothing(make_actor):
    actor, batch = make_actor(), roots(8, 5)
    with torch.no_grad():
        actor(batch)
    keys = set(batch.keys(True))
    log_prob = actor.build(batch).log_prob(batch["action"])
    torch.testing.assert_close(log_prob, batch["action_log_prob"])
    assert set(batch.keys(True)) == keys and not batch["action_log_prob"].requires_grad
    log_prob.sum().backward()
    assert all(parameter.grad.any() for parameter in actor.parameters())


@pytest.mark.parametrize("make_actor", ACTORS)
def test_the_exploration_type_decides(make_actor):
    actor, tensordict = make_actor(), roots(64)
    mode = actor.build(tensordict).mode
    draws = [actor(tensordict)["action"]]
    with set_exploration_type(ExplorationType.RANDOM):
        draws.append(actor(tensordict)["action"])
    assert not torch.equal(draws[0], draws[1]) and not any(torch.equal(draw, mode) for draw in draws)
    for kind in (ExplorationType.DETERMINISTIC, ExplorationType.MODE):
        with set_exploration_type(kind):
            acted = actor(tensordict)
        assert torch.equal(acted["action"], mode) and set(acted.keys()) == {"observation", *actor.out_keys}
        torch.testing.assert_close(acted["action_log_prob"], actor.build(tensordict).log_prob(mode))


def test_mean_and_median_where_there_are_any():
    tensordict = roots(16)
    actor = tanh_normal()
    with set_exploration_type(ExplorationType.MEAN):
        mean = actor(tensordict)["action"]
    with set_exploration_type(ExplorationType.MEDIAN):
        median = actor(tensordict)["action"]
    assert torch.equal(mean, actor.build(tensordict).mean) and torch.equal(median, actor.build(tensordict).median)
    assert not torch.equal(mean, median)
    with set_exploration_type(ExplorationType.MEAN), pytest.raises(ConfigError, match="Categorical.*a mean"):
        categorical()(tensordict)


@pytest.mark.parametrize("make_actor", ACTORS)
def test_no_log_prob_where_none_is_wanted(make_actor):
    actor, tensordict = make_actor(log_prob_key=None), roots(8)
    expected = {"observation", "action", *actor.parameter_names}
    assert set(actor(tensordict).keys()) == expected
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert set(actor(roots(8)).keys()) == expected


@pytest.mark.parametrize("make_actor", ACTORS)
def test_keys_may_be_nested(make_actor):
    actor = make_actor(
        in_keys=[("agents", "observation")], action_key=("agents", "action"), log_prob_key=("agents", "log_prob")
    )
    tensordict = actor(TensorDict({"agents": {"observation": torch.randn(8, 4)}}, [8]))
    torch.testing.assert_close(
        tensordict["agents", "log_prob"], actor.build(tensordict).log_prob(tensordict["agents", "action"])
    )


@pytest.mark.parametrize("make_actor", ACTORS)
def test_a_generator_is_the_only_source_of_chance(make_actor):
    torch.manual_seed(0)
    actor, tensordict = make_actor(generator=torch.Generator().manual_seed(7)), roots(32)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(actor)))
    before = torch.get_rng_state()
    first, second = (actor(tensordict.clone())["action"] for _ in range(2))
    assert not torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)
    assert torch.equal(twin(tensordict.clone())["action"], first)


def test_a_compiled_actor_follows_the_exploration_type_and_draws_at_each_call():
    actor, tensordict = categorical(), roots(8)
    act = torch.compile(actor, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert not torch.equal(act(tensordict.clone())["action"], act(tensordict.clone())["action"])
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            assert torch.equal(act(tensordict.clone())["action"], actor.build(tensordict).mode)


def test_parameters_in_a_tuple_and_as_a_tensor():
    distribution = partial(TanhNormal, low=-2.0, high=2.0)
    assert ProbabilisticActor(nn.Sequential(MLP(4, 2), NormalHead(2)), distribution).parameter_names == ("loc", "scale")
    with pytest.raises(ConfigError, match="expected 2 tensors from its module, got 1 from MLP"):
        ProbabilisticActor(MLP(4, 2), Normal)(roots(8))


def test_a_spec_of_the_same_name_is_told_from_the_distribution():
    with pytest.raises(ConfigError, match="That is a spec, .*; the distribution is torchrl.modules.Categorical"):
        ProbabilisticActor(MLP(4, 2), specs.Categorical)


def test_a_distribution_of_torch_is_refused():
    with pytest.raises(ConfigError, match="expected a distribution with parameter_names.*those of torch do not"):
        ProbabilisticActor(MLP(4, 2), torch.distributions.Categorical)


def test_a_missing_observation_is_named():
    with pytest.raises(KeyMissing, match=r"ProbabilisticActor: expected the key 'observation', got keys \['pixels'\]"):
        categorical()(TensorDict({"pixels": torch.zeros(8, 4)}, [8]))
