"""Evaluation: which episodes are played, from which starts, and that nothing of the training is touched."""

import functools
import re

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from torch import nn

from fakes import CountingSimulator, Together
from torchrl.agents import BesideResult, Evaluation, Evaluator
from torchrl.envs import EnvPoolEnv, GymEnv, GymVectorEnv, ParallelEnv, SerialEnv, TransformedEnv
from torchrl.envs.simulators import Simulator
from torchrl.envs.transforms import RewardScaling
from torchrl.errors import ConfigError, EnvError
from torchrl.modules import MLP, Categorical, ExplorationType, ProbabilisticActor, exploration_type
from torchrl.modules.randomness import generators_of
from torchrl.seeding import child_seeds


class SeedSimulator(Simulator):
    """An episode as long as its start seed, which is also each step's reward; one without a seed is long and awful."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.seed, self.num_steps = seed, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.num_steps += 1
        reward = -1e6 if self.seed is None else float(self.seed)
        return np.zeros(1, np.float32), reward, self.num_steps == (self.seed or 1000), False, {}


class Spy(nn.Module):
    """Acts 0 and remembers under which circumstances."""

    def __init__(self):
        super().__init__()
        self.frozen, self.learning = nn.Dropout(0.5), nn.Dropout(0.5)
        self.frozen.eval()
        self.circumstances = set()

    def forward(self, root):
        flags = (self.training, self.frozen.training, self.learning.training, torch.is_grad_enabled())
        self.circumstances.add((*flags, exploration_type()))
        root["action"] = torch.zeros(root.batch_size, dtype=torch.int64)
        return root


def test_rows_that_cannot_be_seeded_one_by_one_go_on_with_their_next_episodes():
    """Rows of 2 and 3 steps: 5 episodes are begun by the rows 0, 1, 0, 1, 0; the sixth counts no more."""
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP))
    assert (env.restarts_rows, env.seeds_rows) == (False, False)
    result = Evaluator(TransformedEnv(env, RewardScaling(2.0)), num_episodes=5)(Spy())
    assert result.lengths.tolist() == [2, 3, 2, 3, 2] and result.returns.tolist() == [2, 3, 2, 3, 2]


def test_an_env_pool_is_evaluated_alike_each_time():
    pytest.importorskip("envpool")
    env = EnvPoolEnv("CartPole-v1", 4, num_threads=1)
    assert (env.restarts_rows, env.seeds_rows) == (True, False)
    evaluator = Evaluator(env, num_episodes=10)
    first, again = evaluator(Spy()), evaluator(Spy())
    assert torch.equal(first.lengths, again.lengths) and len(set(first.lengths.tolist())) > 1
    assert 8 < first.mean < 11


def test_what_cannot_be_evaluated_is_refused_at_once():
    with pytest.raises(EnvError, match=r"Evaluator: expected an Env, got 'CartPole-v1'. GymEnv\(name"):
        Evaluator("CartPole-v1")
    with pytest.raises(EnvError, match="planted: no seeds"):
        Evaluator(TransformedEnv(SerialEnv(Seedless), RewardScaling(2.0)))


class Seedless(CountingSimulator):
    def require_ability(self, ability):
        raise EnvError(f"planted: no {ability}")


def test_worlds_that_normalise_by_what_each_has_seen_are_refused():
    env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2, wrappers=[NormalizeObservation]), RewardScaling(2.0))
    with pytest.raises(EnvError, match=r"NormalizeObservation.*VecNorm\(\)"):
        Evaluator(env)
    for simulator in env.simulators:
        layer = simulator
        while not isinstance(layer, NormalizeObservation):
            layer = vars(layer).get("simulator") or layer.env
        layer.update_running_mean = False  # a user who hands the statistics on
    assert Evaluator(env, num_episodes=1)


def normalised(wrapper):
    return lambda: wrapper(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("wrapper", [NormalizeObservation, NormalizeReward])
@pytest.mark.parametrize("backend", ["serial", "parallel", "vector"])
def test_no_back_end_hides_worlds_that_learn(backend, wrapper, leaves_nothing):
    make = normalised(wrapper)
    if backend == "vector":
        env = GymVectorEnv(SyncVectorEnv([make, make]))
    else:
        env = SerialEnv(make, 2) if backend == "serial" else ParallelEnv(make, 2, num_workers=2)
    instead = "VecNorm()" if wrapper is NormalizeObservation else "RewardNorm(gamma)"
    with pytest.raises(EnvError, match=re.escape(wrapper.__name__) + ".*" + re.escape(instead)):
        Evaluator(TransformedEnv(env, RewardScaling(2.0)))
    env.close()


def test_a_vector_wrapper_that_learns_is_refused():
    make = functools.partial(gymnasium.make, "CartPole-v1")
    envs = SyncVectorEnv([make, make], autoreset_mode=AutoresetMode.SAME_STEP)
    env = GymVectorEnv(gymnasium.wrappers.vector.NormalizeReward(envs))
    with pytest.raises(EnvError, match=r"Evaluator: .*NormalizeReward.*RewardNorm"):
        Evaluator(env)
    env.close()


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_an_episode_counts_however_it_ends(ending):
    env = SerialEnv(lambda: CountingSimulator(3, ending=ending), 2)
    assert Evaluator(env, num_episodes=3)(Spy()).lengths.tolist() == [3, 3, 3]


@pytest.mark.parametrize("num_envs", [None, 1, 2, 3, 5, 8])
def test_episode_k_starts_from_seed_k_whatever_the_number_of_rows(num_envs):
    seeds = [4, 1, 9, 2, 5]
    evaluator = Evaluator(SerialEnv(SeedSimulator, num_envs), num_episodes=5, start_seeds=seeds)
    for _ in range(2):
        result = evaluator(Spy())
        assert result.lengths.tolist() == seeds
        assert result.returns.tolist() == [16.0, 1.0, 81.0, 4.0, 25.0]
    assert result.mean == pytest.approx(25.4) and result.std == pytest.approx(np.std([16, 1, 81, 4, 25]))


def test_start_seeds_follow_from_the_seed_and_the_first_do_not_depend_on_how_many():
    env = SerialEnv(CountingSimulator)
    assert Evaluator(env, num_episodes=3, seed=5).start_seeds == child_seeds(5, 3)
    assert Evaluator(env, num_episodes=2, seed=5).start_seeds == child_seeds(5, 3)[:2]


def test_the_policy_acts_in_eval_mode_without_gradient_and_gets_its_flags_back():
    policy = Spy()
    Evaluator(SerialEnv(CountingSimulator, 2), num_episodes=2)(policy)
    assert policy.circumstances == {(False, False, False, False, ExplorationType.DETERMINISTIC)}
    assert policy.training and policy.learning.training and not policy.frozen.training
    assert exploration_type() is None


def test_the_flags_come_back_after_an_error_too():
    class Broken(Spy):
        def forward(self, root):
            torch.rand(3)
            raise ValueError("planted")

    policy, before = Broken(), torch.get_rng_state()
    with pytest.raises(ValueError, match="planted"):
        Evaluator(SerialEnv(CountingSimulator), num_episodes=1)(policy)
    assert policy.training and not policy.frozen.training and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("has_generator", [True, False])
def test_a_sampling_policy_draws_from_the_evaluators_stream_and_loses_none_of_its_own(has_generator):
    generator = torch.Generator().manual_seed(11) if has_generator else None
    policy = ProbabilisticActor(MLP(4, 2), Categorical, generator=generator)
    env = GymEnv("CartPole-v1", num_envs=2)

    def streams():
        return [torch.get_rng_state(), *(known.get_state() for known in generators_of(policy).values())]

    def evaluate(seed):
        starts = [1, 2, 3, 4, 5, 6]
        evaluator = Evaluator(
            env, num_episodes=6, seed=seed, start_seeds=starts, exploration_type=ExplorationType.RANDOM
        )
        return evaluator(policy).returns.tolist()

    before = streams()
    assert len(before) == 1 + has_generator
    first = evaluate(0)
    assert all(torch.equal(state, old) for state, old in zip(streams(), before, strict=True))
    torch.rand(5)
    if has_generator:
        generator.manual_seed(99)
    assert evaluate(0) == first != evaluate(1)
    env.close()


def test_an_episode_without_an_end_is_refused_and_one_of_just_that_length_is_not():
    env = SerialEnv(lambda: CountingSimulator(length=50))
    assert Evaluator(env, num_episodes=1, max_episode_steps=50)(Spy()).lengths.tolist() == [50]
    with pytest.raises(EnvError, match="at most 49 steps"):
        Evaluator(env, num_episodes=1, max_episode_steps=49)(Spy())


def test_a_policys_own_state_is_carried_within_an_episode_and_begins_anew_with_the_next():
    class Counter(Spy):
        def forward(self, root):
            count = root.get("count", None)
            count = torch.zeros(*root.batch_size, 1) if count is None else count
            seen.append(count.squeeze(-1).tolist())
            root["next", "count"] = count + 1
            return super().forward(root)

    seen = []
    Evaluator(SerialEnv([lambda: CountingSimulator(2), lambda: CountingSimulator(3)]), num_episodes=3)(Counter())
    assert seen == [[0, 0], [1, 1], [0, 2], [1, 0]]


class Reaching(CountingSimulator):
    """Shows 1 from its third step on."""

    def _observation(self):
        return np.full(1, self.num_steps >= 3, np.float32)


def test_successes_are_what_the_last_observation_says():
    env = SerialEnv([lambda: Reaching(2), lambda: Reaching(3)])
    result = Evaluator(env, num_episodes=4, success_key="observation")(Spy())
    assert result.lengths.tolist() == [2, 3, 2, 3] and result.successes.tolist() == [False, True, False, True]
    metrics = BesideResult(result, version=1, frames=2).metrics()
    assert result.success_share == metrics["eval/success_share"] == 0.5
    plain = Evaluation(result.returns, result.lengths)
    assert plain.success_share is None and "eval/success_share" not in BesideResult(plain, 1, 2).metrics()


def test_the_result_of_one_episode_has_no_deviation():
    result = Evaluation(torch.tensor([3.0]), torch.tensor([1]))
    assert result.mean == 3.0 and result.std == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"num_episodes": 0},
        {"every_frames": 0},
        {"max_episode_steps": 0},
        {"num_episodes": 2, "start_seeds": [1]},
        {"success_key": "is_success"},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match="Evaluator"):
        Evaluator(SerialEnv(CountingSimulator), **options)
