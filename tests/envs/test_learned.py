"""What transforms have learned, apart from the simulators: handed on, frozen, joined, and not from rows that wait."""

import copy

import numpy as np
import pytest
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from torch import nn

from fakes import CountingSimulator
from torchrl.collectors import Collector, EpisodeCollector, rollout
from torchrl.data.specs import Unbounded
from torchrl.envs import CartPole, GymEnv, Pendulum, SerialEnv, TransformedEnv
from torchrl.envs.learned import frozen, join_learned
from torchrl.envs.transforms import (
    Compose,
    FrameStack,
    ObservationNorm,
    ObservationTransform,
    RewardNorm,
    RewardScaling,
    StepCounter,
    TargetReturn,
    Transform,
    VecNorm,
)
from torchrl.errors import ConfigError, SpecError


class Largest(ObservationTransform):
    """Divides by the largest number seen so far, as a user would write it: a plain buffer, nothing else."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.ones(()))

    def forward(self, value):
        if self.training:
            self.largest = torch.maximum(self.largest, value.abs().max())
        return value / self.largest

    def transform_spec(self, leaf):
        return Unbounded(leaf.shape, leaf.dtype)


class Restless(SerialEnv):
    """Steps all rows together."""

    can_freeze = False


def pendulums(num_envs=2, *transforms):
    return TransformedEnv(Pendulum(num_envs), Compose(*transforms))


def counting(*lengths):
    return SerialEnv([lambda length=length: CountingSimulator(length) for length in lengths])


def flat(learned):
    return {f"{name}.{key}": value.tolist() for name, tensors in learned.items() for key, value in tensors.items()}


def test_learned_state_is_named_by_class_and_observations_and_holds_no_memory():
    env = pendulums(2, VecNorm(), RewardNorm(0.99), FrameStack(2), VecNorm(), Largest())
    assert list(env.learned_state_dict()) == [
        "VecNorm[observation]",
        "reward/RewardNorm",
        "VecNorm[observation] #2",
        "Largest[observation]",
    ]
    assert list(env.learned_state_dict()["reward/RewardNorm"]) == ["moments"]
    assert Pendulum(2).learned_state_dict() == {}


def test_learned_state_goes_to_an_environment_of_another_size_and_below_other_transforms():
    torch.manual_seed(0)
    env = pendulums(3, VecNorm(), RewardNorm(0.99), Largest())
    env.rollout(20)
    other = TransformedEnv(TransformedEnv(Pendulum(1), VecNorm()), Compose(RewardNorm(0.99), Largest()))
    other.load_learned_state_dict(env.learned_state_dict())
    assert flat(other.learned_state_dict()) == flat(env.learned_state_dict())


def test_other_transforms_or_shapes_are_refused_and_nothing_is_changed():
    env = pendulums(2, VecNorm(), RewardNorm(0.99))
    env.rollout(5)
    before = flat(env.learned_state_dict())
    with pytest.raises(SpecError, match="RewardNorm"):
        env.load_learned_state_dict(pendulums(2, VecNorm()).learned_state_dict())
    with pytest.raises(SpecError, match="count_0"):
        other = TransformedEnv(CartPole(2), Compose(VecNorm(), RewardNorm(0.9)))
        env.load_learned_state_dict(other.learned_state_dict())
    assert flat(env.learned_state_dict()) == before


def test_what_the_policy_sees_with_is_taken_without_the_rewards():
    env, other = pendulums(2, VecNorm(), RewardNorm(0.99)), pendulums(2, VecNorm())
    env.rollout(5)
    other.load_learned_state_dict(env.learned_state_dict(), for_acting=True)
    learned = env.learned_state_dict()
    assert flat(other.learned_state_dict()) == flat({"VecNorm[observation]": learned["VecNorm[observation]"]})


@pytest.mark.parametrize("make", [VecNorm, Largest, lambda: RewardNorm(0.99)], ids=["VecNorm", "own", "RewardNorm"])
def test_statistics_go_on_where_the_simulators_cannot_be_captured(make):
    def collector():
        return Collector(TransformedEnv(GymEnv("LunarLander-v3", num_envs=2), make()), frames_per_batch=100, seed=0)

    one, two = collector(), collector()
    one.collect()
    with pytest.warns(UserWarning, match="New episodes start"):
        two.load_state_dict(one.state_dict())
    assert flat(two.env.learned_state_dict()) == flat(one.env.learned_state_dict())
    assert flat(two.env.learned_state_dict()) != flat(collector().env.learned_state_dict())


def test_frozen_transforms_see_with_what_is_given_and_get_back_their_own():
    env, training = pendulums(1, VecNorm()), pendulums(4, VecNorm())
    env.rollout(3)
    training.rollout(30)
    before = flat(env.learned_state_dict())
    objects = list(env.transform.buffers())
    with frozen(env, [training.learned_state_dict()]):
        root = env.reset(seed=3)
        raw = Pendulum(1).reset(seed=3)["observation"]
        seen = training.transform[0].statistics.normalise("observation", raw, 1e-8)
        torch.testing.assert_close(root["observation"], seen.float())
        env.rollout(5)
        assert not env.transform[0].training
    assert flat(env.learned_state_dict()) == before and env.transform[0].training
    assert [id(tensor) for tensor in env.transform[0].statistics.buffers()] == [
        id(tensor) for tensor in objects if any(tensor is one for one in env.transform[0].statistics.buffers())
    ]


def test_two_transforms_with_the_same_statistics_get_them_back():
    first = VecNorm()
    env = TransformedEnv(Pendulum(1), first)
    env = TransformedEnv(env, VecNorm(statistics=first.statistics))
    env.rollout(3)
    mean = first.statistics.moments("observation")[1]
    with frozen(env, [env.learned_state_dict()]):
        env.rollout(2)
    assert first.statistics.moments("observation")[1] is mean


@pytest.mark.parametrize(
    ("transforms", "match"),
    [((), r"without \['VecNorm\[observation\]'\]"), ((VecNorm(), Largest()), r"with \['Largest\[observation\]'\]")],
)
def test_an_evaluation_that_shows_something_else_is_refused(transforms, match):
    training = pendulums(2, VecNorm(), RewardNorm(0.99))
    with pytest.raises(ConfigError, match=match), frozen(pendulums(1, *transforms), [training.learned_state_dict()]):
        pass


def test_without_the_trainings_statistics_empty_ones_are_refused():
    with (
        pytest.raises(ConfigError, match=r"VecNorm that has seen nothing.*collector\.learned_states\(\)"),
        frozen(pendulums(1, VecNorm())),
    ):
        pass
    env = pendulums(1, VecNorm(), ObservationNorm(0.0, 2.0))
    env.rollout(2)
    with frozen(env):
        env.rollout(2)


def test_statistics_of_several_environments_are_joined_exactly():
    """Two environments that go on from the joint statistics are, step by step, one with the rows of both."""
    seen = torch.randn(3, 2, 4, 1, dtype=torch.float64)  # rounds, environments, rows, features
    norms = [TransformedEnv(Pendulum(4), VecNorm()).transform for _ in range(3)]
    for norm in norms:
        norm.statistics = type(norm.statistics)({"observation": [1]})
    *parts, whole = norms
    for rows in seen:
        for norm, own in zip(parts, rows, strict=True):
            norm.statistics.update_("observation", own, decay=0.9)
        whole.statistics.update_("observation", rows.reshape(8, 1), decay=0.9)
        joint = VecNorm.merge_learned([norm.learned_state_dict() for norm in parts])
        for norm in parts:
            norm.load_learned_state_dict(joint)
    count, mean, var = whole.statistics.moments("observation")
    torch.testing.assert_close(list(joint.values()), [count / 2, mean, var])


def test_moments_of_rewards_are_joined_exactly():
    states = [{"moments": torch.tensor([2.0, mean, 2.0]).double()} for mean in (1.0, 3.0)]
    # {0, 2} and {2, 4}: mean 2, squared deviations 4 + 0 + 0 + 4 of four, so 4 of two
    assert RewardNorm.merge_learned(states)["moments"].tolist() == [2.0, 2.0, 4.0]


def test_what_nobody_can_join_is_refused_unless_it_is_the_same():
    one, two = pendulums(1, Largest()), pendulums(1, Largest())
    states = [one.learned_state_dict(), two.learned_state_dict()]
    assert flat(join_learned(one.transforms, states)) == flat(states[0])
    one.transform[0].largest = torch.tensor(3.0)
    with pytest.raises(ConfigError, match="merge_learned"):
        join_learned(one.transforms, [one.learned_state_dict(), states[1]])


def test_what_several_have_learned_of_rewards_is_no_matter_where_rewards_are_left_as_they_are():
    workers = [pendulums(1, VecNorm(), RewardNorm(0.9)) for _ in range(2)]
    for seed, worker in enumerate(workers):
        worker.set_seed(seed)
        worker.rollout(3)
    states = [worker.learned_state_dict() for worker in workers]
    bare = pendulums(2, VecNorm())
    with frozen(bare, states):
        inside = flat(bare.learned_state_dict())
    bare.load_learned_state_dict(join_learned(bare.transforms, states), for_acting=True)
    norm = {key: value for key, value in flat(join_learned(workers[0].transforms, states)).items() if "VecNorm" in key}
    assert inside == flat(bare.learned_state_dict()) == norm
    with pytest.raises(ConfigError, match=r"without \['VecNorm"), frozen(pendulums(2), states):
        pass


def test_memory_that_is_registered_as_learned_is_named_where_the_rows_are_others():
    class Memory(Transform):
        def read_specs(self, env):
            super().read_specs(env)
            self.register_buffer("total", torch.zeros(*env.batch_size, 1))

    one, two = pendulums(2, Memory()), pendulums(3, Memory())
    with pytest.raises(SpecError, match="Memory: expected .*2, 1.*, got .*3, 1.* register_memory, not register_buffer"):
        one.load_learned_state_dict(two.learned_state_dict())


# ---- rows that wait --------------------------------------------------------------------------------------------------


def act(root):
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


class Summed(Transform):
    """Adds up the steps of each row and all rows ever seen, as a user would write it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def read_specs(self, env):
        super().read_specs(env)
        self.register_memory("steps", torch.zeros(*env.batch_size, 1))

    def step(self, next_, root):
        self.steps += 1
        self.seen += next_.numel() if self.waiting is None else (~self.waiting).sum()

    def reset(self, root, mask):
        self.steps = torch.zeros_like(self.steps) if mask is None else self.steps.masked_fill(mask.unsqueeze(-1), 0)


