"""Atari games against gymnasium's own preprocessing and against the bare console; lives and FIRE by hand."""

import sys
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import AtariPreprocessing

from fakes import CountingSimulator
from torchrl.envs import AtariEnv, ParallelEnv, check_env
from torchrl.envs.simulators import (
    AtariPictures,
    EpisodicLife,
    FireReset,
    GymSimulator,
    Simulator,
    TimeLimit,
    atari_simulator,
)
from torchrl.errors import ConfigError, EnvError, MissingExtraError

ale_py = pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")
ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)

PLAIN = {"max_noops": 0, "fire_reset": False}


class Lives(Simulator):
    """A game of three lives: one is lost at every fourth step; shows the number of the step and the last action."""

    observation_space, action_space = spaces.Box(0, 255, (2,), np.uint8), spaces.Discrete(3)

    def get_action_meanings(self):
        return ["NOOP", "FIRE", "UP"]

    @property
    def unwrapped(self):
        return self

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._shown(0), {"lives": 3}

    def step(self, action):
        self.steps += 1
        return self._shown(action), float(self.steps), self.steps == 12, False, {"lives": 3 - self.steps // 4}

    def _shown(self, action):
        return np.array([self.steps, action], np.uint8)


class Late(gymnasium.Wrapper):
    """Take a number of no-ops after each reset, which the test reads off the simulator under test."""

    num_noops = 0

    def reset(self, *, seed=None, options=None):
        started = self.env.reset(seed=seed, options=options)
        for _ in range(self.num_noops):
            self.env.step(0)
        return started


def played(simulator, *, seed, num_steps, num_actions):
    """Return the transitions of random play: first (observation, frames before it), then what steps return."""
    observation, info = simulator.reset(seed=seed)
    told = [(observation, info["episode_frame_number"])]
    for action in np.random.default_rng(seed).integers(num_actions, size=num_steps):
        told.append(simulator.step(action))
        if told[-1][2] or told[-1][3]:
            break
    return told


class TestAgainstGymnasium:
    @pytest.mark.parametrize(
        "game", ["ALE/Pong-v5", "BreakoutNoFrameskip-v4", "ALE/SpaceInvaders-v5", "SeaquestNoFrameskip-v4"]
    )
    @pytest.mark.parametrize(("seed", "grayscale"), [(0, True), (1, False)])
    def test_every_frame_reward_and_flag_is_the_same_but_the_picture_of_an_ending(self, game, seed, grayscale):
        ours = atari_simulator(game, fire_reset=False, grayscale=grayscale)
        play = {"seed": seed, "num_steps": 120, "num_actions": int(ours.action_space.n)}
        (first, frames), *steps = played(ours, **play)
        late = Late(gymnasium.make(f"ale_py:{game}", frameskip=1))
        late.num_noops = frames
        assert 1 <= frames <= 30
        theirs = AtariPreprocessing(late, noop_max=0, grayscale_obs=grayscale)
        (their_first, _), *their_steps = played(theirs, **play)
        assert ours.observation_space == theirs.observation_space
        assert np.array_equal(first, their_first) and len(steps) == len(their_steps) > 60
        for mine, other in zip(steps, their_steps, strict=True):
            assert mine[1:] == other[1:]
            assert mine[2] or np.array_equal(mine[0], other[0])
            assert mine[0].dtype == other[0].dtype == np.uint8

    @pytest.mark.parametrize("game", ["ALE/Breakout-v5", "SpaceInvadersNoFrameskip-v4"])
    def test_over_a_thousand_steps_with_endings(self, game):
        """New games begin alike, too; at an ending ours shows what the console of the other shows then."""
        ours, late = atari_simulator(game, fire_reset=False), Late(gymnasium.make(f"ale_py:{game}", frameskip=1))
        theirs, random, num_endings = AtariPreprocessing(late, noop_max=0), np.random.default_rng(0), 0
        is_over, seed = True, 0
        for _ in range(1000):
            if is_over:
                first, info = ours.reset(seed=seed)
                late.num_noops = info["episode_frame_number"]
                assert np.array_equal(first, theirs.reset(seed=seed)[0])
                seed = None
            action = random.integers(ours.action_space.n)
            before = info["frame_number"]
            mine, other = ours.step(action), theirs.step(action)
            assert mine[1:] == other[1:]
            is_over, info = mine[2], mine[4]
            if not is_over:
                assert np.array_equal(mine[0], other[0])
            elif info["frame_number"] - before < 4:
                screen = theirs.unwrapped.ale.getScreenGrayscale()
                assert np.array_equal(mine[0], cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA))
            num_endings += is_over
        assert num_endings >= 1

    def test_a_frame_skip_of_one_and_another_size_are_the_same(self):
        ours = atari_simulator("PongNoFrameskip-v4", frame_skip=1, image_size=50, **PLAIN)
        theirs = AtariPreprocessing(gymnasium.make("PongNoFrameskip-v4"), noop_max=0, frame_skip=1, screen_size=50)
        pairs = [played(simulator, seed=2, num_steps=100, num_actions=6) for simulator in (ours, theirs)]
        assert all(np.array_equal(mine[0], other[0]) for mine, other in zip(*pairs, strict=True))


