"""The contract of a batch of simulators, held by the serial and the parallel back end alike.

The counting simulator lets every tensor be written by hand. Rows that end at different steps, and what the flags of
each kind of ending are, stand in ``test_autoreset_law.py``, which holds them against every back end.
"""

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from fakes import ActionEchoSimulator, CountingSimulator, Folders
from torchrl.envs import ParallelEnv, SerialEnv
from torchrl.errors import EnvError, KeyMissing, SpecError

pytestmark = pytest.mark.usefixtures("leaves_nothing")


@pytest.fixture(params=[SerialEnv, ParallelEnv], ids=["serial", "parallel"])
def make_env(request, keep):
    """Build environments of one back end, which are closed at the end."""
    return lambda *arguments: keep(request.param(*arguments))


def counting(make_env, num_envs=None, length=3, ending="terminated"):
    return make_env(lambda: CountingSimulator(length=length, ending=ending), num_envs)


def act(root):
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def column(batch, key):
    return batch[key].squeeze(-1).tolist()


def test_a_rollout_over_an_ending_written_by_hand(make_env):
    batch = counting(make_env).rollout(5, act)
    assert batch.batch_size == (5,)
    assert column(batch, "observation") == [0, 1, 2, 0, 1]
    assert column(batch, ("next", "observation")) == [1, 2, 3, 1, 2]  # 3 is the true last observation
    assert column(batch, ("next", "reward")) == [0, 0, 0, 1, 1]
    assert column(batch, ("next", "terminated")) == [False, False, True, False, False]
    assert column(batch, ("next", "truncated")) == [False] * 5
    assert column(batch, ("next", "done")) == [False, False, True, False, False]
    assert column(batch, "is_init") == [True, False, False, True, False]
    assert column(batch, "episode_length") == [0, 1, 2, 0, 1]
    assert column(batch, ("next", "episode_length")) == [1, 2, 3, 1, 2]
    assert column(batch, "episode_return") == [0, 0, 0, 0, 1]
    assert column(batch, ("next", "episode_return")) == [0, 0, 0, 1, 2]


def test_dtypes_and_shapes_of_the_data_layout(make_env):
    batch = counting(make_env, 2).rollout(2, act)
    assert batch["observation"].dtype is torch.float32 and batch["observation"].shape == (2, 2, 1)
    assert batch["next", "reward"].dtype is torch.float32 and batch["next", "reward"].shape == (2, 2, 1)
    for flag in ("terminated", "truncated", "done"):
        assert batch["next", flag].dtype is torch.bool and batch["next", flag].shape == (2, 2, 1)
    assert batch["is_init"].shape == (2, 2, 1) and batch["next", "episode_length"].dtype is torch.int64


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_stop_when_done_stops_once_every_row_has_ended(make_env, ending):
    env = make_env([lambda length=length: CountingSimulator(length, ending=ending) for length in (2, 3)])
    assert env.rollout(10, act, stop_when_done=True).batch_size == (2, 3)


def test_a_partial_reset_touches_only_its_rows(make_env):
    env = counting(make_env, 2, length=9)
    root = env.reset()
    for _ in range(2):
        _, root = env.step_and_reset(act(root))
    root = env.reset(torch.tensor([False, True]))
    assert root["observation"].squeeze(-1).tolist() == [2, 0]
    assert root["is_init"].squeeze(-1).tolist() == [False, True]
    assert root["episode_length"].squeeze(-1).tolist() == [2, 0]


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_step_waits_for_a_reset_of_ended_rows(make_env, ending):
    env = counting(make_env, 2, length=1, ending=ending)
    transition = env.step(act(env.reset()))
    assert transition["next", "done"].all()
    with pytest.raises(EnvError, match=r"rows \[0, 1\]"):
        env.step(act(transition.exclude("next")))
    root = env.reset(transition["next", "done"])
    assert env.step(act(root))["next", "observation"].tolist() == [[1], [1]]


def test_step_before_reset_is_refused(make_env):
    with pytest.raises(EnvError, match=r"rows \[0\]"):
        counting(make_env).step(TensorDict({"action": torch.tensor(0)}, []))


def test_what_reset_step_and_rollout_return_is_the_callers_own(make_env):
    env = counting(make_env, 2, length=9)
    first = env.reset()
    kept = first["observation"].clone()
    transition = env.step(act(first.clone()))
    after = transition["next", "observation"].clone()
    for _ in range(3):
        env.step(act(env.reset()))
    assert torch.equal(first["observation"], kept) and torch.equal(transition["next", "observation"], after)


