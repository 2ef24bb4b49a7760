"""Atari games in ale-py's threads: held against the raw library step by step, whatever its mode.

A game is loaded anew where it is built and where it is seeded, which takes a tenth of a second: two rows are enough.
"""

from functools import cache, partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import vector as wrappers

from torchrl.agents import Evaluator
from torchrl.collectors import EpisodeCollector
from torchrl.envs import ALEEnv, Compose, GymVectorEnv, TransformedEnv
from torchrl.envs.transforms import FrameStack, Unsqueeze
from torchrl.errors import ConfigError, EnvError, MissingExtraError

pytest.importorskip("ale_py")
from ale_py.vector_env import AtariVectorEnv  # noqa: E402 - after the check

SEEDS = [5, 6]
PONG, BREAKOUT = "ALE/Pong-v5", "ALE/Breakout-v5"
raw_breakout = partial(AtariVectorEnv, "breakout", num_threads=1, stack_num=1, noop_max=5)


def actions_of(num_steps):
    return np.random.default_rng(0).integers(4, size=(num_steps, len(SEEDS)))


@cache
def raw_row(row, num_steps, life=None, fires=False, **options):
    """Play a row alone in the raw library's default mode; list (first, reward, terminated, truncated, last) per step.

    Args:
        life: "held" if a lost life ends an episode here; "info" if the library says so, and the game goes on.
        fires: whether FIRE takes the place of the action after a lost life.
    """
    env = raw_breakout(1, **options)
    seen, info = env.reset(seed=np.array([SEEDS[row]]))
    steps, lost = [], False
    for action in actions_of(num_steps)[:, row]:
        lives = info["lives"][0]
        action = 1 if fires and lost else action
        last, reward, terminated, truncated, info = env.step(np.array([action]))
        lost = info["lives"][0] < lives and not (terminated[0] or truncated[0])
        steps.append((seen[0, 0], reward[0], terminated[0] or (life == "held" and lost), truncated[0], last[0, 0]))
        goes_on = info["lives"][0] > 0 and not truncated[0] if life == "info" else True
        if truncated[0] or (terminated[0] and not (life == "info" and goes_on)):
            last, *_, info = env.step(np.array([0]))  # its reset
        seen = last
    return steps


def ours(env, num_steps):
    """Play the same; return the transitions, ``[B, T]``."""
    root, steps = env.reset(seed=SEEDS), []
    for action in actions_of(num_steps):
        transition, root = env.step_and_reset(root.set("action", torch.from_numpy(action)))
        steps.append(transition.clone())
    return torch.stack(steps, 1)


def assert_equal(batch, row, steps):
    pictures = batch["observation"][row].flatten(1), batch["next", "observation"][row].flatten(1)
    total = 0
    for time, (first, reward, terminated, truncated, last) in enumerate(steps):
        assert np.array_equal(pictures[0][time].numpy(), first.ravel()), (row, time, "observation")
        assert np.array_equal(pictures[1][time].numpy(), last.ravel()), (row, time, "next")
        total += reward
        outcome = batch["next"][row, time]
        assert (outcome["reward"].item(), outcome["episode_return"].item()) == (reward, total), (row, time)
        assert (outcome["terminated"].item(), outcome["truncated"].item()) == (terminated, truncated), (row, time)
        total = 0 if terminated or truncated else total


GAMES = {
    "whole games": {},
    "a limit of frames": {"max_num_frames_per_episode": 70},
    "a game for each life": {"episodic_life": True},
}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
def test_a_vector_environment_of_ale_gives_what_its_rows_give_alone(mode, options):
    num_steps = 60 if options else 220
    batch = ours(GymVectorEnv(raw_breakout(2, autoreset_mode=mode, **options)), num_steps)
    assert batch["next", "done"].any(1).all()
    for row in range(2):
        assert_equal(batch, row, raw_row(row, num_steps, **options))


def test_in_same_step_a_lost_life_is_followed_by_the_next_life_of_the_game():
    """The library writes no observation into final_obs there."""
    env = GymVectorEnv(raw_breakout(2, autoreset_mode="SameStep", life_loss_info=True))
    batch = ours(env, 220)
    assert batch["next", "terminated"].sum() >= 10
    for row in range(2):
        assert_equal(batch, row, raw_row(row, 220, life="info", life_loss_info=True))


def test_our_env_ends_an_episode_with_a_life_and_goes_on_with_the_game():
    lives = ALEEnv(BREAKOUT, 2, episodic_life=True, max_noops=5, num_threads=1, info_keys={"lives": spaces.Discrete(6)})
    batch = ours(lives, 220)
    options = {"repeat_action_probability": 0.25, "reward_clipping": False}
    for row in range(2):
        assert_equal(batch, row, raw_row(row, 220, life="held", fires=True, **options))
    ends = batch["next", "terminated"].squeeze(-1)
    asked = batch["action"][:, 1:][ends[:, :-1] & (batch["next", "lives"][:, :-1] > 0)]
    assert len(asked) >= 8 and (asked != 1).any()  # the recorded action is the policy's
    assert {4, 3, 2, 1, 0} <= set(batch["next", "lives"][ends].tolist())
    assert batch["lives"][:, 0].tolist() == [5, 5] and batch["is_init"].sum() == 2 + ends[:, :-1].sum()


