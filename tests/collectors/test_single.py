"""The collector on counting simulators: layout, ids, versions, ownership, refusals, continuation."""

import pytest
import torch
from gymnasium import spaces
from torch import nn

from cases.collecting import Unsaveable, counting, info
from cases.same import assert_same
from fakes import CountingSimulator
from torchrl.collectors import Collector, EpisodeCollector
from torchrl.envs import GymEnv, SerialEnv, ToyEnv
from torchrl.errors import ConfigError, EnvError, KeyMissing, NonFiniteError, SpecError
from torchrl.modules import ExplorationType, exploration_type, set_exploration_type


class Policy(nn.Module):
    """Writes action 0, its log-probability, and how often it was called."""

    def __init__(self, extra=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.extra = list(extra)
        self.calls = 0

    def forward(self, root):
        self.calls += 1
        root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
        root.set("call", torch.full(root.batch_size, self.calls))
        for key, value in self.extra:
            root.set(key, value)
        return root


def test_batches_follow_each_other_without_a_gap():
    collector = Collector(counting(3, 9), Policy(), frames_per_batch=8, total_frames=16)
    first, second = collector
    assert first.batch_size == (2, 4) and collector.frames == 16
    seen = torch.cat([first, second], dim=1)
    assert seen["observation"].squeeze(-1).tolist() == [[0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert seen["call"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]] * 2
    assert seen["is_init"].squeeze(-1).int().tolist() == [[1, 0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0]]


def test_the_first_observation_of_a_new_episode_is_the_reset_one_and_the_last_one_the_true_one():
    batch = Collector(counting(2), Policy(), frames_per_batch=4).collect()
    assert batch["observation"].squeeze(-1).tolist() == [[0, 1, 0, 1]]
    assert batch["next", "observation"].squeeze(-1).tolist() == [[1, 2, 1, 2]]


def test_trajectory_ids_are_unique_over_the_run_and_carried_across_batches():
    collector = Collector(counting(3, 9), Policy(), frames_per_batch=8)
    ids = torch.cat([collector.collect()["collector", "traj_ids"] for _ in range(2)], dim=1)
    runs = [torch.unique_consecutive(row, return_counts=True) for row in ids]
    assert [counts.tolist() for _, counts in runs] == [[3, 3, 2], [8]]
    every = torch.cat([numbers for numbers, _ in runs])
    assert len(every.unique()) == len(every)


def test_a_reset_between_batches_begins_new_trajectories():
    collector = Collector(counting(9), Policy(), frames_per_batch=2)
    first = collector.collect()["collector", "traj_ids"]
    collector.reset()
    second = collector.collect()
    assert second["observation"].squeeze(-1).tolist() == [[0, 1]]
    assert second["collector", "traj_ids"].min() > first.max()


def test_every_row_tells_the_version_of_the_policy():
    collector = Collector(counting(9), Policy(), frames_per_batch=2)
    versions = [collector.collect()["collector", "policy_version"]]
    collector.update_policy_weights_()
    versions.append(collector.collect()["collector", "policy_version"])
    assert torch.cat(versions, 1).tolist() == [[0, 0, 1, 1]]


def test_three_batches_stay_as_they_were_handed_out():
    collector = Collector(counting(3, 9), Policy(), frames_per_batch=4)
    batches = [collector.collect() for _ in range(3)]
    copies = [batch.clone() for batch in batches]
    collector.collect()
    for batch, copy in zip(batches, copies, strict=True):
        assert (batch == copy).all()
    assert batches[0]["call"].tolist() != batches[1]["call"].tolist()


def test_batch_length_does_not_change_the_trajectory():
    def run(num_frames):
        env = GymEnv("CartPole-v1", num_envs=2)
        return torch.cat(list(Collector(env, frames_per_batch=num_frames, total_frames=96, seed=3)), dim=1)

    assert_same(run(96), run(16), without=(("collector", "traj_ids"),))


def test_actions_are_sampled_unless_an_outer_context_says_otherwise():
    kinds = []

    def policy(root):
        kinds.append(exploration_type())
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))

    collector = Collector(counting(9), policy, frames_per_batch=1)
    collector.collect()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        collector.collect()
    assert kinds == [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC]


