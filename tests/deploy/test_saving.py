"""A saved policy of every kind acts as the live one: from the simulator's observation to the simulator's action."""

import json

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase

from cases.deployed import KINDS
from torchrl.deploy import load_policy, save_policy
from torchrl.envs import TransformedEnv
from torchrl.modules import ExplorationType, set_exploration_type

SIZES = (1, 8, 5)  # none of them is that of the example that the program is traced with


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """Make a policy of a kind, learn statistics, and save it once for all tests."""
    make_policy, make_env = KINDS[request.param]
    torch.manual_seed(0)
    policy, env = make_policy(), make_env(2)
    with torch.no_grad():
        env.rollout(5, policy)
    path = tmp_path_factory.mktemp("policies") / "policy.pt2"
    form = save_policy(policy, path, env=env)
    return policy, make_env, env.learned_state_dict(), path, form


def world_of(env):
    while isinstance(env, TransformedEnv):
        env = env.env
    return env


def arrays(value):
    if isinstance(value, TensorDictBase):
        return {key: arrays(part) for key, part in value.items() if key != "is_init"}
    return value.numpy()


def assert_same(came, due):
    if isinstance(due, dict):
        assert came.keys() == due.keys()
        for key, value in due.items():
            assert_same(came[key], value)
        return
    assert came.dtype == due.dtype
    assert came.shape == due.shape
    np.testing.assert_allclose(came, due, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_rows", SIZES)
def test_a_saved_policy_acts_as_the_live_one(kind, num_rows):
    policy, make_env, learned, path, _ = kind
    saved, env = load_policy(path), make_env(num_rows)
    env.load_learned_state_dict(learned)
    policy.eval()
    for transform in env.transforms:
        transform.eval()
    root = env.reset()
    for _ in range(5):
        shown = arrays(world_of(env).shown)
        came = saved(shown if len(shown) > 1 else next(iter(shown.values())))
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            transition, root = env.step_and_reset(policy(root))
        assert_same(came, arrays(world_of(env).received))
        saved.reset(transition["next", "done"].squeeze(-1).numpy())


def first(value):
    return {key: first(part) for key, part in value.items()} if isinstance(value, dict) else value[0]


def test_a_single_row_gives_an_action_without_a_batch_dimension(kind):
    _, make_env, _, path, _ = kind
    saved, env = load_policy(path), make_env(1)
    env.reset()
    shown = arrays(world_of(env).shown)
    batch = saved(shown)
    saved.reset()
    assert_same(saved(first(shown)), first(batch))


def test_the_file_describes_itself(kind):
    _, _, _, path, form = kind
    assert load_policy(path).form == form
    plain = json.loads(json.dumps(form.plain()))
    assert [entry["name"] for entry in plain["inputs"]] == [entry.name for entry in form.inputs]