@pytest.mark.parametrize(("fire_reset", "lives"), [(True, 3), (False, 5)])
def test_breakout_goes_on_without_a_policy_that_presses_fire(fire_reset, lives):
    options = {"fire_reset": fire_reset, "max_noops": 0, "num_threads": 1}
    env = ALEEnv("BreakoutNoFrameskip-v4", 1, **options, info_keys={"lives": spaces.Discrete(6)})
    root = env.reset(seed=[0])
    for _ in range(70):
        _, root = env.step_and_reset(root.set("action", torch.tensor([0])))
    assert root["lives"].item() == lives


def test_our_env_plays_whole_games_with_raw_returns_by_default():
    batch = ours(ALEEnv(BREAKOUT, 2, max_noops=5, num_threads=1), 60)
    options = {"repeat_action_probability": 0.25, "reward_clipping": False}
    for row in range(2):
        assert_equal(batch, row, raw_row(row, 60, fires=True, **options))


def test_its_pictures_are_those_of_gymnasiums_preprocessing():
    pytest.importorskip("cv2")
    still = {"repeat_action_probability": 0.0}
    env = ALEEnv("ALE/SpaceInvaders-v5", 1, max_noops=0, fire_reset=False, env_kwargs=still)
    one = gymnasium.make("ale_py:ALE/SpaceInvaders-v5", frameskip=1, repeat_action_probability=0.0)
    one = gymnasium.wrappers.AtariPreprocessing(one, noop_max=0)
    root, (seen, _) = env.reset(seed=1), one.reset(seed=1)
    for action in np.random.default_rng(0).integers(6, size=40):
        assert np.array_equal(root["observation"][0].numpy(), seen)
        transition, root = env.step_and_reset(root.set("action", torch.tensor([action])))
        seen, reward, *_ = one.step(action)
        assert transition["next", "reward"].item() == reward


def test_the_library_restarts_some_rows_and_owes_them_no_reset():
    """What the worker relies on: the others stay as they are, and the step after a masked reset is a step."""
    for mode in ("NextStep", "SameStep"):
        env = AtariVectorEnv("pong", 2, autoreset_mode=mode, max_num_frames_per_episode=16, num_threads=1)
        env.reset(seed=np.array(SEEDS))
        for _ in range(4):
            before, _, _, truncated, info = env.step(np.zeros(2, np.int64))
        assert truncated.all()
        after, begun = env.reset(options={"reset_mask": np.array([False, True])})
        frames = begun["episode_frame_number"]
        assert np.array_equal(after[0], before[0]) and frames[0] == info["episode_frame_number"][0]
        *_, info = env.step(np.zeros(2, np.int64))
        assert info["episode_frame_number"][1] == frames[1] + 4


def test_a_row_is_restarted_alone_in_the_middle_of_a_game_with_a_seed_or_without():
    env = ALEEnv(PONG, 2, num_threads=1)
    first = env.reset(seed=SEEDS)["observation"].clone()
    root = env.reset(torch.tensor([False, True]))
    for _ in range(3):
        _, root = env.step_and_reset(root.set("action", torch.tensor([0, 2])))
    before = root.clone()
    root = env.reset(torch.tensor([False, True]), seed=[None, 6])
    assert torch.equal(root["observation"][1], first[1]) and root["episode_length"].flatten().tolist() == [3, 0]
    assert torch.equal(root["observation"][0], before["observation"][0])


def test_seeds_make_a_run_and_may_be_large():
    env = ALEEnv(PONG, 1, num_threads=1)

    def run(seed):
        root = env.reset(seed=seed)
        for _ in range(10):
            _, root = env.step_and_reset(root.set("action", torch.tensor([2])))
        return root["observation"].clone()

    assert torch.equal(run([2**40]), run([2**40])) and not torch.equal(run([2**40]), run([2**40 + 1]))


def test_a_waiting_row_repeats_its_last_observation_and_begins_anew():
    env = ALEEnv(PONG, 2, max_episode_steps=6, num_threads=1)
    root = env.reset(seed=[1, 2])
    idle = torch.tensor([0, 0])
    _, root = env.step_and_reset(root.set("action", idle))
    env.freeze_(torch.tensor([True, False]))
    still = root["observation"][0].clone()
    for _ in range(9):
        transition, root = env.step_and_reset(root.set("action", idle))
        outcome = transition["next"][0]
        assert torch.equal(outcome["observation"], still) and outcome["episode_length"].item() == 1
        assert not outcome["done"] and outcome["reward"].item() == 0
    assert root["episode_length"].flatten().tolist() == [1, 4]
    root = env.reset(torch.tensor([True, False]), seed=[1, None])
    assert root["episode_length"].flatten().tolist() == [0, 4] and root["is_init"].flatten().tolist() == [True, False]
    assert torch.equal(root["observation"][0], ALEEnv(PONG, 1).reset(seed=[1])["observation"][0])