def test_the_last_observation_is_the_frame_of_the_ending():
    simulator = atari_simulator("SeaquestNoFrameskip-v4")
    num_frames = []
    for seed in (1, 3):
        *_, before, (last, _, terminated, _, info) = played(simulator, seed=seed, num_steps=900, num_actions=18)
        assert terminated and info["lives"] == 0
        num_frames.append(info["frame_number"] - before[-1]["frame_number"])
        screen = simulator.unwrapped.ale.getScreenGrayscale()
        assert np.array_equal(last, cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA))
        assert not np.array_equal(last, before[0])
    assert max(num_frames) < 4  # the steps were cut short


def test_a_picture_is_the_brighter_of_the_last_two_frames():
    simulator = atari_simulator("ALE/SpaceInvaders-v5", env_kwargs={"repeat_action_probability": 0.0}, **PLAIN)
    bare = gymnasium.make("ALE/SpaceInvaders-v5", frameskip=1, obs_type="grayscale", repeat_action_probability=0.0)
    simulator.reset(seed=0), bare.reset(seed=0)
    for action in (1, 3, 2, 0) * 5:
        seen, reward, *_ = simulator.step(action)
        frames, rewards = zip(*[bare.step(action)[:2] for _ in range(4)], strict=True)
        brighter = np.maximum(frames[2], frames[3])
        assert np.array_equal(seen, cv2.resize(brighter, (84, 84), interpolation=cv2.INTER_AREA))
        assert reward == sum(rewards)


def test_sticky_actions_are_those_of_the_id():
    def frames(game, **options):
        simulator = atari_simulator(game, env_kwargs=options, **PLAIN)
        return np.stack([step[0] for step in played(simulator, seed=3, num_steps=60, num_actions=6)])

    sticky, free = frames("ALE/Pong-v5"), frames("PongNoFrameskip-v4")
    assert not np.array_equal(sticky, free)
    assert np.array_equal(frames("ALE/Pong-v5", repeat_action_probability=0.0), free)
    assert np.array_equal(frames("PongNoFrameskip-v4", repeat_action_probability=0.25), sticky)


