"""The contract, the chain and the transformed environment."""

import copy

import pytest
import torch

from cases.transform_steps import act, column, counting, echo
from fakes import CountingSimulator
from torchrl.data.specs import Unbounded
from torchrl.envs.transforms import (
    ActionTransform,
    CatTensors,
    Compose,
    ObservationNorm,
    ObservationTransform,
    RewardNorm,
    RewardScaling,
    StepCounter,
    Transform,
    TransformedEnv,
)
from torchrl.errors import ConfigError, EnvError, KeyMissing


class Map(ObservationTransform):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, value):
        return self.function(value)

    def transform_spec(self, leaf):
        return Unbounded(leaf.shape)


class MapAction(ActionTransform):
    def __init__(self, function):
        super().__init__()
        self.function = function

    forward, transform_spec = Map.forward, Map.transform_spec


def add(amount, kind=Map):
    return kind(lambda value: value + amount)


def times(amount, kind=Map):
    return kind(lambda value: value * amount)


def test_observations_are_transformed_after_reset_step_and_on_the_true_last_one():
    batch = TransformedEnv(counting(), add(10)).rollout(5, act)
    assert column(batch, "observation") == [10, 11, 12, 10, 11]
    assert column(batch, ("next", "observation")) == [11, 12, 13, 11, 12]


def test_a_chain_starts_at_the_env():
    batch = TransformedEnv(counting(), Compose(add(1), times(2))).rollout(2, act)
    assert column(batch, "observation") == [2, 4]


def test_a_chain_inverts_in_reverse_order():
    env = TransformedEnv(echo(), Compose(add(1.0, MapAction), times(2.0, MapAction)))
    transition = env.step(env.reset().set("action", torch.tensor([3.0])))
    assert transition["action"].tolist() == [3]
    assert transition["next", "observation"].tolist() == [7]  # 3 · 2, then + 1


def test_a_chain_is_a_sequence():
    first, second = add(1), times(2)
    chain = Compose(first, second)
    assert len(chain) == 2 and chain[1] is second and list(chain) == [first, second]


def test_each_of_a_chain_has_env_to_what_those_before_it_leave():
    env = TransformedEnv(counting(2), Compose(CatTensors(out_key="vector"), ObservationNorm(1.0, 2.0, ["vector"])))
    assert column(env.rollout(2, act), "vector") == [[-0.5, 0], [-0.5, 0]]
    with pytest.raises(KeyMissing, match=r"'observation'.*\['vector'\]"):
        TransformedEnv(counting(2), Compose(CatTensors(out_key="vector"), ObservationNorm(1.0, 2.0)))


def test_batch_size_device_and_simulators_are_those_of_the_env():
    below = counting(2)
    env = TransformedEnv(below, Transform())
    assert env.batch_size == (2,) and env.device == below.device
    assert env.simulators is below.simulators


def test_an_env_without_simulators_has_none_here():
    env = TransformedEnv(counting(2), Transform())
    env.env = object()
    assert not hasattr(env, "simulators")


def test_close_reaches_the_simulators():
    env = TransformedEnv(TransformedEnv(counting(2), Transform()), Transform())
    env.close()
    assert all(simulator.is_closed for simulator in env.simulators)


def test_a_seed_given_to_the_env_before_it_was_wrapped_counts():
    below = counting()
    below.reset()
    below.reset()  # the third episode would follow
    below.set_seed(0)
    env = TransformedEnv(below, Transform())
    bare = counting()
    bare.set_seed(0)
    batch = env.rollout(20)
    assert column(batch, ("next", "reward"))[:4] == [0, 0, 0, 1]  # a seed starts the count of episodes over
    assert torch.equal(batch["action"], bare.rollout(20)["action"])
    assert column(env.rollout(1, act), ("next", "reward")) == [7]  # and is used once


def test_random_actions_are_those_of_the_bare_env():
    def actions(env):
        env.set_seed(3)
        return env.rollout(4)["action"]

    assert torch.equal(actions(TransformedEnv(echo(num_envs=2), RewardScaling(2.0))), actions(echo(num_envs=2)))


def test_a_captured_state_does_not_move_with_the_env():
    env = TransformedEnv(counting(2), RewardNorm(0.9))
    root = env.reset()
    state = env.state_dict()
    saved = copy.deepcopy(state)
    for _ in range(3):
        _, root = env.step_and_reset(act(root))
    for name, value in saved["transform"].items():
        assert torch.equal(state["transform"][name], value)
    assert int(env.transform.moments[0]) == 6


def test_streams_go_on_from_a_captured_state():
    env = TransformedEnv(counting(2), Transform())
    env.rollout(3)
    state = env.state_dict()
    batch = env.rollout(20)
    env.set_seed(9)
    env.load_state_dict(state)
    again = env.rollout(20)
    assert torch.equal(again["action"], batch["action"])
    assert torch.equal(again["next", "reward"], batch["next", "reward"])  # the seed given before does not come back


def test_what_a_policy_writes_under_next_is_carried():
    env = TransformedEnv(counting(length=2), add(10))
    root = act(env.reset()).set(("next", "memory"), torch.tensor([5.0]))
    transition, root = env.step_and_reset(root)
    assert transition["next", "memory"].tolist() == [5] and root["memory"].tolist() == [5]
    _, root = env.step_and_reset(act(root).set(("next", "memory"), torch.tensor([6.0])))
    assert root["memory"].tolist() == [0] and root["observation"].tolist() == [10]  # an episode begins