def test_an_evaluator_measures_rows_that_end_alone():
    env = GymVectorEnv(raw_breakout(2, autoreset_mode="SameStep", max_num_frames_per_episode=400))
    evaluator = Evaluator(env, num_episodes=2)

    def fire(root):
        return root.set("action", torch.tensor([1, 1]))

    first, again = evaluator(fire), evaluator(fire)
    assert torch.equal(first.lengths, again.lengths) and torch.equal(first.returns, again.returns)


def test_a_collector_of_episodes_lets_rows_wait():
    env = TransformedEnv(ALEEnv(PONG, 2, max_episode_steps=4), Compose(Unsqueeze(-3), FrameStack(4, dim=-3)))
    batch = EpisodeCollector(env, num_episodes=3, seed=0).collect()
    assert batch["observation"].shape == (3, 4, 4, 84, 84) and batch["collector", "mask"].all()


def test_the_id_says_what_is_sticky_and_the_limit():
    def sticks(name):
        env = ALEEnv(name, 1, num_threads=1, max_noops=0)
        root = env.reset(seed=[0])
        for _ in range(30):
            _, root = env.step_and_reset(root.set("action", torch.tensor([2])))
            _, root = env.step_and_reset(root.set("action", torch.tensor([3])))
        return root["observation"].clone()

    assert not torch.equal(sticks(PONG), sticks("PongNoFrameskip-v4"))
    assert ALEEnv(PONG, 1).step_limit == 27_000 and ALEEnv(PONG, 1, max_episode_steps=7).step_limit == 7
    assert ALEEnv(PONG, 1, frame_skip=5).step_limit == 21_600 and ALEEnv(PONG, 1).task == PONG


def test_pictures_may_have_colours_and_another_size():
    env = ALEEnv(PONG, 2, grayscale=False, image_size=32)
    assert env.observation_spec["observation"].shape == env.reset()["observation"].shape == (2, 32, 32, 3)


REFUSED = {
    "an unknown id": (None, EnvError, {"name": "ALE/Pongg-v5"}, 'Did you mean "ALE/Pong-v5"'),
    "another library's": (None, EnvError, {"name": "CartPole-v1"}, r"GymEnv\('CartPole-v1', num_envs=n\)"),
    "no game": (None, ConfigError, {"num_envs": 0}, "ALEEnv, num_envs"),
    "half a frame": (None, ConfigError, {"frame_skip": 0.5}, "ALEEnv, frame_skip"),
    "what it gives": (None, ConfigError, {"env_kwargs": {"reward_clipping": True}}, "clips, for the learner alone"),
    "nonsense": (None, EnvError, {"env_kwargs": {"bogus": 1}}, "unexpected keyword argument 'bogus'"),
}


@pytest.mark.parametrize(("_", "kind", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused_with_what_to_write(_, kind, options, message):
    with pytest.raises(kind, match=message):
        ALEEnv(**{"name": PONG, "num_envs": 1, **options})


def test_what_the_library_cannot_do_is_refused():
    env = ALEEnv(PONG, 1)
    with pytest.raises(EnvError, match="ALEEnv: expected a state to save"):
        env.state_dict()
    with pytest.raises(EnvError, match="ALEEnv.reset: expected no options"):
        env.reset(options={"mode": 1})
    env.reset()
    with pytest.raises(EnvError, match="ALEEnv.render: expected pictures"):
        env.render()
    env.close()
    with pytest.raises(EnvError, match="expected an open env"):
        env.reset()
    plain = partial(AtariVectorEnv, "pong", 2, num_threads=1)
    with pytest.raises(EnvError, match="DictInfoToList.*infos as ale-py gives them"):
        GymVectorEnv(wrappers.DictInfoToList(plain()))
    with pytest.raises(EnvError, match="info_keys: expected the infos of an episode's last step"):
        GymVectorEnv(plain(autoreset_mode="SameStep"), info_keys={"lives": spaces.Discrete(6)})
    with pytest.raises(EnvError, match="expected all 2 rows at every step"):
        GymVectorEnv(plain(batch_size=1))
    with pytest.raises(EnvError, match="GymVectorEnv.reset: expected no options"):
        GymVectorEnv(plain()).reset(options={"mode": 1})


def test_statistics_of_a_wrapper_stay_with_rows_that_go_on():
    env = wrappers.RecordEpisodeStatistics(raw_breakout(2, max_num_frames_per_episode=40))
    ours = GymVectorEnv(env)
    root = ours.reset(seed=[1, 2])
    for step in range(24):
        if step == 5:
            root = ours.reset(torch.tensor([True, False]))
        _, root = ours.step_and_reset(root.set("action", torch.tensor([0, 0])))
    assert list(env.length_queue) == [10, 10, 10]


def test_without_ale_py_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ale_py.vector_env", None)
    with pytest.raises(MissingExtraError, match=r"ALEEnv needs .*\[atari\]"):
        ALEEnv(PONG, 1)