def test_batches_need_no_gradient_and_can_be_trained_on():
    policy = Policy()
    policy.forward = lambda root: root.set("action", torch.zeros(root.batch_size, dtype=torch.int64)).set(
        "x", policy.weight.expand(1, 1)
    )
    batch = Collector(counting(9), policy, frames_per_batch=2).collect()
    assert not batch["x"].requires_grad
    (batch["x"] * nn.Parameter(torch.ones(1))).sum().backward()  # inference tensors would refuse


def test_postproc_and_storage_device_are_applied():
    collector = Collector(
        counting(9), Policy(), frames_per_batch=2, storage_device="cpu", postproc=lambda batch: batch.select("action")
    )
    assert set(collector.collect().keys()) == {"action"}


@pytest.mark.parametrize("frames", [0, -2, 7])
def test_frames_per_batch_must_be_a_multiple_of_the_environments(frames):
    with pytest.raises(ConfigError, match="multiple of the 2 environments"):
        Collector(counting(3, 3), Policy(), frames_per_batch=frames)


def test_a_policy_that_writes_no_action_is_named():
    with pytest.raises(KeyMissing, match="'action'"):
        Collector(counting(3), lambda root: root, frames_per_batch=2).collect()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([("late", torch.zeros(1))], "'late' is new"),
        ([("call", torch.zeros(1))], r"'call' is \[1\] torch.float32"),
        ([("call", torch.zeros(1, 1, dtype=torch.int64))], r"'call' is \[1, 1\] torch.int64"),
    ],
)
def test_a_policy_that_changes_what_it_writes_is_refused(extra, message):
    policy = Policy()
    collector = Collector(counting(9), policy, frames_per_batch=2)
    collector.collect()
    policy.extra = extra
    with pytest.raises(SpecError, match=message):
        collector.collect()


class NaNReward(CountingSimulator):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, float("nan") if observation[0] == 2 else reward, terminated, truncated, info


def test_a_nan_reward_is_named_with_environment_and_step():
    env = SerialEnv([lambda: CountingSimulator(length=9), lambda: NaNReward(length=9)])
    collector = Collector(env, Policy(), frames_per_batch=8)
    with pytest.raises(NonFiniteError, match=r"next/(reward|episode_return).*nan in environment \[1\] at step 1"):
        collector.collect()
    assert collector.frames == 0


class OutOfSpace(CountingSimulator):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return observation - 100, info


def test_an_observation_outside_its_space_is_refused_at_the_first_step():
    with pytest.raises(SpecError, match="observation"):
        Collector(SerialEnv(lambda: OutOfSpace(length=9), 2), Policy(), frames_per_batch=2).collect()


def test_a_state_continues_the_run():
    collector = Collector(counting(3, 5), Policy(), frames_per_batch=4)
    collector.collect()
    collector.update_policy_weights_()
    state = collector.state_dict()
    other = Collector(counting(3, 5), collector.policy, frames_per_batch=4)
    other.load_state_dict(state)
    calls = collector.policy.calls
    expected = collector.collect()
    collector.policy.calls = calls
    assert (other.collect() == expected).all()
    assert other.frames == collector.frames and other.policy_version == 1


@pytest.mark.parametrize("kind", [Collector, EpisodeCollector])
def test_random_actions_go_on_where_a_state_left_them(kind):
    def make(seed):
        options = {"frames_per_batch": 20} if kind is Collector else {"num_episodes": 2}
        return kind(counting(5, 7), seed=seed, **options)

    collector = make(1)
    collector.collect()
    resumed = make(2)
    resumed.load_state_dict(collector.state_dict())
    for _ in range(2):
        assert_same(resumed.collect(), collector.collect())
    earlier = {key: value for key, value in collector.state_dict().items() if key != "actions"}
    resumed.load_state_dict(earlier)  # of a version that kept none
    assert make(None).state_dict()["actions"] is None  # torch's global stream is the user's


