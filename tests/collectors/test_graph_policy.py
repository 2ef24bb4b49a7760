"""A policy by one graph writes what it writes by itself, from the same random streams, and follows its weights."""

import copy
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.collectors import Collector, EpisodeCollector, GraphPolicy, PlacedPolicy, WarmUp
from torchrl.data.specs import Bounded, Categorical as Choice
from torchrl.envs import GymEnv
from torchrl.errors import ConfigError
from torchrl.modules import (
    GRU,
    MLP,
    Actor,
    AdditiveGaussian,
    Categorical,
    EGreedy,
    ExplorationType,
    MaskedCategorical,
    NoisyLinear,
    Normal,
    NormalHead,
    OrnsteinUhlenbeck,
    ProbabilisticActor,
    QValueActor,
    Sequence,
    TanhNormal,
    set_exploration_type,
)
from torchrl.modules.operator import Operator


def stream(seed=1):
    return torch.Generator().manual_seed(seed)


def network(num_outputs=2, **options):
    return MLP(4, num_outputs, num_cells=(8,), **options)


UNIT = Bounded(-1.0, 1.0, [3])
POLICIES = {
    "Categorical": lambda: ProbabilisticActor(network(), Categorical, generator=stream()),
    "Categorical, global stream": lambda: ProbabilisticActor(network(), Categorical),
    "MaskedCategorical": lambda: ProbabilisticActor(network(), MaskedCategorical, mask_key="mask", generator=stream()),
    "Normal": lambda: ProbabilisticActor(nn.Sequential(network(3), NormalHead(3)), partial(Normal), generator=stream()),
    "TanhNormal, no log-prob": lambda: ProbabilisticActor(
        nn.Sequential(network(3), NormalHead(3)), TanhNormal, log_prob_key=None, generator=stream()
    ),
    "EGreedy": lambda: EGreedy(QValueActor(network()), Choice(2), num_frames=100, start=0.5, generator=stream()),
    "AdditiveGaussian": lambda: AdditiveGaussian(Actor(network(3)), UNIT, generator=stream()),
    "OrnsteinUhlenbeck": lambda: OrnsteinUhlenbeck(Actor(network(3)), UNIT, num_frames=100, generator=stream()),
    "NoisyLinear": lambda: QValueActor(network(linear=partial(NoisyLinear, generator=stream()))),
    "GRU": lambda: Sequence(GRU(4, 8), ProbabilisticActor(nn.Linear(8, 2), Categorical, in_keys=["hidden"])),
    "WarmUp": lambda: WarmUp(
        ProbabilisticActor(network(), Categorical, generator=stream()), Choice(2, [5]), 12, generator=stream(2)
    ),
}


def roots(policy, num=4):
    """Yield roots of 5 rows; the state of a policy goes on from the one before."""
    carried = {"ou_noise": torch.zeros(5, 3)} if isinstance(policy, OrnsteinUhlenbeck) else {}
    if hasattr(policy, "initial_state"):
        carried = {k: x.expand(5, *x.shape) for k, x in policy.initial_state().items(True, True)}
    for seed in range(num):
        observation = torch.randn(5, 4, generator=stream(seed))
        root = TensorDict({"observation": observation, "mask": observation[:, :2] > -0.5, "other": torch.ones(5)}, [5])
        root["mask"][:, 0] = True
        root["is_init"] = torch.zeros(5, 1, dtype=torch.bool)
        for key, value in carried.items():
            root[key] = value
        yield root


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_by_one_graph_writes_what_the_policy_writes(traced, name):
    torch.manual_seed(0)
    one = POLICIES[name]()
    other = copy.deepcopy(one)
    policy = GraphPolicy(other)
    for root, same in zip(roots(one), roots(other), strict=True):
        with torch.no_grad(), torch.random.fork_rng():
            expected = one(root)
        written = policy(same)
        assert set(written.keys(True, True)) == set(expected.keys(True, True))
        torch.testing.assert_close(written.to_dict(), expected.to_dict())
        for part in (one, other):
            for x in part.parameters():
                x.data.mul_(1.1)  # the graph reads them
            if hasattr(part, "step"):
                part.step(10)
    assert policy.num_graphs == len(traced) == 1


