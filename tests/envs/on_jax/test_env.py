"""Worlds in jax: endings, restarts, seeds and states by hand and against the bare functions; what is refused."""

import pickle
import re

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from cases.jax_worlds import by_turns, counter
from torchrl.agents import Evaluator
from torchrl.collectors import Collector
from torchrl.envs import JaxEnv, JaxWorld, check_env
from torchrl.errors import ConfigError, EnvError, SpecError

jax = pytest.importorskip("jax")
jnp = jax.numpy


def act(root, *actions):
    return root.set("action", torch.tensor(actions))


def column(tensordict, key):
    return tensordict[key].squeeze(-1).tolist()


def test_a_rollout_over_endings_written_by_hand():
    env = JaxEnv(counter(), 3)
    assert env.step_limit == 4 and env.task == "Counter"
    root, steps = env.reset(seed=0), []
    for step in range(5):
        transition, root = env.step_and_reset(act(root, 0, 1, int(step >= 3)))
        steps.append(transition.clone())
    batch = torch.stack(steps, 1)
    assert column(batch[1], "count") == [0, 1, 2, 0, 1]
    assert column(batch[1], ("next", "count")) == [1, 2, 3, 1, 2]  # 3 is the true last observation
    assert column(batch[0], ("next", "count")) == [1, 2, 3, 4, 1]
    assert column(batch[0], ("next", "reward")) == [-1] * 5  # choices are counted from where the space starts
    assert column(batch[2], ("next", "reward")) == [-1, -1, -1, 0, 0]
    assert column(batch[0], ("next", "truncated")) == [False, False, False, True, False]
    assert column(batch[1], ("next", "terminated")) == [False, False, True, False, False]
    assert not batch[0]["next", "terminated"].any() and not batch[1]["next", "truncated"].any()
    for flag in ("terminated", "truncated", "done"):  # both at once
        assert column(batch[2], ("next", flag)) == [False, False, False, True, False]
    assert column(batch[1], "is_init") == [True, False, False, True, False]
    assert column(batch[1], "episode_length") == [0, 1, 2, 0, 1]
    assert column(batch[1], ("next", "episode_length")) == [1, 2, 3, 1, 2]
    assert column(batch[0], ("next", "episode_return")) == [-1, -2, -3, -4, -1]
    assert batch["next", "episode_length"].dtype is torch.int64 and batch["count"].dtype is torch.float32


def test_what_a_world_itself_truncates():
    env = JaxEnv(by_turns(), 1)
    assert env.action_mask_key == "mask"
    batch = env.rollout(12)["next"]  # random actions are legal ones
    assert column(batch[0], "truncated") == [False, False, False, False, False, True] * 2
    assert not batch["terminated"].any() and (batch["reward"] == 1).all()
    transition = env.step(act(env.reset(), 0))
    assert transition["next", "terminated"].all() and not transition["next", "truncated"].any()


def test_each_row_is_the_bare_functions_with_a_key_of_its_own():
    world, seeds = counter(), [5, 0, 2**32 - 1]
    env = JaxEnv(world, 3)
    root = env.reset(seed=seeds)
    seen, last = [root["inner", "drawn"].tolist()], []
    for _ in range(5):
        transition, root = env.step_and_reset(act(root, 1, 1, 1))
        last.append(transition["next", "inner", "drawn"].tolist())
        seen.append(root["inner", "drawn"].tolist())
    for row, seed in enumerate(seeds):
        key, used = jax.random.split(jax.random.PRNGKey(seed))
        state, observation = world.reset(used)
        assert seen[0][row] == observation["inner"]["drawn"].tolist()
        for step in range(5):
            key, used = jax.random.split(key)
            state, observation, _, ended, _ = world.step(used, state, 0)
            assert last[step][row] == observation["inner"]["drawn"].tolist()
            if ended:
                key, used = jax.random.split(key)
                state, observation = world.reset(used)
            assert seen[step + 1][row] == observation["inner"]["drawn"].tolist()


