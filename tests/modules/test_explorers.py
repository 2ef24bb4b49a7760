import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.fixed_network import Fixed, rows
from fakes import CountingEnv
from torchrl.collectors import Collector
from torchrl.data.specs import Bounded, Categorical, Composite, OneHot, Unbounded
from torchrl.envs import GymEnv, SerialEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import MLP, Actor, AdditiveGaussian, EGreedy, OrnsteinUhlenbeck, QValueActor, RandomPolicy
from torchrl.modules.exploration import ExplorationType, set_exploration_type, without_exploration

BOUNDS = Bounded(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestEGreedy:
    def greedy(self, spec=None, **options):
        options = {"num_frames": 100, "end": 0.1, "generator": generator()} | options
        one_hot = isinstance(spec, OneHot)
        return EGreedy(QValueActor(Fixed(0.0, 1.0, 0.0, 0.0), one_hot=one_hot), spec or Categorical(4), **options)

    @pytest.mark.parametrize(("frames", "epsilon"), [(0, 1.0), (50, 0.55), (100, 0.1), (1000, 0.1)])
    def test_rows_explore_with_probability_epsilon(self, frames, epsilon):
        policy = self.greedy()
        policy.step(frames)
        actions = policy(rows(40_000))["action"]
        share = epsilon * 3 / 4  # a quarter of the random ones are the greedy one
        error = 4 * math.sqrt(share * (1 - share) / 40_000)
        assert abs((actions != 1).float().mean().item() - share) < error
        counts = torch.bincount(actions, minlength=4)[[0, 2, 3]].float()
        assert (counts / counts.sum() - 1 / 3).abs().max() < 0.05

    def test_nothing_is_left_to_chance_without_epsilon(self):
        policy = self.greedy(start=0.0, end=0.0)
        assert (policy(rows(1000))["action"] == 1).all()

    def test_one_hot_actions(self):
        spec = OneHot(4)
        actions = self.greedy(spec)(rows(1000))["action"]
        assert actions.shape == (1000, 4) and (actions.sum(-1) == 1).all()
        assert actions.sum(0).min() > 200 and spec.contains(actions[0])

    def test_only_legal_actions_are_drawn(self):
        actor = QValueActor(Fixed(0.0, 1.0, 0.0, 0.0), mask_key="action_mask")
        policy = EGreedy(actor, Categorical(4), num_frames=1, mask_key="action_mask", generator=generator())
        mask = torch.tensor([True, False, False, True]).expand(1000, 4)
        counts = torch.bincount(policy(rows(1000, action_mask=mask))["action"], minlength=4)
        assert counts[1] == counts[2] == 0 and counts.min() == 0 and counts[0] > 400 and counts[3] > 400

    def test_one_stream_for_each_generator(self):
        before = torch.get_rng_state()
        first, second = (self.greedy(generator=generator(3))(rows(50))["action"] for _ in range(2))
        assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("options", [{"start": 1.5}, {"end": -0.1}])
    def test_no_probability_is_refused(self, options):
        with pytest.raises(ConfigError, match="ε between 0 and 1"):
            self.greedy(**options)

    def test_in_a_collector_of_any_number_of_rows(self):
        for num in (1, 3):
            env = SerialEnv(CountingEnv, num)
            network = nn.Sequential(nn.Flatten(), nn.LazyLinear(env.action_spec[0].n))
            network(torch.zeros(1, env.observation_spec["observation"].shape[-1]))
            policy = EGreedy(QValueActor(network), env.action_spec[0], num_frames=10)
            batch = Collector(env, policy, frames_per_batch=6 * num).collect()
            assert batch["action"].shape == (num, 6)


class TestAdditiveGaussian:
    def test_the_noise_has_its_size_in_half_ranges(self):
        policy = AdditiveGaussian(Actor(Fixed(0.5, 5.0)), BOUNDS, start=0.1, end=0.1, generator=generator())
        actions = policy(rows(50_000))["action"]
        torch.testing.assert_close(actions.mean(0), torch.tensor([0.5, 5.0]), atol=0.02, rtol=0)
        torch.testing.assert_close(actions.std(0), torch.tensor([0.2, 0.5]), atol=0.01, rtol=0)

    def test_actions_stay_inside_their_bounds(self):
        actions = AdditiveGaussian(Actor(Fixed(2.0, 0.0)), BOUNDS, start=3.0, end=3.0)(rows(1000))["action"]
        assert (actions >= BOUNDS.low).all() and (actions <= BOUNDS.high).all()
        assert (actions == BOUNDS.high).any() and (actions == BOUNDS.low).any()

    @pytest.mark.parametrize(
        "spec", [Unbounded((2,)), Categorical(3), Bounded(torch.tensor([[-1.0], [-2.0]]), 2.0, (2, 1))]
    )
    def test_actions_without_bounds_or_with_others_in_each_row_are_refused(self, spec):
        with pytest.raises(SpecError, match=r"AdditiveGaussian: expected actions \[A\] with finite bounds"):
            AdditiveGaussian(Actor(Fixed(0.0, 0.0)), spec)

    def test_a_negative_strength_is_refused(self):
        with pytest.raises(ConfigError, match="strengths of at least 0"):
            AdditiveGaussian(Actor(Fixed(0.0, 0.0)), BOUNDS, start=-0.1)


class TestOrnsteinUhlenbeck:
    def policy(self, **options):
        options = {"start": 0.5, "end": 0.5, "num_frames": 1, "generator": generator()} | options
        return OrnsteinUhlenbeck(Actor(Fixed(0.5, 5.0)), BOUNDS, **options)

    def test_one_step_by_hand(self):
        policy = self.policy(theta=0.5, sigma=2.0, dt=0.25)
        x = torch.tensor([[0.5, -0.25]])
        out = policy(rows(1, ou_noise=x))
        drawn = torch.empty(1, 2).normal_(generator=generator())
        expected = x * 0.875 + drawn
        torch.testing.assert_close(out["next", "ou_noise"], expected)
        moved = torch.tensor([0.5, 5.0]) + 0.5 * torch.tensor([2.0, 5.0]) * expected
        torch.testing.assert_close(out["action"], moved.clamp(BOUNDS.low, BOUNDS.high))
        assert torch.equal(out["ou_noise"], x)

    def test_its_spread_and_memory_are_those_of_the_process(self):
        """Of x ← a x + b ε: variance b² / (1 - a²), correlation a from one step to the next."""
        policy = self.policy(theta=1.0, sigma=0.3, dt=0.1)
        x, seen = torch.zeros(2000, 2), []
        for _ in range(120):
            x = policy(rows(2000, ou_noise=x))["next", "ou_noise"]
            seen.append(x)
        last, before = seen[-1].flatten(), seen[-2].flatten()
        assert last.var().item() == pytest.approx(0.009 / (1 - 0.81), rel=0.1)
        assert torch.corrcoef(torch.stack([before, last]))[0, 1].item() == pytest.approx(0.9, abs=0.02)

    def test_every_episode_begins_without_noise(self):
        env = GymEnv("Pendulum-v1", num_envs=2, max_episode_steps=7)
        policy = OrnsteinUhlenbeck(
            Actor(Fixed(*[0.0] * env.action_spec.shape[-1])), env.action_spec[0], num_frames=100, start=0.3
        )
        env = TransformedEnv(env, TensorDictPrimer(policy.initial_state()))
        batch = Collector(env, policy, frames_per_batch=2 * 30).collect()
        starts = batch["is_init"].squeeze(-1)
        assert starts.sum() > 4
        assert (batch["ou_noise"][starts] == 0).all() and (batch["ou_noise"][~starts] != 0).any(-1).all()
        goes_on = ~starts[:, 1:]
        assert torch.equal(batch["ou_noise"][:, 1:][goes_on], batch["next", "ou_noise"][:, :-1][goes_on])

    def test_without_exploring_the_noise_stays_and_need_not_be_there(self):
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            out, bare = self.policy()(rows(1, ou_noise=torch.tensor([[0.5, -0.25]]))), self.policy()(rows(1))
            assert "next" not in bare.keys() and torch.equal(bare["action"], out["action"])
            assert out["action"].tolist() == [[0.5, 5.0]] and torch.equal(out["next", "ou_noise"], out["ou_noise"])
            pendulum = GymEnv("Pendulum-v1", num_envs=2)
            policy = OrnsteinUhlenbeck(Actor(Fixed(0.5)), pendulum.action_spec[0], num_frames=1)
            for env in (pendulum, TransformedEnv(pendulum, TensorDictPrimer(policy.initial_state()))):
                assert (env.rollout(3, policy)["action"] == 0.5).all()

    def test_a_missing_state_is_named(self):
        with pytest.raises(KeyMissing, match=r"'ou_noise'.*TensorDictPrimer\(policy.initial_state\(\)\)"):
            self.policy()(rows(1))

    @pytest.mark.parametrize("options", [{"theta": -1.0}, {"sigma": -0.1}, {"dt": 0.0}, {"theta": 2.0, "dt": 0.6}])
    def test_wrong_numbers_are_refused(self, options):
        with pytest.raises(ConfigError, match="theta and sigma of at least 0"):
            self.policy(**options)


def test_the_policy_inside_of_exploration_is_found():
    actor = QValueActor(Fixed(1.0, 2.0))
    once = EGreedy(actor, Categorical(2), num_frames=10)
    assert without_exploration(EGreedy(once, Categorical(2), num_frames=10)) is actor
    assert without_exploration(actor) is actor


BOX, TWO, THREE = Bounded(-1.0, 1.0, (2,)), Categorical(2, ()), Categorical(3, ())


@pytest.mark.parametrize(
    ("policy", "spec", "message"),
    [
        (RandomPolicy(Bounded(-5.0, 5.0, (2,))), BOX, "RandomPolicy: expected actions between -1.0 and 1.0"),
        (RandomPolicy(TWO), THREE, "RandomPolicy: expected one index of 3, got one index of 2. Build it with the"),
        (RandomPolicy(Bounded(-1.0, 1.0, (4, 3))), BOX, "RandomPolicy: expected numbers of shape"),
        (
            RandomPolicy(Composite({"a": TWO, "b": BOX})),
            Composite({"a": THREE, "b": BOX}),
            "RandomPolicy, 'a': expected one index of 3",
        ),
        (
            EGreedy(QValueActor(MLP(4, 3)), TWO, num_frames=1),
            THREE,
            "EGreedy: expected one index of 3, got one index of 2",
        ),
        (EGreedy(QValueActor(MLP(4, 2)), THREE, num_frames=1), THREE, "QValueActor: expected one index of 3"),
        (
            AdditiveGaussian(Actor(MLP(4, 2)), Bounded(-5.0, 5.0, (2,))),
            BOX,
            "AdditiveGaussian: expected actions between",
        ),
        (
            OrnsteinUhlenbeck(Actor(MLP(4, 2)), Bounded(-5.0, 5.0, (2,)), num_frames=1),
            BOX,
            "OrnsteinUhlenbeck: .* Bounded.low=-5",
        ),
    ],
)
def test_an_exploration_with_the_action_spec_of_another_environment_is_refused(policy, spec, message):
    root = TensorDict({"observation": torch.zeros(4), "ou_noise": torch.zeros(2)}, [])
    with pytest.raises(SpecError, match=message):
        policy.require_fit(spec, policy(root))


def test_an_exploration_with_the_spec_of_one_row_or_of_all_fits():
    root = TensorDict({"observation": torch.zeros(5, 4)}, [5])
    for own in (BOX, BOX.expand(5, 2)):
        for policy in (RandomPolicy(own), AdditiveGaussian(Actor(MLP(4, 2)), own)):
            policy.require_fit(BOX, policy(root))
    egreedy = EGreedy(QValueActor(MLP(4, 3)), THREE.expand(5), num_frames=1)
    egreedy.require_fit(THREE, egreedy(root))