class TestEpisodicLife:
    def test_a_lost_life_ends_the_episode_and_the_reset_after_it_goes_on(self):
        game = EpisodicLife(Lives())
        game.reset()
        assert [game.step(2)[2] for _ in range(4)] == [False, False, False, True]
        observation, info = game.reset()
        assert observation.tolist() == [5, 0] and info["lives"] == 2  # a step without action, in the same game
        assert [game.step(2)[2] for _ in range(3)] == [False, False, True]
        assert game.reset()[0].tolist() == [9, 0]
        assert [game.step(2)[2] for _ in range(3)] == [False, False, True]  # the game is over
        assert game.reset()[0].tolist() == [0, 0]

    def test_a_seed_and_a_cut_episode_start_a_new_game(self):
        game = EpisodicLife(Lives())
        for reset in (partial(game.reset, seed=1), partial(game.reset, options={"level": 1})):
            game.reset()
            [game.step(2) for _ in range(4)]
            assert reset()[0].tolist() == [0, 0]
        game = TimeLimit(EpisodicLife(Lives()), 3)
        game.reset()
        assert [game.step(2)[3] for _ in range(3)] == [False, False, True]
        assert game.reset()[0].tolist() == [0, 0]

    def test_a_game_that_is_over_during_the_step_between_starts_anew(self):
        class Short(Lives):
            def step(self, action):
                observation, reward, _, truncated, info = super().step(action)
                return observation, reward, self.steps == 5, truncated, info

        game = EpisodicLife(Short())
        game.reset()
        assert [game.step(2)[2] for _ in range(4)][-1]
        assert game.reset()[0].tolist() == [0, 0]

    def test_it_stands_in_the_state(self):
        game, other = (EpisodicLife(AtariLives()) for _ in range(2))
        game.reset()
        [game.step(2) for _ in range(4)]
        other.reset()
        other.set_state(game.get_state())
        assert other.reset()[0].tolist() == game.reset()[0].tolist() == [5, 0]

    def test_a_game_that_tells_no_lives_is_refused(self):
        with pytest.raises(EnvError, match=r'EpisodicLife: expected an info with "lives", got \[\]'):
            EpisodicLife(CountingSimulator(5)).reset()

    def test_all_lives_of_breakout_are_one_game(self):
        game = atari_simulator("BreakoutNoFrameskip-v4", episodic_life=True)
        game.reset(seed=0)
        lengths, lives, steps = [], [], 0
        while len(lengths) < 6:
            *_, terminated, _, info = game.step(steps % 4)
            steps += 1
            if terminated:
                lengths.append(steps), lives.append(info["lives"])
                game.reset()
        assert lives == [4, 3, 2, 1, 0, 4]


class AtariLives(Lives):
    """With a state."""

    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]


class TestFireReset:
    def test_fire_is_pressed_at_the_start_and_after_each_lost_life(self):
        game = FireReset(Lives())
        assert game.reset()[0].tolist() == [1, 1]
        shown = [game.step(2)[:2] for _ in range(3)]
        assert [observation.tolist() for observation, _ in shown] == [[2, 2], [3, 2], [5, 1]]
        assert [reward for _, reward in shown] == [2.0, 3.0, 4.0 + 5.0]

    def test_around_episodic_lives_it_is_part_of_each_reset(self):
        game = FireReset(EpisodicLife(Lives()))
        game.reset()
        assert [game.step(2)[2] for _ in range(3)] == [False, False, True]
        assert game.reset()[0].tolist() == [6, 1]  # after 5, without action

    def test_no_other_game_gets_it(self):
        class Boat(Lives):
            def get_action_meanings(self):
                return ["NOOP", "UP", "FIRE"]

        assert FireReset(Boat()).reset()[0].tolist() == [0, 0]
        assert not FireReset(atari_simulator("ALE/Freeway-v5", fire_reset=False)).is_waiting

    def test_breakout_is_set_going_for_whole_games(self):
        idle = atari_simulator("BreakoutNoFrameskip-v4")
        *_, last = played(idle, seed=0, num_steps=500, num_actions=1)
        assert last[2] and last[4]["lives"] == 0  # five balls went down by themselves

    def test_what_has_no_meanings_is_refused(self):
        with pytest.raises(EnvError, match="FireReset: expected a game that tells what its actions mean"):
            FireReset(GymSimulator("CartPole-v1"))