def test_a_row_draws_alike_beside_any_other_rows():
    env = JaxEnv(counter(), 3)
    env.reset(seed=[1, 2, 3])
    root = env.reset(torch.tensor([True, False, False]), seed=[9, 9, 9])  # row 0 alone is seeded
    one = env.step(act(root, 1, 1, 1))["next", "inner", "drawn"]
    env.reset(seed=[1, 2, 3])
    env.step(act(root, 0, 0, 0))
    root = env.reset(torch.tensor([True, False, True]), seed=[9, None, 4])
    assert root["is_init"].flatten().tolist() == [True, False, True]
    other = env.step(act(root, 1, 1, 1))["next", "inner", "drawn"]
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1:], other[1:])
    with pytest.raises(EnvError, match=r"seeds below 2\*\*32"):
        env.reset(seed=[1, 2, 2**32])


def test_rows_beyond_one_piece_of_a_restart():
    env = JaxEnv(counter(), 40)  # which restarts eight at a time
    before = env.reset(seed=0)
    mask = torch.arange(40) % 3 == 0
    after = env.reset(mask)
    same = (before["inner", "drawn"] == after["inner", "drawn"]).all(-1)
    assert torch.equal(same, ~mask)
    assert after["inner", "drawn"].unique(dim=0).shape == (40, 2)


def test_frozen_rows_repeat_and_wait():
    env = JaxEnv(counter(), 3)
    root = env.reset(seed=0)
    for _ in range(3):
        transition = env.step(act(root, 0, 1, 0))
    assert column(transition["next"], "done") == [False, True, False]
    env.freeze_(torch.tensor([False, True, True]))
    frozen = env.step(act(root, 0, 0, 0))["next"]
    assert column(frozen, "count") == [4, 3, 3] and column(frozen, "done") == [True, False, False]
    assert column(frozen, "episode_return") == [-4, 0, -3] and column(frozen, "episode_length") == [4, 3, 3]
    assert column(frozen, "reward") == [-1, 0, 0]
    assert torch.equal(frozen["inner", "drawn"][1:], transition["next", "inner", "drawn"][1:])
    root = env.reset(torch.tensor([True, True, False]))
    assert column(root, "count") == [0, 0, 3]
    assert column(env.step(act(root, 1, 1, 1))["next"], "count") == [1, 1, 3]


def test_tensors_are_the_memory_of_jax_and_stay():
    env = JaxEnv(counter(), 3)
    first = env.reset_rows(None, seeds=[1, 2, 3], options=None)
    kept = first.clone()
    for _ in range(3):
        _, root = env.step_and_reset(act(first.clone(), 0, 0, 0))
    assert (first == kept).all()
    array = jnp.ones((3, 2))
    assert torch.from_dlpack(array).data_ptr() == array.unsafe_buffer_pointer()
    assert root["count"].dtype is torch.float32


def test_a_state_continues_bit_for_bit_in_another_env():
    env = JaxEnv(counter(), 3)
    collector = Collector(env, frames_per_batch=12, seed=1)
    collector.collect()
    state = pickle.loads(pickle.dumps(collector.state_dict()))  # as it comes from a worker process
    expected = collector.collect()
    other = Collector(JaxEnv(counter(), 3), frames_per_batch=12, seed=2)
    other.collect()
    other.load_state_dict(state)
    got = other.collect()
    for key, value in expected.items(include_nested=True, leaves_only=True):
        assert torch.equal(got.get(key), value), key
    with pytest.raises(EnvError, match="load_state_dict: expected leaves of"):
        JaxEnv(counter(), 40).load_state_dict(env.state_dict())


def test_an_evaluator_measures_episodes():
    evaluator = Evaluator(JaxEnv(counter(), 3), num_episodes=6, seed=0)
    evaluation = evaluator(lambda root: act(root, 1, 1, 0))
    assert sorted(evaluation.returns) == [-4, -4, 0, 0, 0, 0]