def test_the_last_root_stays_whole_during_the_next_step(make_env):
    env = counting(make_env, 2, length=9)
    root = env.reset()
    for step in range(4):
        transition, root = env.step_and_reset(act(root))
        assert transition["observation"].squeeze(-1).tolist() == [step, step]
        assert transition["next", "observation"].squeeze(-1).tolist() == [step + 1, step + 1]


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_the_policys_state_is_carried_and_zeroed_where_an_episode_begins(make_env, ending):
    env = make_env([lambda length=length: CountingSimulator(length, ending=ending) for length in (2, 3)])

    def policy(root):
        state = root.get("state", torch.zeros(2, 3))
        root.set(("next", "state"), state + 1)
        root.set(("next", "inner", "noise"), torch.ones(2, 1))
        return act(root)

    root = env.reset()
    seen = []
    for _ in range(4):
        transition, root = env.step_and_reset(policy(root))
        assert torch.equal(transition["next", "state"], transition.get("state", torch.zeros(2, 3)) + 1)
        seen.append(root["state"][:, 0].tolist())
    assert seen == [[1, 1], [0, 2], [1, 0], [0, 1]]
    assert root["inner", "noise"].squeeze(-1).tolist() == [0, 1]


def test_what_a_policy_wrote_is_not_left_for_the_next_step(make_env):
    env = counting(make_env, 2, length=9)
    _, root = env.step_and_reset(act(env.reset()))
    _, root = env.step_and_reset(act(root))
    with pytest.raises(KeyMissing, match="'action'"):
        env.step_and_reset(root)


@pytest.mark.parametrize(
    ("action", "got"),
    [
        (torch.zeros(2, 1, dtype=torch.int64), r"shape \[2, 1\]"),
        (torch.zeros(2), "float32"),
        (torch.zeros(2, 2, dtype=torch.int64), "not one-hot"),
    ],
)
def test_an_action_that_does_not_fit_is_refused(make_env, action, got):
    env = counting(make_env, 2)
    root = env.reset()
    with pytest.raises(SpecError, match=got):
        env.step_and_reset(root.set("action", action))


def test_continuous_actions_reach_their_row(make_env):
    env = make_env(lambda: ActionEchoSimulator(), 3)
    action = torch.linspace(-1, 1, 3).unsqueeze(-1).expand(env.action_spec.shape).clone()
    transition = env.step(env.reset().set("action", action))
    assert torch.equal(transition["next", "observation"], action)


def test_seeds_need_one_per_row(make_env):
    with pytest.raises(SpecError, match="one seed per row, 2"):
        counting(make_env, 2).reset(seed=[1])


@pytest.mark.parametrize("mask", [torch.tensor([1, 0]), torch.tensor([True, False, True])])
def test_a_mask_that_does_not_fit_is_refused(make_env, mask):
    with pytest.raises(SpecError, match="bool mask"):
        counting(make_env, 2).reset(mask)


def test_a_state_continues_where_it_was_taken(make_env):
    env, other = counting(make_env, 2, length=3), counting(make_env, 2, length=3)
    root = env.reset()
    for _ in range(4):
        _, root = env.step_and_reset(act(root))
    state = env.state_dict()
    ahead = [env.step_and_reset(act(root))[0]["next", "observation"].clone()]
    root = other.load_state_dict(state)
    assert torch.equal(other.step_and_reset(act(root))[0]["next", "observation"], ahead[0])


@pytest.mark.parametrize(("place", "name"), [(1, "reward"), (2, "terminated"), (3, "truncated")])
def test_a_malformed_result_of_a_step_is_named_with_its_row(make_env, place, name):
    class Malformed(CountingSimulator):
        def step(self, action):
            result = list(super().step(action))
            result[place] = [result[place]] * 2
            return tuple(result)

    env = make_env([lambda: CountingSimulator(9), lambda: Malformed(9)])
    with pytest.raises(EnvError, match=f"{name} of row 1"):
        env.step(act(env.reset()))


def test_policy_state_beside_observations_in_a_folder_is_carried(make_env):
    env = make_env(Folders, 2)

    def policy(root):
        root.set(("next", "agent", "h"), root.get(("agent", "h"), torch.zeros(2, 1)) + 1)
        return act(root)

    root, seen = env.reset(), []
    for _ in range(3):
        transition, root = env.step_and_reset(policy(root))
        assert torch.equal(
            root["agent", "x"], torch.where(transition["next", "done"], 0, transition["next", "agent", "x"])
        )
        seen.append(root["agent", "h"].squeeze(-1).tolist())
    assert seen == [[1, 1], [0, 0], [1, 1]]


def test_a_missing_key_of_an_observation_is_named_with_its_row(make_env):
    env = make_env([Folders, lambda: Folders(missing=True)])
    with pytest.raises(EnvError, match=r"observation of row 1: expected the key 'agent/x', got \['y'\]"):
        env.step(act(env.reset()))


@pytest.mark.parametrize("name", ["reward", "next", "is_init", "episode_return", "terminated", "truncated", "done"])
def test_an_observation_under_a_name_of_the_environment_is_refused(make_env, name):
    class Colliding(CountingSimulator):
        def __init__(self):
            super().__init__(2)
            self.observation_space = spaces.Dict({name: self.observation_space})

    with pytest.raises(EnvError, match=name):
        make_env(Colliding).reset()


def test_a_float_where_an_index_is_due_is_refused(make_env):
    class Half(CountingSimulator):
        def __init__(self):
            super().__init__(3)
            self.observation_space = spaces.Discrete(5)

        def _observation(self):
            return 0 if not self.num_steps else 2.7

    env = make_env(Half, 2)
    with pytest.raises(SpecError, match="dtype float64"):
        env.step(act(env.reset()))