def test_no_action_is_said_clearly():
    for transform in (Transform(), add(1.0, MapAction)):
        env = TransformedEnv(echo(), transform)
        with pytest.raises(KeyMissing, match="a TensorDict with the key 'action'"):
            env.step(env.reset())


def test_an_observation_that_is_not_there_is_refused_at_construction():
    with pytest.raises(KeyMissing, match=r"ObservationNorm: .*'observatoin', got .*\['observation'\]\. Did you mean"):
        TransformedEnv(counting(), ObservationNorm(0.0, 1.0, ["observatoin"]))


def test_what_is_no_env_or_no_transform_is_refused():
    with pytest.raises(EnvError, match="expected an Env, got CountingSimulator.*SerialEnv"):
        TransformedEnv(CountingSimulator(), Transform())
    with pytest.raises(ConfigError, match="expected a Transform.*Compose"):
        TransformedEnv(counting(), [Transform()])
    with pytest.raises(ConfigError, match="Compose: expected a Transform"):
        Compose(Transform(), Transform)
    with pytest.raises(ConfigError, match="belongs to an environment or a chain"):
        transform = Transform()
        TransformedEnv(counting(), Compose(transform, transform))


def test_a_seed_set_below_a_transform_counts():
    below = counting()
    env = TransformedEnv(TransformedEnv(below, Transform()), add(0))
    bare = counting()
    for each, seeded in ((env, below), (bare, bare)):
        each.reset()
        each.reset()
        seeded.set_seed(4)  # the count of episodes starts over with it
    assert column(env.rollout(4, act), ("next", "reward")) == column(bare.rollout(4, act), ("next", "reward"))
    assert column(env.rollout(1, act), ("next", "reward")) == [2]  # it was used once
    env.env.set_seed(5)
    env.set_seed(4)  # the last one counts, wherever it was set
    bare.set_seed(4)
    assert torch.equal(env.rollout(9)["action"], bare.rollout(9)["action"])


class Seeds(Transform):
    """Keeps the seeds it is given."""

    def __init__(self):
        super().__init__()
        self.seeds = []

    def set_seed(self, seed):
        self.seeds.append(seed)


def test_transforms_are_seeded_with_a_reset_of_all_rows_that_has_a_seed():
    first, second = Seeds(), Seeds()
    env = TransformedEnv(counting(2), Compose(first, Compose(second)))
    env.reset()
    assert first.seeds == []
    env.reset(seed=3)
    env.reset(torch.tensor([True, False]), seed=3)
    env.reset(seed=[None, 3])
    assert len(first.seeds) == 1
    env.set_seed(3)
    env.reset()
    env.reset(seed=4)
    assert first.seeds[0] == first.seeds[1] != first.seeds[2]
    assert len({*first.seeds, *second.seeds}) == 4  # each of a chain has its own


def test_transforms_around_each_other_have_seeds_of_their_own():
    transforms = [Seeds() for _ in range(3)]
    env = counting(2)
    for transform in transforms:
        env = TransformedEnv(env, transform)
    env.reset(seed=3)
    assert len({transform.seeds[0] for transform in transforms}) == 3


class EndEven(Transform):
    """Ends an episode at every even step, as a time limit does."""

    ends_episodes = True

    def step(self, next_, root):
        is_even = next_["observation"] % 2 == 0
        next_["truncated"] = next_["truncated"] | is_even
        next_["done"] = next_["done"] | is_even


def test_a_transform_may_end_episodes():
    for env in (
        TransformedEnv(counting(length=9), EndEven()),
        TransformedEnv(counting(length=9), Compose(Transform(), Compose(EndEven()))),
        TransformedEnv(TransformedEnv(counting(length=9), EndEven()), Transform()),
    ):
        batch = env.rollout(5, act)
        assert column(batch, "observation") == [0, 1, 0, 1, 0]
        assert column(batch, ("next", "observation")) == [1, 2, 1, 2, 1]
        assert column(batch, ("next", "done")) == [False, True, False, True, False]
        assert column(batch, "is_init") == [True, False, True, False, True]


def test_what_a_policy_carries_starts_over_where_a_transform_ends_an_episode():
    env = TransformedEnv(counting(2, length=9), EndEven())
    root = env.reset()
    for due in ([1, 1], [0, 0], [1, 1]):
        memory = root.get("memory", torch.zeros(2)) + 1
        _, root = env.step_and_reset(act(root).set(("next", "memory"), memory))
        assert root["memory"].tolist() == due


def test_a_frozen_row_is_not_ended_again_by_a_transform():
    env = TransformedEnv(counting(2, 9), StepCounter(max_steps=2))
    root = env.reset()
    for _ in range(2):
        transition = env.step(act(root))
    assert transition["next", "truncated"].all()
    with pytest.raises(EnvError, match="rows"):
        env.step(root)
    env.freeze_(torch.tensor([False, True]))
    with pytest.raises(EnvError, match=r"\[\[0\]\]"):
        env.step(root)
    root = env.reset(torch.tensor([True, False]))
    other = TransformedEnv(counting(2, 9), StepCounter(max_steps=2))
    copied = other.load_state_dict(env.state_dict())
    for one, there in ((env, root), (other, copied)):
        ended = []
        for _ in range(3):
            transition, there = one.step_and_reset(act(there))
            ended.append(transition["next", "done"].squeeze(-1).tolist())
            assert torch.equal(transition["next", "done"], transition["next", "truncated"])
            assert transition["next", "observation"][1].tolist() == [2]
        assert ended == [[False, False], [True, False], [False, False]]
        there = one.reset()
        for _ in range(2):
            transition = one.step(act(there))
        assert transition["next", "truncated"].all()
