"""An EnvPool as an environment: restarts without junk steps, seeds, spaces, what is refused."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from fakes import wait_until
from torchrl.collectors import Collector
from torchrl.envs import EnvPoolEnv, TransformedEnv, check_env
from torchrl.envs.transforms import RewardScaling
from torchrl.envs.vector.envpool import _open_bounds, _spaces
from torchrl.errors import ConfigError, EnvError, MissingExtraError

envpool = pytest.importorskip("envpool")


def make(name="CartPole-v1", num_envs=3, max_episode_steps=500, **kwargs):
    return EnvPoolEnv(name, num_envs, env_kwargs={"max_episode_steps": max_episode_steps}, num_threads=1, **kwargs)


def right(root):
    """Fall over to the left, within about 10 steps."""
    return root.set("action", torch.ones(root.batch_size, dtype=torch.int64))


def sway(root):
    """Go to and fro; many steps without an ending."""
    return root.set("action", (root["episode_length"].squeeze(-1) % 2).long())


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_the_library_does_what_the_worker_relies_on():
    """Some simulators can be stepped or reset, answers come in that order, and one that is over begins again."""
    pool = envpool.make_gymnasium("CartPole-v1", num_envs=4, seed=[1, 2, 3, 4], max_episode_steps=4, num_threads=1)
    names = list(pool._state_keys)

    def answer():
        values = dict(zip(names, pool._recv(), strict=True))
        return [values[name].tolist() for name in ("info:env_id", "elapsed_step", "done", "trunc")] + [values["obs"]]

    def send(worlds):
        worlds = np.array(worlds, np.int32)
        pool._send([worlds, worlds, np.zeros(len(worlds), np.int32)])
        return answer()

    pool._reset(np.arange(4, dtype=np.int32))
    first = answer()[-1]
    assert send([3, 0])[:2] == [[3, 0], [1, 1]]
    pool._reset(np.array([2, 0], np.int32))
    *facts, again = answer()
    assert facts[:2] == [[2, 0], [0, 0]]
    assert np.abs(again).max() <= 0.05 and not np.array_equal(again, first[[2, 0]])
    send([3, 0]), send([3, 0])
    assert send([3, 0])[:4] == [[3, 0], [4, 3], [True, False], [True, False]]
    worlds, steps, done, truncated, observations = send([0, 3, 2])
    assert (worlds, steps, done, truncated) == ([0, 3, 2], [4, 0, 1], [True, False, False], [True, False, False])
    assert np.abs(observations[1]).max() <= 0.05


def test_a_row_does_not_depend_on_the_others():
    one, other = make(num_envs=3), make(num_envs=2)
    roots = one.reset(seed=[7, 8, 9]), other.reset(seed=[9, 7])
    num_ended = 0
    for step in range(60):
        acts = [root.set("action", (root["observation"][:, 0] > 0).long()) for root in roots]
        (seen, root), (alike, twin) = one.step_and_reset(acts[0]), other.step_and_reset(acts[1])
        assert torch.equal(seen["next", "observation"][[2, 0]], alike["next", "observation"])
        assert torch.equal(root["observation"][[2, 0]], twin["observation"])
        num_ended += int(seen["next", "done"].sum())
        if step == 30:  # the simulators that wait are not touched by a restart in mid-episode
            root, twin = one.reset(torch.tensor([True, False, True])), other.reset()
            assert torch.equal(root["observation"][[2, 0]], twin["observation"])
        roots = root, twin
    assert num_ended > 3


def test_a_row_that_just_began_can_begin_again():
    env = make(max_episode_steps=3)
    root = env.reset(seed=0)
    for _ in range(3):
        transition = env.step(sway(root))
        root = transition["next"].select("observation", "episode_length")
    every = torch.ones(3, dtype=torch.bool)
    first, second = env.reset(every), env.reset(every)
    assert not torch.equal(first["observation"], second["observation"])
    root = second.clone()
    for step in range(1, 7):
        transition, root = env.step_and_reset(sway(root))
        assert (transition["next", "episode_length"] == (step - 1) % 3 + 1).all()
        assert (transition["next", "truncated"] == (step % 3 == 0)).all()


def test_a_simulator_that_does_not_begin_again_is_an_error():
    env = make(num_envs=2, max_episode_steps=3)
    root = env.reset(seed=0)
    for _ in range(3):
        _, root = env.step_and_reset(sway(root))
    worker = env._worker
    assert worker._to_reset.tolist() == [0, 1]
    worker._pool.reset(worker._standby)  # so that the next message steps them
    with pytest.raises(EnvError, match=r"simulators that begin again after an ending, got step \[1, 1\]"):
        env.step_and_reset(sway(root))


def test_a_row_stays_with_its_game_where_an_episode_is_one_life():
    """Against the library by hand, where the step after an ending returns the first observation of the next life."""
    options = {"episodic_life": True, "noop_max": 5, "img_height": 20, "img_width": 20}
    env = EnvPoolEnv("Breakout-v5", 2, env_kwargs=options, num_threads=1)
    root = env.reset(seed=[7, 8])
    assert env._worker._pool.library.spec.config.num_envs == 2
    alone = envpool.make_gymnasium("Breakout-v5", num_envs=1, seed=[8], **options)
    seen, info = alone.reset()
    actions = torch.randint(4, (330, 2), generator=torch.Generator().manual_seed(0))
    lives = []
    for action in actions:
        assert np.array_equal(root["observation"][1].numpy(), seen[0])
        transition, root = env.step_and_reset(root.set("action", action))
        seen, _, terminated, _, info = alone.step(action[1:].numpy().astype(np.int32))
        assert np.array_equal(transition["next", "observation"][1].numpy(), seen[0])
        assert transition["next", "terminated"][1].item() == terminated[0]
        if terminated[0]:
            lives.append(int(info["lives"][0]))
            seen, *_ = alone.step(np.zeros(1, np.int32))
    assert lives[:7] == [4, 3, 2, 1, 0, 4, 3]


def test_a_reset_by_hand_restarts_its_rows_where_an_episode_is_one_life():
    env = EnvPoolEnv("Breakout-v5", 2, env_kwargs={"episodic_life": True}, num_threads=1)
    root = env.reset(seed=0)
    for _ in range(3):
        _, root = env.step_and_reset(root.set("action", torch.ones(2, dtype=torch.int64)))
    root = env.reset(torch.tensor([True, False]))
    assert root["is_init"].tolist() == [[True], [False]] and root["episode_length"].tolist() == [[0], [3]]
    env.step(root.set("action", torch.ones(2, dtype=torch.int64)))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_single_thread_stays_where_its_caller_is(num_threads):
    env = EnvPoolEnv("CartPole-v1", 4, num_threads=num_threads)
    cores = os.sched_getaffinity(0)
    root = env.reset(seed=0)
    threads = env._worker._threads._threads
    assert os.sched_getaffinity(0) == cores
    if num_threads > 1 or len(cores) < 2:
        assert threads == []
        return
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            env.step(sway(root.clone()))
            assert threads and all(os.sched_getaffinity(thread) == {core} for thread in threads)
    finally:
        os.sched_setaffinity(0, cores)


def test_a_row_restarts_in_mid_episode_and_the_others_go_on():
    env = make()
    root = env.reset(seed=0)
    for _ in range(3):
        _, root = env.step_and_reset(sway(root))
    root = root.clone()
    after = env.reset(torch.tensor([False, True, False]))
    assert after["is_init"].squeeze(-1).tolist() == [False, True, False]
    assert after["episode_length"].squeeze(-1).tolist() == [3, 0, 3]
    assert torch.equal(after["observation"][[0, 2]], root["observation"][[0, 2]])
    assert after["observation"][1].abs().max() <= 0.05 and not torch.equal(after["observation"], root["observation"])


def test_the_time_limit_of_a_row_starts_with_the_row():
    env = make(max_episode_steps=6)
    root = env.reset(seed=0)
    for step in range(12):
        if step == 2:
            root = env.reset(torch.tensor([False, True, False]))
        transition, root = env.step_and_reset(sway(root))
        outcome = transition["next"]
        assert torch.equal(outcome["truncated"], outcome["episode_length"] == 6)
        assert outcome["truncated"].squeeze(-1).tolist() == [step in (5, 11), step == 7, step in (5, 11)]
        assert not outcome["terminated"].any()


def test_a_step_needs_an_episode():
    env = make()
    with pytest.raises(EnvError, match=r"rows \[0, 1, 2\] that have ended or never started"):
        env.step(right(env.observation_spec.zero()))
    root = right(env.reset(seed=0))
    with pytest.raises(EnvError, match="that have ended or never started"):
        for _ in range(20):
            root = right(env.step(root)["next"].select("observation"))
    env.close()
    with pytest.raises(EnvError, match="that have ended or never started"):
        env.step(root)


def test_seeds_repeat_and_each_row_has_its_own():
    def batch(env, num_steps=40):
        return env.rollout(num_steps, right)

    by_argument, by_method = make(seed=4), make(seed=5)
    by_method.set_seed(4)
    first, second = batch(by_argument), batch(by_method)
    assert first["is_init"].sum() > 9
    for key, value in first.items(True, True):
        assert torch.equal(value, second.get(key)), key
    assert first["observation"][:, 0].unique(dim=0).shape[0] == 3
    assert not torch.equal(batch(make(seed=5))["observation"], first["observation"])
    assert not torch.equal(batch(make())["observation"], batch(make())["observation"])

    one, other = make(), make(num_envs=2)
    rows = one.reset(seed=[7, 2**40, 9])["observation"], other.reset(seed=[2**40, 7])["observation"]
    assert torch.equal(rows[0][[1, 0]], rows[1])  # wherever it stands, and however large its seed
    one.reset(), other.reset()
    rows = one.reset()["observation"], other.reset()["observation"]
    assert torch.equal(rows[0][[1, 0]], rows[1])  # without seeds the streams go on


@pytest.mark.parametrize(("mask", "seed"), [([True, False, False], 3), (None, [1, None, 2])])
def test_seeds_of_some_rows_are_refused(mask, seed):
    env = make()
    env.reset()
    with pytest.raises(EnvError, match="expected seeds for none or all of the 3 rows.*when it is built"):
        env.reset(None if mask is None else torch.tensor(mask), seed=seed)


def test_options_freezing_and_states_are_refused():
    env = make()
    root = env.reset(options={})
    with pytest.raises(EnvError, match=r"EnvPoolEnv.reset: expected no options, got {'low': 0}"):
        env.reset(options={"low": 0})
    with pytest.raises(EnvError, match="expected"):
        env.set_info_(env_info=TensorDict({"low": torch.zeros(3)}, [3]))
    with pytest.raises(EnvError, match="stepped together"):
        env.freeze_(torch.tensor([True, False, False]))
    with pytest.raises(EnvError, match="EnvPoolEnv: expected a state to save.*new episodes"):
        env.state_dict()
    env.step(right(root))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("LunarLander-v3", {"observation"}),
        ("Taxi-v3", {"observation"}),
        ("HalfCheetah-v4", {"observation"}),
        ("CheetahRun-v1", {"position", "velocity"}),  # dm_control's
        ("MiniGrid-Empty-5x5-v0", {"direction", "image", "mission"}),
    ],
)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_the_contract_is_kept(name, keys, num_envs):
    env = make(name, num_envs, max_episode_steps=15)
    check_env(env, num_steps=40)
    assert env.observation_spec.keys() == keys and env.batch_size == (num_envs,)


def test_actions_and_numbers_have_the_dtypes_of_the_library():
    taxi, cheetah = make("Taxi-v3"), make("HalfCheetah-v4")
    assert taxi.action_spec.dtype is torch.int64 and taxi.reset()["observation"].dtype is torch.int64
    assert cheetah.action_spec.dtype is torch.float32 and cheetah.reset()["observation"].dtype is torch.float32


def test_actions_reach_their_rows():
    env = make("Pendulum-v1")
    root = env.reset(seed=0)
    action = torch.tensor([[-2.0], [0.0], [1.5]])
    outcome = env.step(root.set("action", action))["next", "observation"]
    reference = gymnasium.make("Pendulum-v1").unwrapped
    reference.reset(seed=0)
    for row, (cosine, sine, speed) in enumerate(root["observation"].double().tolist()):
        reference.state = np.array([np.arctan2(sine, cosine), speed])
        np.testing.assert_allclose(outcome[row].numpy(), reference.step(action[row].numpy())[0], atol=1e-5)


def test_bounds_that_envpool_leaves_at_the_limits_of_a_dtype_are_open():
    tiny, most = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    box = spaces.Box(np.array([tiny, -most, 0, -1], np.float32), np.array([most, most, 1, 1], np.float32))
    pixels = spaces.Box(0, 255, (2, 2), np.uint8)
    opened = _open_bounds(spaces.Dict({"a": box, "b": pixels}))
    assert opened["a"].low.tolist() == [-np.inf, -np.inf, 0, -1]
    assert opened["a"].high.tolist() == [np.inf, np.inf, 1, 1]
    assert opened["b"] == pixels


def test_a_collector_and_transforms_take_it_as_any_env():
    collector = Collector(TransformedEnv(make(), RewardScaling(2.0)), right, frames_per_batch=90, seed=3)
    batch = collector.collect()
    assert batch.batch_size == (3, 30) and (batch["next", "reward"] == 2).all()
    assert batch["is_init"].sum() > 6


def test_pictures():
    env = EnvPoolEnv("CartPole-v1", 2, env_kwargs={"render_mode": "rgb_array"})
    with pytest.raises(EnvError, match='render_mode": "rgb_array"} and a reset'):
        env.render()
    env.reset()
    pictures = env.render()
    assert pictures.dtype is torch.uint8 and pictures.ndim == 4 and pictures.shape[::3] == (2, 3)
    blind = make()
    blind.reset()
    with pytest.raises(EnvError, match="rgb_array"):
        blind.render()


def test_the_threads_end_with_it():
    def num_threads():
        return len(list(Path("/proc/self/task").iterdir()))

    before = num_threads()
    env = EnvPoolEnv("CartPole-v1", 8, num_threads=2)
    env.reset(seed=0)
    during = num_threads()
    env.reset(seed=1)  # builds another pool, and lets go of the first
    assert num_threads() == during > before
    env.close()
    env.close()
    wait_until(lambda: num_threads() == before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("CartPole-v1", 0), ConfigError, "num_envs of at least 1, got 0"),
        (("CartPole-v1", True), ConfigError, "num_envs of at least 1, got True"),
        (("CartPole-v1", None), ConfigError, "num_envs of at least 1, got None"),
        (("CartPol-v1", 2), EnvError, 'an id that EnvPool knows.*Did you mean "CartPole-v1"'),
        (("Nothing like it", 2), EnvError, "list_all_envs"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        EnvPoolEnv(*arguments)


@pytest.mark.parametrize("key", ["num_envs", "batch_size", "num_threads", "seed", "env_seed"])
def test_what_has_an_argument_of_its_own_is_refused_in_env_kwargs(key):
    with pytest.raises(ConfigError, match=f"none of these in env_kwargs, got .*{key}"):
        EnvPoolEnv("CartPole-v1", 2, env_kwargs={key: 2})


def test_an_unknown_option_is_refused():
    with pytest.raises(EnvError, match=r"EnvPoolEnv\('CartPole-v1'\): expected a pool that EnvPool can.*'gravity'"):
        EnvPoolEnv("CartPole-v1", 2, env_kwargs={"gravity": 1})


@pytest.mark.parametrize(
    ("players", "action_space"), [(2, spaces.Discrete(2)), (1, spaces.Dict({"a": spaces.Discrete(2)}))]
)
def test_several_players_and_nested_actions_are_refused(players, action_space):
    spec = SimpleNamespace(
        config=SimpleNamespace(max_num_players=players),
        gymnasium_observation_space=spaces.Discrete(2),
        gymnasium_action_space=action_space,
    )
    with pytest.raises(EnvError, match=rf"EnvPoolEnv\('Duel-v0'\): expected one player.*got {players} players"):
        _spaces("Duel-v0", spec)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtraError, match=r"EnvPoolEnv needs the module \"envpool\".*\[envpool\]"):
        EnvPoolEnv("CartPole-v1", 2)