def test_nothing_is_learned_or_added_up_on_rows_that_wait():
    vec, reward, summed = VecNorm(decay=1.0), RewardNorm(0.5), Summed()
    memory = (FrameStack(2), StepCounter(), TargetReturn(10.0))
    env = TransformedEnv(counting(50, 50), Compose(vec, RewardScaling(loc=1.0, scale=1.0), reward, summed, *memory))
    root = env.reset()
    for _ in range(2):
        _, root = env.step_and_reset(act(root))
    env.freeze_(torch.tensor([False, True]))
    counts = vec.statistics.moments("observation")[0].item(), reward.moments[0].item(), summed.seen.item()
    waiting = {key: value[1].clone() for key, value in root.items() if key in env.observation_spec}
    remembered = reward.returns[1].item()
    for _ in range(3):
        transition, root = env.step_and_reset(act(root))
        after = transition["next"]
        assert [after[key][1].item() for key in ("reward", "terminated", "truncated", "done")] == [0, 0, 0, 0]
        for key, value in waiting.items():
            assert torch.equal(root[key][1], value) and torch.equal(after[key][1], value), key
    added = vec.statistics.moments("observation")[0].item(), reward.moments[0].item(), summed.seen.item()
    assert [new - old for new, old in zip(added, counts, strict=True)] == [3, 3, 3]
    assert reward.returns[1].item() == remembered and reward.returns[0].item() != remembered
    assert summed.steps.flatten().tolist() == [5, 2] and root["step_count"].flatten().tolist() == [5, 2]
    root = env.reset(torch.tensor([False, True]), root=root)
    _, root = env.step_and_reset(act(root))
    assert root["step_count"].flatten().tolist() == [6, 1]
    assert vec.statistics.moments("observation")[0].item() == added[0] + 3  # one restarted, two stepped