def test_where_the_environment_cannot_be_saved_new_episodes_start_and_it_says_so():
    collector = Collector(SerialEnv(lambda: Unsaveable(length=9), 2), Policy(), frames_per_batch=4, seed=1)
    collector.collect()
    state = collector.state_dict()
    assert state["env"] is None
    with pytest.warns(UserWarning, match="New episodes start after loading: Unsaveable"):
        collector.load_state_dict(state)
    batch = collector.collect()
    assert batch["is_init"][:, 0].all() and batch["collector", "traj_ids"].min() > 1


class FailsOnce(CountingSimulator):
    """Raises once, in its fifth step."""

    calls = 0

    def step(self, action):
        type(self).calls += 1
        if self.calls == 5:
            raise KeyboardInterrupt
        return super().step(action)


def test_after_an_exception_new_episodes_start_and_nothing_is_joined_wrongly():
    FailsOnce.calls = 0
    env = SerialEnv([lambda: CountingSimulator(length=50), lambda: FailsOnce(length=50)])
    collector = Collector(env, Policy(), frames_per_batch=6)
    first = collector.collect()
    with pytest.raises(KeyboardInterrupt):
        collector.collect()
    batch = collector.collect()
    assert batch["is_init"][:, 0].all() and batch["observation"].squeeze(-1).tolist() == [[0, 1, 2]] * 2
    assert batch["collector", "traj_ids"].min() > first["collector", "traj_ids"].max()


class NaNReset(CountingSimulator):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return (observation * float("nan") if self.episode == 1 else observation), info


def test_a_nan_after_a_reset_is_found_and_later_trajectory_ids_are_right():
    collector = Collector(SerialEnv(lambda: NaNReset(length=2)), Policy(), frames_per_batch=4)
    with pytest.raises(NonFiniteError, match=r"key 'observation'.*at step 2"):
        collector.collect()
    assert collector.collect()["collector", "traj_ids"].min() >= 0


def test_state_that_is_written_only_under_next_is_named_in_the_first_batch():
    policy = Policy([(("next", "state"), torch.zeros(1))])
    with pytest.raises(SpecError, match="'state' is new.*goes into the root, too"):
        Collector(counting(9), policy, frames_per_batch=3).collect()


def test_a_policy_that_returns_nothing_is_named():
    with pytest.raises(SpecError, match="policy: expected a TensorDict, got NoneType"):
        Collector(counting(9), lambda root: None, frames_per_batch=3).collect()


def test_a_seed_repeats_random_actions_too():
    def actions():
        return Collector(GymEnv("CartPole-v1", num_envs=2), frames_per_batch=20, seed=3).collect()["action"]

    assert torch.equal(actions(), actions())


def test_a_state_taken_before_the_first_batch_keeps_the_seed():
    def make():
        return Collector(GymEnv("CartPole-v1", num_envs=2), Policy(), frames_per_batch=8, seed=4)

    expected = make().collect()
    other = make()
    other.load_state_dict(make().state_dict())
    assert torch.equal(other.collect()["observation"], expected["observation"])


class Bare:
    """The least that is a simulator."""

    observation_space, action_space = CountingSimulator().observation_space, CountingSimulator().action_space

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        return self.observation_space.sample() * 0, 0.0, False, False, {}


def test_a_duck_typed_simulator_is_collected_from_and_says_that_it_cannot_be_saved():
    collector = Collector(SerialEnv(Bare, 2), Policy(), frames_per_batch=4)
    collector.collect()
    assert "Bare" in collector.state_dict()["env_error"]
    collector.shutdown()


def test_an_action_that_the_environment_does_not_have_is_refused():
    def policy(root):
        return root.set("action", torch.full(root.batch_size, 8))

    with pytest.raises(SpecError, match="an index from 0 to 1, got indices from 8 to 8"):
        Collector(counting(9), policy, frames_per_batch=2).collect()


def test_so_is_one_among_several_choices():
    def policy(root):
        return root.set("action", torch.tensor([[0, 0, 0], [2, 3, 2]]))

    with pytest.raises(SpecError, match=r"indices below \[3, 4, 2\], got indices up to \[2, 3, 2\]"):
        Collector(ToyEnv("Matching", num_envs=2), policy, frames_per_batch=2).collect()


