"""Random policies, and the names of the exploration context."""

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical
from torchrl.modules import ExplorationType, RandomPolicy, exploration_type, set_exploration_type


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