@pytest.mark.parametrize("finished", ["leave", "sticky"])
def test_rows_wait_behind_two_environments_as_behind_a_chain(finished):
    def parts():
        return VecNorm(decay=1.0), RewardNorm(0.5), VecNorm(decay=1.0), FrameStack(2), StepCounter()

    def batch(env):
        if finished == "leave":
            return EpisodeCollector(env, act, num_episodes=2).collect()
        return next(iter(rollout(env, act, n_steps=7, sticky=True)))[0]

    one, (*inner, norm, stack, counter) = TransformedEnv(counting(2, 7), Compose(*parts())), parts()
    two = TransformedEnv(TransformedEnv(counting(2, 7), Compose(*inner)), Compose(norm, stack, counter))
    whole, apart = batch(one), batch(two)
    assert bool((whole == apart).all())
    assert flat(one.learned_state_dict()) == flat(two.learned_state_dict())


def test_an_ending_by_a_transform_does_not_come_to_rows_that_wait():
    env = TransformedEnv(counting(50, 50), StepCounter(max_steps=3))
    root = env.reset()
    _, root = env.step_and_reset(act(root))
    env.freeze_(torch.tensor([True, False]))
    for _ in range(4):
        transition, root = env.step_and_reset(act(root))
        assert not transition["next", "done"][0]