def test_dtypes_become_those_of_the_specs():
    def seen(key):
        return {
            "bool": jnp.ones((2,), bool),
            "uint8": jnp.zeros((2, 2), jnp.uint8),
            "uint32": jnp.full((), 2**32 - 1, jnp.uint32),
            "int32": jnp.zeros((), jnp.int32),
            "half": jnp.zeros((1,), jnp.float16),
        }

    def step(key, state, action):
        return state, seen(key), action.sum(), False, False

    env = JaxEnv(JaxWorld(lambda key: ((), seen(key)), step, spaces.Box(-1, 1, (2,)), max_episode_steps=3), 2)
    check_env(env, num_steps=8)
    root = env.reset()
    dtypes = {key: root[key].dtype for key in ("bool", "uint8", "uint32", "int32", "half")}
    assert list(dtypes.values()) == [torch.bool, torch.uint8, torch.int64, torch.int32, torch.float16]
    assert root["uint32"].tolist() == [2**32 - 1] * 2
    assert env.step(act(root, [0.5, 0.25], [1.0, -1.0]))["next", "reward"].tolist() == [[0.75], [0.0]]


def world(**changes):
    parts = {
        "reset": lambda key: (jnp.zeros(2), jnp.zeros(3)),
        "step": lambda key, state, action: (state, jnp.zeros(3), 0.0, False, False),
        "action_space": spaces.Discrete(2),
    }
    return JaxWorld(**parts | changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reset": lambda key: jnp.zeros(2)}, EnvError, "JaxWorld, reset: expected (state, observation), got"),
        (
            {"reset": lambda key: (0, [1.0])},
            EnvError,
            "an observation that is one array, or a dict of arrays, got l",
        ),
        (
            {"step": lambda key, state, action: (state, 0.0)},
            EnvError,
            "JaxWorld, step: expected (state, observ",
        ),
        (
            {"step": lambda key, state, action: (state[0], jnp.zeros(3), 0.0, False, False)},
            EnvError,
            "a step with the state and observation of reset, ((2,), {'observation': (3,)}), got ((), {",
        ),
        (
            {"step": lambda key, state, action: (state, jnp.zeros(3), jnp.zeros(2), False, False)},
            EnvError,
            "JaxWorld, step: expected one reward for one row, got [2]",
        ),
        ({"reset": lambda key: (jnp.zeros(2), {"reward": 1.0 * jnp.ones(1)})}, EnvError, "step with the state"),
        ({"action_space": spaces.Text(3)}, SpecError, "an action_space that is a Box, Discrete, MultiDiscrete or"),
        ({"max_episode_steps": 0}, ConfigError, "max_episode_steps of at least 1 or None, got 0"),
    ],
)
def test_a_world_that_does_not_fit_is_refused(changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        JaxEnv(world(**changes), 2)


def test_what_an_env_refuses():
    with pytest.raises(EnvError, match="expected a JaxWorld, got function. Write JaxEnv"):
        JaxEnv(test_what_an_env_refuses, 2)
    with pytest.raises(ConfigError, match="num_envs of at least 1 or None, got 0"):
        JaxEnv(counter(), 0)
    taken = world(
        reset=lambda key: (0, {"reward": jnp.zeros(1)}),
        step=lambda key, state, action: (state, {"reward": jnp.zeros(1)}, 0.0, False, False),
    )
    with pytest.raises(EnvError, match=r"names that the env does not use itself, got \['reward'\]"):
        JaxEnv(taken, 2)
    env = JaxEnv(counter(), 3)
    root = TensorDict({"action": torch.zeros(3, dtype=torch.int64)}, [3])
    with pytest.raises(EnvError, match=r"rows \[0, 1, 2\] that have ended or never started"):
        env.step(root)
    with pytest.raises(EnvError, match="a first reset of all rows"):
        env.reset(torch.tensor([True, False, False]))
    with pytest.raises(EnvError, match="a first reset, got none"):
        env.freeze_(torch.tensor([True, False, False]))
    with pytest.raises(EnvError, match="one before any reset"):
        env.load_state_dict(env.state_dict())
    with pytest.raises(EnvError, match="no options"):
        env.reset(options={"gravity": 1})
    env.reset()
    with pytest.raises(SpecError, match=r"an action of torch.int64 and shape \[3\], got torch.float32 of shape \[3\]"):
        env.step(root.set("action", torch.zeros(3)))