class TestState:
    def test_a_game_goes_on_bit_for_bit_in_another_simulator(self):
        options = {"episodic_life": True, "max_episode_steps": 1000}
        game, other = (atari_simulator("BreakoutNoFrameskip-v4", **options) for _ in range(2))
        game.reset(seed=0), other.reset(seed=1)
        actions = np.random.default_rng(0).integers(4, size=400)
        for action in actions[:150]:
            if game.step(action)[2]:
                game.reset()
        other.set_state(game.get_state())
        for action in actions[150:]:
            mine, copied = game.step(action), other.step(action)
            assert np.array_equal(mine[0], copied[0]) and mine[1:] == copied[1:]
            if mine[2]:
                assert np.array_equal(game.reset()[0], other.reset()[0])

    def test_sticky_actions_are_refused_since_ale_py_forgets_which_one_is_repeated(self):
        with pytest.raises(EnvError, match=r"get_state: expected a game with repeat_action_probability=0.*, got 0.25"):
            atari_simulator("ALE/Pong-v5").get_state()


class TestEnv:
    def test_it_keeps_the_laws_of_environments(self):
        env = AtariEnv("ALE/Pong-v5", num_envs=2)
        check_env(env)
        assert env.observation_spec["observation"].shape == (2, 84, 84)
        assert (env.task, env.step_limit) == ("ALE/Pong-v5", (108_000 - 30 + 3) // 4)

    @pytest.mark.usefixtures("leaves_nothing")
    def test_workers_find_the_games_by_themselves(self):
        env = ParallelEnv(partial(atari_simulator, "ALE/Pong-v5"), 2, num_workers=2)
        here = AtariEnv("ALE/Pong-v5", num_envs=2)
        for each in (env, here):
            each.set_seed(0)
        assert (env.reset()["observation"] == here.reset()["observation"]).all()
        env.close()

    def test_a_given_game_is_taken_if_it_skips_no_frames(self):
        assert atari_simulator(gymnasium.make("PongNoFrameskip-v4")).reset(seed=0)[0].shape == (84, 84)
        with pytest.raises(ConfigError, match="AtariPictures: expected a game that skips no frames, got 4"):
            atari_simulator(gymnasium.make("ALE/Pong-v5"))
        with pytest.raises(ConfigError, match="AtariPictures: expected a game that skips no frames, got 4"):
            atari_simulator(gymnasium.make("ALE/Pong-v5", frameskip=4).unwrapped)


@pytest.mark.parametrize(
    ("game", "options", "error", "message"),
    [
        ("CartPole-v1", {}, EnvError, "AtariEnv: expected an id of ale-py, got 'CartPole-v1'"),
        ("Pong-v5", {}, EnvError, 'Did you mean "ALE/Pong-v5"'),
        ("ALE/Pong-v5", {"image_size": 0}, ConfigError, "AtariPictures: expected size of at least 1, got 0"),
        ("ALE/Pong-v5", {"frame_skip": 0}, ConfigError, "num_frames >= 1"),
        ("ALE/Pong-v5", {"env_kwargs": {"frameskip": 4}}, ConfigError, "a game that skips no frames, got 4"),
        ("ALE/Pong-v5", {"env_kwargs": {"continuous": True}}, ConfigError, "Leave it out: fire_reset=False"),
        ("ALE/Pong-v5", {"env_kwargs": {"colour": 1}}, EnvError, 'arguments that "ALE/Pong-v5" takes'),
    ],
)
def test_what_does_not_fit_is_refused(game, options, error, message):
    with pytest.raises(error, match=message):
        atari_simulator(game, **options)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(MissingExtraError, match=r'AtariEnv needs the module "ale_py".*\[atari\]'):
        atari_simulator("ALE/Pong-v5")


def test_other_simulators_are_no_atari_games():
    with pytest.raises(EnvError, match="AtariPictures: expected an Atari game of ale-py, got CartPoleEnv"):
        AtariPictures(GymSimulator("CartPole-v1"))