@pytest.mark.parametrize("can_wait", [True, False], ids=["waits", "is stepped on"])
@pytest.mark.parametrize("drive", ["episodes", "sticky"])
def test_statistics_are_those_of_the_data_that_is_handed_out(drive, can_wait):
    """Both ways: rows that the environment freezes, and rows that are stepped on for nothing where it cannot."""
    kind = SerialEnv if can_wait else Restless
    below = kind([lambda length=length: CountingSimulator(length) for length in (2, 7)])
    norm = VecNorm(decay=1.0)
    env = TransformedEnv(below, norm)
    if drive == "episodes":
        batch = EpisodeCollector(env, act, num_episodes=2).collect()
        num_starts = 4  # both begin, and both are restarted before they wait
    else:
        batch, _ = next(iter(rollout(env, act, n_steps=7, sticky=True)))
        num_starts = 5  # as above, and the one that waits once more for the next fragment
    num_steps = int(batch["collector", "mask"].sum())
    assert num_steps == 9
    assert norm.statistics.moments("observation")[0].item() == num_steps + num_starts


def test_a_saved_environment_with_rows_that_wait_goes_on():
    def make():
        return TransformedEnv(counting(50, 50), VecNorm(decay=1.0))

    env, other = make(), make()
    env.step_and_reset(act(env.reset()))
    env.freeze_(torch.tensor([True, False]))
    other.load_state_dict(env.state_dict())
    for one in (env, other):
        one.step(act(one.env._root()))
    assert flat(env.learned_state_dict()) == flat(other.learned_state_dict())


def test_memory_of_a_module_that_is_no_transform_is_not_mistaken():
    class Odd(nn.Module):
        memory_dims = "something else"

    transform = Largest()
    transform.inner = Odd()
    assert list(transform.learned_tensors()) == ["largest"]


class Later(ObservationTransform):
    """Divides by the mean size of observations, whose shape it knows with the first of them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("size", None)
        self.register_memory("last", None)

    def step(self, next_, root):
        self.last = next_.get("observation")
        if self.training:
            seen = self.last.abs().mean(0)
            self.size = seen if self.size is None else (self.size + seen) / 2
        super().step(next_, root)

    def forward(self, value):
        return value if self.size is None else value / self.size.clamp(min=1e-6)

    def transform_spec(self, leaf):
        return Unbounded(leaf.shape, leaf.dtype)


def test_a_buffer_that_is_made_of_the_first_data_goes_on_with_the_rest():
    env, resumed, other = (pendulums(num_envs, Later()) for num_envs in (2, 2, 3))
    assert flat(env.learned_state_dict()) == {}
    env.rollout(3)
    learned = env.learned_state_dict()
    assert list(learned["Later[observation]"]) == ["size"]
    root = resumed.load_state_dict(env.state_dict())
    assert flat(resumed.learned_state_dict()) == flat(learned)
    assert torch.equal(resumed.transform[0].last, env.transform[0].last)
    assert root.batch_size == (2,)
    with frozen(other, [learned]):
        assert flat(other.learned_state_dict()) == flat(learned)
    assert flat(other.learned_state_dict()) == {}
    other.load_learned_state_dict(learned)
    assert flat(other.learned_state_dict()) == flat(learned)


def test_an_extra_state_of_any_kind_is_saved():
    class Counting(Transform):
        num_steps = 0

        def step(self, next_, root):
            self.num_steps += 1

        def get_extra_state(self):
            return {"num_steps": self.num_steps}

        def set_extra_state(self, state):
            self.num_steps = state["num_steps"]

    env, resumed = (TransformedEnv(counting(5), Counting()) for _ in range(2))
    env.rollout(3)
    resumed.load_state_dict(env.state_dict())
    assert resumed.transform.num_steps == 3


@pytest.mark.parametrize(
    "start", [0, 0.0, [0.0], {"mean": torch.zeros(2)}, torch.zeros(()), np.zeros(1), RunningMeanStd()]
)
def test_what_a_transform_learns_into_plain_attributes_is_announced(start):
    class Plain(Transform):
        def __init__(self):
            super().__init__()
            self.seen, self.fixed, self.unset = copy.deepcopy(start), [1, "a"], None

        def step(self, next_, root):
            self.unset = next_.get("reward")
            if isinstance(self.seen, RunningMeanStd):
                self.seen.update(np.ones((1,)))
            elif isinstance(self.seen, dict):
                self.seen["mean"] = self.seen["mean"] + 1
            elif isinstance(self.seen, list):
                self.seen[0] += 1
            else:
                self.seen = self.seen + 1

    env = TransformedEnv(counting(5), Plain())
    env.learned_state_dict()  # nothing has changed yet
    env.rollout(2)
    with pytest.warns(UserWarning, match=r"Plain: its attributes \['seen'\] change .* goes into register_buffer"):
        env.learned_state_dict()