def test_so_is_one_that_is_a_part_of_an_action():
    parts = spaces.Dict(push=spaces.Box(-1.0, 1.0, (1,)), gear=spaces.Discrete(3))
    env = SerialEnv(lambda: CountingSimulator(9, action_space=parts), 2)

    def policy(root):
        action = env.action_spec.zero()
        return root.set("action", action.set("gear", torch.tensor([0, 3])))

    with pytest.raises(SpecError, match="action 'gear': expected an index from 0 to 2, got indices from 0 to 3"):
        Collector(env, policy, frames_per_batch=2).collect()


def test_arguments_that_make_no_sense_are_refused_by_name():
    with pytest.raises(EnvError, match="Collector: expected an Env, got 'CartPole-v1'"):
        Collector("CartPole-v1", frames_per_batch=2)
    with pytest.raises(ConfigError, match="expected a policy that can be called"):
        Collector(counting(9), 3, frames_per_batch=2)
    for total_frames in (10.5, -2):
        with pytest.raises(ConfigError, match=f"total_frames: expected a number of frames.*got {total_frames}"):
            Collector(counting(9), frames_per_batch=2, total_frames=total_frames)


def test_a_policy_that_replaces_what_it_is_shown_is_refused():
    """The recorded root would no longer be what was acted on."""

    def policy(root):
        root.set("observation", root["observation"] * 0)
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))

    with pytest.raises(SpecError, match=r"another value under 'observation'.*\(\"next\", key\)"):
        Collector(counting(9), policy, frames_per_batch=2).collect()


def test_so_is_one_that_replaces_the_state_it_carries():
    def policy(root):
        state = root.get("state", torch.zeros(*root.batch_size, 1)) + 1
        root.set("state", state)
        root.set(("next", "state"), state)
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))

    with pytest.raises(SpecError, match="another value under 'state'"):
        Collector(counting(9), policy, frames_per_batch=4).collect()


def test_a_postproc_that_returns_nothing_is_refused():
    collector = Collector(counting(9), frames_per_batch=4, postproc=lambda batch: None)
    with pytest.raises(SpecError, match="postproc: expected a TensorDict, got NoneType"):
        collector.collect()


class Levelled(CountingSimulator):
    """Pays the level that its reset was told."""

    def reset(self, *, seed=None, options=None):
        self.level = options["level"]
        return super().reset(seed=seed)

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(self.level), *rest


def test_parameters_of_the_policy_change_between_batches_and_those_of_the_world_at_restarts():
    env = SerialEnv([lambda: Levelled(length=3), lambda: Levelled(length=9)])
    seen = []

    def policy(root):
        seen.append(root["skill"].tolist())
        return root.set("action", torch.zeros(2, dtype=torch.int64))

    collector = Collector(env, policy, frames_per_batch=4)
    collector.set_info(agent_info=info(skill=[1, 2]), env_info=info(level=[10.0, 20.0]))
    first = collector.collect()
    collector.set_info(agent_info=info(skill=[3, 4]), env_info=info(level=[11.0, 21.0]))
    second = collector.collect()
    assert seen == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert first["skill"].tolist() == [[1, 1], [2, 2]] == first["next", "skill"].tolist()
    assert second["skill"].tolist() == [[3, 3], [4, 4]] == second["next", "skill"].tolist()
    assert second["observation"].squeeze(-1).tolist() == [[2, 0], [2, 3]]  # in mid-episode
    assert first["next", "reward"].squeeze(-1).tolist() == [[10, 10], [20, 20]]
    assert second["next", "reward"].squeeze(-1).tolist() == [[10, 11], [20, 20]]
    for batch in (first, second):
        levels = batch["next", "reward"].squeeze(-1)
        assert torch.equal(batch["env_info", "level"], levels)
        assert torch.equal(batch["next", "env_info", "level"], levels)


@pytest.mark.parametrize("num_envs", [None, 1, 3])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_batch_is_contiguous_and_shares_no_memory_with_the_next(num_envs, num_steps):
    env = SerialEnv(lambda: CountingSimulator(length=5), num_envs)
    collector = Collector(env, frames_per_batch=num_steps * (num_envs or 1))
    first, second = collector.collect(), collector.collect()
    pairs = zip(first.values(True, True), second.values(True, True), strict=True)
    assert all(one.is_contiguous() and one.data_ptr() != other.data_ptr() for one, other in pairs)