def test_where_a_fact_of_a_module_or_the_exploration_type_changes_another_graph_is_made(traced):
    policy = ProbabilisticActor(network(), Categorical, generator=stream())
    graph, (root, *_) = GraphPolicy(policy), roots(policy)
    kinds = (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC, ExplorationType.RANDOM)
    for kind in kinds:
        with set_exploration_type(kind):
            assert graph(root.copy())["action"].shape == (5,)
    greedy = graph(root.copy())["logits"].argmax(-1)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(graph(root.copy())["action"], greedy)
    assert graph.num_graphs == len(traced) == 3  # with that of no type at all
    policy.generator = stream(7)
    expected = policy.eval()(root.copy())["action"]
    policy.generator.manual_seed(7)
    assert torch.equal(graph(root.copy())["action"], expected)
    assert graph.num_graphs == 4


def test_a_root_elsewhere_is_not_given_to_the_graph_of_a_root_here(traced):
    policy = ProbabilisticActor(network(), Categorical)
    graph, (root, *_) = GraphPolicy(policy), roots(policy)
    graph(root.copy())
    with pytest.raises(ConfigError, match="one graph of tensors"):
        graph(root.to("meta"))


class Counting(Operator):
    """Write how often it was called, and note it in a buffer."""

    def __init__(self):
        super().__init__(nn.Identity(), in_keys=["observation"], out_keys=["action"])
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, tensordict):
        self.calls.add_(1)
        tensordict["action"] = tensordict["observation"] + self.calls
        return tensordict


def test_buffers_that_a_policy_writes_to_are_its_own(traced):
    policy = Counting()
    graph, calls = GraphPolicy(policy), policy.calls
    for count, root in enumerate(roots(policy), start=1):
        assert torch.equal(graph(root)["action"], root["observation"] + count)
    assert policy.calls is calls and calls == 4


class Branching(Counting):
    def forward(self, tensordict):
        return super().forward(tensordict) if tensordict["observation"].sum() > 0 else tensordict


def test_what_is_no_graph_is_refused(traced):
    with pytest.raises(ConfigError, match="compile, policy: expected a module with in_keys, got function"):
        GraphPolicy(lambda root: root)
    policy = Branching()
    with pytest.raises(ConfigError, match="compile, policy: expected one graph of tensors, got .*Leave compile out"):
        GraphPolicy(policy)(next(roots(policy)))
    assert policy.calls == 0


def test_a_placed_copy_acts_by_a_graph(traced):
    actor = ProbabilisticActor(network(), Categorical, generator=stream())
    placed, root = PlacedPolicy(actor, torch.device("cpu"), compile=True), next(roots(actor))
    with torch.no_grad():
        expected = actor(root.copy())["logits"]
        actor.module.layers[0].weight.zero_()
    torch.testing.assert_close(placed(root.copy())["logits"], expected)
    placed.refresh()
    assert torch.equal(placed(root.copy())["logits"], actor(root.copy())["logits"])
    assert len(traced) == 1


@pytest.mark.parametrize("kind", [Collector, EpisodeCollector])
def test_a_collector_that_compiles_collects_what_one_collects_that_does_not(traced, kind):
    size = {"frames_per_batch": 24} if kind is Collector else {"num_episodes": 3}
    torch.manual_seed(0)
    body, batches = network(), []
    for compile in (False, True):
        policy = WarmUp(
            ProbabilisticActor(body, Categorical, generator=stream()), Choice(2, [3]), 9, generator=stream(2)
        )
        collector = kind(GymEnv("CartPole-v1", num_envs=3), policy, **size, seed=0, compile=compile)
        batches.append([collector.collect().to_dict() for _ in range(2)])
        collector.shutdown()
    torch.testing.assert_close(*batches)
    assert len(traced) == 1
