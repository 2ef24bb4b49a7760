"""Random policies, masks included; exploration that fades; and the names of the exploration context."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.collectors.placement import PlacedPolicy
from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    Actor,
    AnnealedExploration,
    ExplorationType,
    Normal,
    NormalHead,
    ProbabilisticActor,
    RandomPolicy,
    exploration_type,
    set_exploration_type,
)


def test_the_context_sets_and_restores_the_type():
    assert exploration_type() is None
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert exploration_type() is ExplorationType.DETERMINISTIC
        with set_exploration_type(ExplorationType.RANDOM):
            assert exploration_type() is ExplorationType.RANDOM
        assert exploration_type() is ExplorationType.DETERMINISTIC
    assert exploration_type() is None


def test_actions_cover_the_spec_whatever_the_exploration_type():
    policy = RandomPolicy(Categorical(3, shape=(500,)), generator=torch.Generator().manual_seed(0))
    tensordict = TensorDict({"observation": torch.zeros(500, 4)}, [500])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert policy(tensordict) is tensordict
    assert tensordict["action"].dtype == torch.int64 and tensordict["action"].unique().tolist() == [0, 1, 2]


def test_actions_have_the_batch_shape_of_the_spec_and_come_from_the_generator():
    spec = Bounded(-2.0, 3.0, shape=(8, 2))
    before = torch.get_rng_state()
    first, second = (
        RandomPolicy(spec, generator=torch.Generator().manual_seed(1))(TensorDict(batch_size=[8]))["action"]
        for _ in range(2)
    )
    assert torch.equal(first, second) and first.shape == (8, 2) and spec.contains(first)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_action_may_have_another_key():
    policy = RandomPolicy(Categorical(3, shape=(8,)), action_key=("agents", "action"))
    assert policy.out_keys == [("agents", "action")] and policy.in_keys == []
    assert policy(TensorDict(batch_size=[8]))["agents", "action"].shape == (8,)


def test_masked_actions_are_never_drawn():
    num = 100_000
    mask = torch.zeros(num, 4, dtype=torch.bool)
    mask[::2, 1] = mask[1::2, 0] = mask[1::2, 3] = True
    policy = RandomPolicy(
        Categorical(4, shape=(num,)), mask_key="action_mask", generator=torch.Generator().manual_seed(0)
    )
    assert policy.in_keys == ["action_mask"]
    action = policy(TensorDict({"action_mask": mask}, [num]))["action"]
    assert mask.gather(-1, action.unsqueeze(-1)).all()
    assert (action[::2] == 1).all() and abs((action[1::2] == 0).float().mean().item() - 0.5) < 0.01


def test_masks_of_nested_actions_are_nested():
    spec = Composite({"move": Categorical(3, shape=(5,)), "say": Categorical(2, shape=(5,))}, shape=(5,))
    masks = TensorDict({"move": torch.tensor([False, False, True]).expand(5, 3)}, [5])
    masks["say"] = torch.tensor([True, False]).expand(5, 2)
    policy = RandomPolicy(spec, mask_key="action_mask")
    action = policy(TensorDict({"action_mask": masks}, [5]))["action"]
    assert action["move"].tolist() == [2] * 5 and action["say"].tolist() == [0] * 5


def test_masks_that_are_absent_or_allow_nothing_are_errors():
    policy = RandomPolicy(Categorical(3, shape=(2,)), mask_key="action_mask")
    with pytest.raises(KeyMissing, match="RandomPolicy: expected the key 'action_mask'.*mean 'mask'"):
        policy(TensorDict({"mask": torch.ones(2, 3, dtype=torch.bool)}, [2]))
    with pytest.raises(SpecError):
        policy(TensorDict({"action_mask": torch.tensor([[True, True, True], [False, False, False]])}, [2]))


class Noisy(AnnealedExploration):
    """Add white noise to the action."""

    def explore(self, tensordict):
        action = tensordict[self.action_key]
        noise = torch.empty_like(action).normal_(generator=self.generator)
        return tensordict.set(self.action_key, action + self.strength * noise)


def make_noisy(**options):
    actor = Actor(nn.Identity(), in_keys=["observation"])
    return Noisy(actor, **{"start": 1.0, "end": 0.1, "num_frames": 100, **options})


def zeros(*shape):
    return TensorDict({"observation": torch.zeros(*shape)}, shape[:1])


def test_the_strength_goes_linearly_from_start_to_end_and_stays():
    policy = make_noisy()
    strengths = [policy.strength.item()]
    for frames in (25, 0, 25, 50, 1000):
        policy.step(frames)
        strengths.append(policy.strength.item())
    assert strengths == pytest.approx([1.0, 0.775, 0.775, 0.55, 0.1, 0.1], abs=1e-7)
    assert policy.strength == torch.tensor(0.1) and policy.frames.item() == 1100
    rising = make_noisy(start=0.0, end=2.0)
    rising.step(75)
    assert rising.strength.item() == 1.5


@pytest.mark.parametrize("kind", [None, *ExplorationType])
def test_it_explores_at_random_and_outside_of_contexts_only(kind):
    policy, roots = make_noisy(), zeros(8, 2)
    with set_exploration_type(kind):
        assert exploration_type() is kind
        assert policy(roots) is roots
    assert bool(roots["action"].any()) == (kind in (None, ExplorationType.RANDOM))


def test_the_strength_is_that_of_the_moment_and_the_noise_the_generators():
    before, big = torch.get_rng_state(), zeros(10_000, 2)
    policy = make_noisy(generator=torch.Generator().manual_seed(0))
    policy(big)
    assert abs(big["action"].std().item() - 1) < 0.03
    policy.step(100)
    policy(big)
    assert abs(big["action"].std().item() - 0.1) < 0.003
    again = make_noisy(generator=torch.Generator().manual_seed(0))
    again(zeros(10_000, 2)), again.step(100)
    assert torch.equal(again(zeros(10_000, 2))["action"], big["action"])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_strength_travels_with_the_weights():
    policy, other = make_noisy(), make_noisy()
    policy.step(40)
    other.load_state_dict(policy.state_dict())
    assert {"strength", "frames"} <= set(policy.state_dict()) and other.strength == policy.strength
    placed = PlacedPolicy(policy, torch.device("cpu"))
    policy.step(40)
    placed.refresh()
    assert placed.copy.strength == policy.strength and placed.copy.frames == 80
    other.step(40)
    assert other.strength == policy.strength
    assert policy.double().strength.dtype == torch.float64 and copy.deepcopy(policy).frames == 80


def test_it_looks_like_the_policy_that_it_holds():
    policy = make_noisy()
    assert (policy.in_keys, policy.out_keys, policy.action_key) == (["observation"], ["action"], "action")
    assert not hasattr(policy, "build") and not list(policy.parameters())


def test_a_compiled_policy_is_compiled_once_for_all_strengths():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    policy = make_noisy()
    compiled = torch.compile(policy, fullgraph=True, backend=backend)
    for _ in range(3):
        assert compiled(zeros(8, 2))["action"].any()
        policy.step(20)
    assert len(graphs) == 1
    torch.manual_seed(0)
    ours = compiled(zeros(8, 2))["action"]
    torch.manual_seed(0)
    assert torch.equal(ours, policy(zeros(8, 2))["action"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": float("nan")}, "Noisy: expected finite strengths, got start=nan, end=0.1"),
        ({"end": float("inf")}, "finite strengths"),
        ({"num_frames": 0}, r"Noisy\(num_frames=...\): expected a positive integer, got 0"),
        ({"num_frames": 1e6}, "positive integer, got 1000000.0"),
    ],
)
def test_wrong_schedules_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_noisy(**options)


def test_log_probs_of_actions_that_will_change_are_refused():
    network = nn.Sequential(nn.Identity(), NormalHead(2))
    with pytest.raises(ConfigError, match="without log-probs, got action_log_prob.*log_prob_key=None"):
        Noisy(ProbabilisticActor(network, Normal), start=1.0, end=0.0, num_frames=10)
    policy = Noisy(ProbabilisticActor(network, Normal, log_prob_key=None), start=1.0, end=0.0, num_frames=10)
    assert policy.build(zeros(8, 2)).loc.shape == (8, 2)


def test_steps_back_and_missing_exploration_are_errors():
    with pytest.raises(ConfigError, match="Noisy.step: expected frames of at least 0, got -1"):
        make_noisy().step(-1)
    with pytest.raises(NotImplementedError, match="AnnealedExploration.*`explore`"):
        AnnealedExploration(Actor(nn.Identity()), start=1.0, end=0.0, num_frames=10)(zeros(8, 2))


class Remembers(AnnealedExploration):
    def own_state(self):
        return {"drift": torch.zeros(1)}

    def explore(self, tensordict):
        return tensordict.set("action", tensordict["action"] + tensordict["drift"])


def test_a_state_that_no_environment_holds_is_named_with_the_line_to_write():
    policy = Remembers(Actor(nn.Linear(4, 1)), start=1.0, end=0.1, num_frames=10)
    with pytest.raises(KeyMissing, match="Remembers: expected its state under 'drift'.*TensorDictPrimer"):
        policy(TensorDict({"observation": torch.zeros(2, 4)}, [2]))
