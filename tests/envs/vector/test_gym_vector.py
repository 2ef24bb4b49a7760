"""Vector environments of every autoreset mode give the transitions that a SerialEnv gives."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from cases.same import assert_same, leaves
from fakes import CountingEnv, Together
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, GymVectorEnv, SerialEnv, TransformedEnv
from torchrl.envs.simulators import GymSimulator
from torchrl.envs.transforms import RewardScaling
from torchrl.errors import ConfigError, EnvError, SpecError

MODES = list(AutoresetMode)
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
both_kinds = pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])


@pytest.fixture
def make(keep):
    """Build vector environments that are closed at the end, worker processes included."""

    def make(factories, kind=SyncVectorEnv, mode=AutoresetMode.SAME_STEP, **options):
        return keep(GymVectorEnv(kind(factories, autoreset_mode=mode, **options)))

    return make


def counting(num_envs, form="box"):
    """Factories whose rows end at different steps, for different reasons."""
    endings = ("terminated", "truncated", "both")
    return [
        partial(CountingEnv, [2 + row, 1, 3], ending=[endings[row % 3], endings[(row + 1) % 3]], form=form, start=row)
        for row in range(num_envs)
    ]


def serial(factories):
    return SerialEnv([lambda factory=factory: GymSimulator(factory()) for factory in factories])


def run(env, num_steps=12):
    """Return every transition and the root after it."""
    generator = torch.Generator().manual_seed(0)
    root = env.reset(seed=3)
    steps = []
    for _ in range(num_steps):
        acted = root.set("action", env.action_spec.rand(generator=generator))
        transition, root = env.step_and_reset(acted)
        steps.append((transition.clone(), root.clone()))
    return steps


@pytest.mark.parametrize(
    ("form", "num_envs", "start"), [*((form, num, 0) for form in ("box", "dict") for num in (1, 2, 5)), ("tuple", 3, 7)]
)
@both_kinds
@every_mode
def test_transitions_are_those_of_a_serial_env(make, mode, kind, form, num_envs, start):
    """A tuple of choices that start elsewhere is among them."""
    factories = [partial(factory, start=start) for factory in counting(num_envs, form)]
    env, reference = make(factories, kind, mode), serial(factories)
    assert env.batch_size == reference.batch_size == (num_envs,)
    assert env.observation_spec == reference.observation_spec and env.action_spec == reference.action_spec
    num_endings = 0
    for (ours, our_root), (theirs, their_root) in zip(run(env), run(reference), strict=True):
        assert_same(ours, theirs)
        assert_same(our_root, their_root)
        num_endings += int(ours["next", "done"].sum())
    assert num_endings > 4 * num_envs
    assert form != "tuple" or {"0", "1"} <= leaves(env.reset()).keys()


@every_mode
def test_explicit_resets_restart_what_a_serial_env_restarts(make, mode):
    def roots(env):
        """Restart ended rows by hand, at times with rows that run, with seeds, or all of them."""
        random = np.random.default_rng(0)
        root = env.reset(seed=[1, 2, 3])
        for _ in range(60):
            yield root
            done = env.step(root.set("action", torch.zeros(3, dtype=torch.int64)))["next", "done"].squeeze(-1)
            more = torch.from_numpy(random.random(3) < random.choice([0, 0.4]))
            seeds = [None, [5, None, 7], 4][random.integers(3)]
            root = env.reset(None if random.random() < 0.2 else done | more, seed=seeds)

    factories = [partial(factory, start=0) for factory in counting(3, "dict")]
    for ours, theirs in zip(roots(make(factories, mode=mode)), roots(serial(factories)), strict=True):
        assert_same(ours, theirs)


@every_mode
def test_a_collector_and_transforms_take_it_as_any_env(make, mode):
    def batches(env):
        env = TransformedEnv(env, RewardScaling(2.0))
        collector = Collector(env, frames_per_batch=40, seed=3)
        first = collector.collect()
        return torch.stack([first, collector.collect()])

    assert_same(batches(make(counting(2), mode=mode)), batches(serial(counting(2))))


def test_a_run_that_is_resumed_starts_new_episodes(make):
    collector = Collector(make(counting(2), AsyncVectorEnv), frames_per_batch=8, seed=3)
    collector.collect()
    state = collector.state_dict()
    assert state["env"] is None and "GymVectorEnv: expected a state to save" in state["env_error"]


@every_mode
def test_a_vector_environment_that_reuses_its_memory_is_copied(make, mode):
    factories = counting(2)
    for ours, theirs in zip(run(make(factories, mode=mode, copy=False)), run(serial(factories)), strict=True):
        assert_same(ours[0], theirs[0])


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Taxi-v4"])
@every_mode
def test_seeds_mean_what_they_mean_elsewhere(make, mode, name):
    factories = [partial(gymnasium.make, name, max_episode_steps=9)] * 3

    def batch(env):
        env.set_seed(11)
        return env.rollout(40)

    ours = batch(make(factories, mode=mode))
    theirs = batch(GymEnv(name, num_envs=3, env_kwargs={"max_episode_steps": 9}))
    assert ours["is_init"].sum() > 9
    assert_same(ours, theirs)


def test_wrappers_of_vector_environments_are_kept():
    inner = SyncVectorEnv(counting(2), autoreset_mode=AutoresetMode.NEXT_STEP)
    doubled = gymnasium.wrappers.vector.TransformReward(
        gymnasium.wrappers.vector.RecordEpisodeStatistics(inner), lambda reward: 2 * reward
    )
    for (ours, _), (theirs, _) in zip(run(GymVectorEnv(doubled)), run(serial(counting(2))), strict=True):
        assert torch.equal(ours["next", "reward"], 2 * theirs["next", "reward"])
        assert torch.equal(ours["next", "observation"], theirs["next", "observation"])


class Echo(gymnasium.Env):
    """Observes its last action, which has parts."""

    action_space = spaces.Dict(
        {"turn": spaces.Discrete(3, start=-1), "pedals": spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2)])}
    )
    observation_space = action_space

    def reset(self, *, seed=None, options=None):
        return {"turn": np.int64(-1), "pedals": (np.zeros(2, np.float32), np.int64(0))}, {}

    def step(self, action):
        assert self.action_space.contains(action)
        return action, 0.0, False, False, {}


@both_kinds
@every_mode
def test_nested_actions_reach_their_rows(make, mode, kind):
    env = make([Echo] * 2, kind, mode)
    action = env.action_spec.rand(generator=torch.Generator().manual_seed(1))
    outcome = env.step(env.reset().set("action", action))["next"]
    assert_same(outcome.select("turn", "pedals"), action)


def stop(root):
    return root.set("action", torch.zeros(2, dtype=torch.int64))


def test_one_that_resets_at_the_same_step_need_not_restart_single_rows():
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP))
    batch = env.rollout(4, stop)
    assert batch["observation"].squeeze(-1).tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert batch["next", "observation"].squeeze(-1).tolist() == [[1, 2, 1, 2], [1, 2, 3, 1]]
    assert batch["next", "episode_return"].squeeze(-1).tolist() == [[1, 2, 1, 2], [1, 2, 3, 1]]
    with pytest.raises(EnvError, match=r"GymVectorEnv\(Together\): expected rows that can be restarted one by one"):
        env.reset(torch.tensor([True, False]))
    env.step(stop(env.reset()))
    assert env.reset()["observation"].tolist() == [[0], [0]]


def test_a_row_that_ended_and_all_rows_are_reset_at_once():
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP))
    root = stop(env.reset())
    for _ in range(2):
        root = stop(env.step(root)["next"].select("observation"))
    assert env.reset()["observation"].tolist() == [[0], [0]]
    assert len(env.vector_env.seeds) == 2
    env.step(stop(env.reset()))


def test_one_generator_for_all_rows_is_seeded_by_one_number():
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP))
    for seed in ([1, 2], [1, 2], [1, 3], [None, 2], None):
        env.reset(seed=seed)
    first, again, *others = env.vector_env.seeds
    assert type(first) is int and first == again
    assert len({first, *others}) == 4 and others[-1] is None


def test_one_that_restarts_all_rows_is_refused():
    expected = r"rows that can be restarted one by one.*AutoresetMode.NEXT_STEP.*make_vec"
    with pytest.raises(EnvError, match=rf"GymVectorEnv\(CartPoleVectorEnv\): expected {expected}"):
        GymVectorEnv(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"))
    env = GymVectorEnv(Together(AutoresetMode.DISABLED))  # promises to restart rows
    root = stop(env.reset())
    with pytest.raises(EnvError, match=r"GymVectorEnv\(Together\): expected rows that can be restarted one by one"):
        for _ in range(2):
            root = stop(env.step_and_reset(root)[1])


def test_an_async_one_that_forgets_resets_is_refused(make):
    with pytest.raises(EnvError, match="shared_memory=True in autoreset mode NEXT_STEP"):
        make(counting(1), AsyncVectorEnv, AutoresetMode.NEXT_STEP, shared_memory=False)
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        env = make(counting(2), AsyncVectorEnv, mode, shared_memory=False)
        for (ours, _), (theirs, _) in zip(run(env), run(serial(counting(2))), strict=True):
            assert_same(ours, theirs)


@pytest.mark.parametrize("mode", [None, "sometimes"])
def test_an_unknown_mode_is_refused(mode):
    with pytest.raises(EnvError, match=r"GymVectorEnv\(Together\): expected metadata\['autoreset_mode'\]"):
        GymVectorEnv(Together(mode))


def test_a_last_observation_that_does_not_come_is_refused():
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP, final=False))
    root = env.step_and_reset(stop(env.reset()))[1]
    with pytest.raises(EnvError, match=r"info\['final_obs'\]"):
        env.step_and_reset(stop(root))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_observations_that_do_not_fit_their_space_are_refused(shape):
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP, shape=shape))
    with pytest.raises(SpecError, match=r"'observation': expected shape \[2, 1\] and dtype float32"):
        env.reset()


@pytest.mark.parametrize("env", [gymnasium.make("CartPole-v1"), "CartPole-v1"])
def test_what_is_no_vector_environment_is_refused(env):
    with pytest.raises(EnvError, match=r"expected a gymnasium.vector.VectorEnv.*GymEnv\(id, num_envs=n\)"):
        GymVectorEnv(env)


def test_gym_env_says_the_line_to_write(make):
    with pytest.raises(ConfigError, match=r"Write GymVectorEnv\(vector_env\)"):
        GymEnv(make(counting(2)).vector_env)


class Choosing(Echo):
    action_space = spaces.Dict({"a": spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (2,))])})
    observation_space = spaces.Discrete(2)


class Reserved(Echo):
    observation_space = spaces.Dict({"reward": spaces.Discrete(2)})


@pytest.mark.parametrize(
    ("env", "message"), [(Choosing, "actions that can be batched, got OneOf"), (Reserved, "GymVectorEnv.*'reward'")]
)
def test_spaces_that_cannot_be_presented_are_refused(env, message):
    with pytest.raises(EnvError, match=message):
        GymVectorEnv(SyncVectorEnv([env] * 2))


def test_steps_need_an_episode(make):
    env = make(counting(2))
    with pytest.raises(EnvError, match=r"rows \[0, 1\] that have ended or never started"):
        env.step(stop(env.observation_spec.zero()))
    root = stop(env.reset())
    for _ in range(2):
        outcome = env.step(root)["next"]
    assert outcome["done"].any()
    with pytest.raises(EnvError, match=r"rows \[0\]"):
        env.step(root)


def test_pictures(make):
    env = make(counting(2))
    env.step(stop(env.reset()))
    assert torch.equal(env.render(), torch.ones(2, 2, 3, 3, dtype=torch.uint8))
    blind = GymVectorEnv(Together(AutoresetMode.SAME_STEP))
    blind.vector_env.render = lambda: None
    with pytest.raises(EnvError, match='expected render_mode "rgb_array", got render_mode "None"'):
        blind.render()


def test_close_closes_the_vector_environment(make):
    env = make(counting(2), AsyncVectorEnv)
    processes = env.vector_env.processes
    env.close()
    env.close()
    assert env.vector_env.closed and not any(process.is_alive() for process in processes)


class OfOldGym(Together):
    def reset(self, *, seed=None, options=None):
        return super().reset()[0] if self.final else super().reset()

    def step(self, actions):
        observations, rewards, terminated, _, info = super().step(actions)
        return observations, rewards, terminated, info


class Scalar(Together):
    def step(self, actions):
        observations, _, *others = super().step(actions)
        return observations, np.array(1.0), *others


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (OfOldGym("SameStep"), r"reset of the vector environment: expected \(observation, info\), got ndarray. In the"),
        (OfOldGym("SameStep", final=False), r"step of the vector environment: expected .*, got 4 values. In the old"),
        (Scalar("SameStep"), r"reward: expected one for each of the 2 rows, got ndarray of shape \[\]"),
    ],
)
def test_what_a_vector_environment_returns_is_counted(env, message):
    with pytest.raises(EnvError, match=message):
        GymVectorEnv(env).rollout(2)


class Plain(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, reward, num_values=5):
        self.values = (np.zeros(2, np.float32), reward, False, False, {})[:num_values]

    def reset(self, *, seed=None, options=None):
        return self.values[0], {}

    def step(self, action):
        return self.values


class Declared(Plain):
    reward_space = spaces.Box(0, 1, (2,))


def test_rows_whose_rewards_are_vectors_are_told_what_to_return(make):
    with pytest.raises(EnvError, match=r"expected one reward a step, got Declared with rewards of shape \[2\]"):
        make([partial(Declared, np.zeros(2))])
    with pytest.raises(EnvError, match=r"expected one number as reward.*Return float\(reward\)"):
        make([partial(Plain, np.zeros(2))] * 2).rollout(2)
    with pytest.raises(EnvError, match="expected environments of gymnasium, got .*values to unpack"):
        make([partial(Plain, 1.0, num_values=4)] * 2).rollout(2)


def test_tensors_of_a_vector_environment_are_told_of_torch_envs():
    env = Together("SameStep")
    env.reset = lambda **options: (torch.zeros(2, 1), {})
    with pytest.raises(SpecError, match="got a Tensor. Worlds in torch derive from TorchEnv"):
        GymVectorEnv(env).reset()
