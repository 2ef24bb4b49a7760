"""Parameters of each row: how they reach policies and simulators, when they change, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from tensordict import TensorDict

from cases.torch_worlds import Counter
from fakes import CountingEnv, CountingSimulator
from torchrl.data.specs import Unbounded
from torchrl.envs import GymVectorEnv, SerialEnv
from torchrl.envs.transforms import DoubleToFloat, RewardScaling, TensorDictPrimer, TransformedEnv
from torchrl.envs.transforms.base import Transform
from torchrl.errors import ConfigError, EnvError, KeyMissing, SpecError


class Levelled(CountingSimulator):
    """Observes the level its reset was told, and how often it was reset. Reward: the level."""

    def __init__(self, length=2):
        super().__init__(length, observation_shape=(2,))
        self.level, self.told = -1, []

    def reset(self, *, seed=None, options=None):
        self.told.append(options)
        self.level = -1 if options is None else options.get("level", -1)
        return super().reset(seed=seed)

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(self.level), *rest

    def _observation(self):
        return np.array([self.level, self.episode], np.float32)


def levelled(*lengths):
    return SerialEnv([lambda length=length: Levelled(length) for length in lengths])


def rows(**columns):
    columns = {key: torch.as_tensor(value) for key, value in columns.items()}
    return TensorDict(columns, batch_size=next(iter(columns.values())).shape[:1])


def act(root):
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def levels(tensordict):
    return tensordict["observation"][:, 0].tolist()


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: TransformedEnv(env, Transform())])
def test_options_reach_their_row_at_each_restart_and_change_where_a_row_restarts(wrap):
    env = wrap(levelled(2, 3))
    env.set_info_(env_info=rows(level=[10, 20]))
    root = env.reset()
    assert levels(root) == [10, 20] == root["env_info", "level"].tolist()
    transition, root = env.step_and_reset(act(root))
    assert transition["env_info", "level"].tolist() == [10, 20] == transition["next", "env_info", "level"].tolist()
    env.set_info_(env_info=rows(level=[11, 21]))
    transition, root = env.step_and_reset(act(root))  # row 0 ends
    assert transition["next", "env_info", "level"].tolist() == [10, 20]
    assert levels(root) == [11, 20] == root["env_info", "level"].tolist()
    transition, root = env.step_and_reset(act(root))  # row 1 ends
    assert transition["next", "env_info", "level"].tolist() == [11, 20] and levels(transition["next"]) == [11, 20]
    assert levels(root) == [11, 21] == root["env_info", "level"].tolist()
    env.set_info_(env_info=rows(level=[12, 22]))
    root = env.reset(torch.tensor([True, False]), root=root)
    assert levels(root) == [12, 21] == root["env_info", "level"].tolist()
    assert "env_info" not in env.observation_spec


def test_options_are_python_numbers_arrays_and_dicts_of_the_simulators_own():
    env = levelled(9, 9)
    inner = TensorDict({"speed": torch.tensor([0.5, 1.5])}, [2])
    info = rows(level=[1, 2], hard=[True, False], goal=[[1.0, 2.0], [3.0, 4.0]]).set("inner", inner)
    env.set_info_(env_info=info)
    env.reset()
    told = env.simulators[1].told[-1]
    assert (told["level"], told["hard"], told["inner"]) == (2, False, {"speed": 1.5})
    assert [type(value) for value in told.values()] == [int, bool, np.ndarray, dict]
    assert told["goal"].tolist() == [3, 4] and told["goal"].dtype == np.float32
    told["goal"][:], told["level"], told["inner"]["speed"] = 0, 0, 0
    info["level"].zero_()
    env.reset()
    again = env.simulators[1].told[-1]
    assert again["goal"].tolist() == [3, 4] and again["level"] == 2 and again["inner"] == {"speed": 1.5}


def test_options_of_a_call_win():
    env = levelled(9, 9)
    env.set_info_(env_info=rows(level=[1, 2], size=[3, 4]))
    env.reset(options={"level": 7})
    assert [simulator.told for simulator in env.simulators] == [[{"level": 7, "size": 3}], [{"level": 7, "size": 4}]]


def test_one_simulator_has_parameters_without_rows():
    env = SerialEnv(Levelled)
    env.set_info_(agent_info=TensorDict({"skill": torch.tensor(3)}, []), env_info=TensorDict({"level": 4}, []))
    root = env.reset()
    assert env.simulators[0].told == [{"level": 4}] and root["skill"] == 3 and root["env_info", "level"] == 4


def test_parameters_of_the_policy_are_carried_and_change_at_restarts_or_at_once():
    env = TransformedEnv(levelled(2, 3), RewardScaling(scale=1.0))
    env.set_info_(agent_info=rows(skill=[1, 2]).set("deep", rows(noise=[[0.5], [1.5]])))
    root = env.reset()
    assert root["skill"].tolist() == [1, 2] and root["deep", "noise"].tolist() == [[0.5], [1.5]]
    _, root = env.step_and_reset(act(root))
    env.set_info_(agent_info=rows(skill=[11, 12]).set("deep", rows(noise=[[2.5], [3.5]])))
    transition, root = env.step_and_reset(act(root))  # row 0 ends
    assert transition["skill"].tolist() == [1, 2] == transition["next", "skill"].tolist()
    assert root["skill"].tolist() == [11, 2] and root["deep", "noise"].tolist() == [[2.5], [1.5]]
    before = root["skill"]
    env.apply_info_(root)
    assert root["skill"].tolist() == [11, 12] and before.tolist() == [11, 2]
    transition, root = env.step_and_reset(act(root))
    assert transition["skill"].tolist() == [11, 12] == root["skill"].tolist()
    assert "skill" not in env.observation_spec


def test_none_leaves_what_was_set():
    env = levelled(9, 9)
    env.set_info_(agent_info=rows(skill=[1, 2]))
    env.set_info_(env_info=rows(level=[3, 4]))
    env.set_info_(agent_info=rows(skill=[5, 6]))
    root = env.reset()
    assert root["skill"].tolist() == [5, 6] and root["env_info", "level"].tolist() == [3, 4]


def test_parameters_stand_beside_a_policys_state_and_wait_for_a_wrapper():
    env = levelled(9, 9)
    env.set_info_(agent_info=rows(skill=[1, 2]), env_info=rows(level=[3, 4]))
    env = TransformedEnv(env, TensorDictPrimer({"hidden": Unbounded(())}, defaults={"hidden": 7}))
    root = env.reset()
    assert root["hidden"].tolist() == [7, 7] and root["skill"].tolist() == [1, 2] and levels(root) == [3, 4]
    env.set_info_(agent_info=rows(skill=[5, 6]))
    root = env.reset()
    assert root["hidden"].tolist() == [7, 7] and root["skill"].tolist() == [5, 6] and levels(root) == [3, 4]


def test_a_name_of_a_policys_state_is_taken_also_under_another_transform():
    primed = TransformedEnv(levelled(9, 9), TensorDictPrimer({"hidden": Unbounded(())}))
    for env in (primed, TransformedEnv(primed, DoubleToFloat())):
        with pytest.raises(ConfigError, match=r"set_info_, agent_info: .*\['hidden'\]"):
            env.set_info_(agent_info=rows(hidden=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("info", "error", "message"),
    [
        ({"skill": 1}, SpecError, r"agent_info: expected a TensorDict of batch size \[2\], got dict"),
        (TensorDict({"skill": torch.zeros(3)}, [3]), SpecError, r"got one of \[3\]"),
        (TensorDict({}, [2]), SpecError, "at least one tensor"),
        (TensorDict({"skill": "high"}, [2]), SpecError, "expected tensors"),
        (TensorDict({"skill": torch.zeros(2, 1)}, [2]), SpecError, "the form it had before"),
        (TensorDict({"skill": torch.zeros(2)}, [2]), SpecError, "the form it had before"),
        (TensorDict({"other": torch.zeros(2, dtype=torch.int64)}, [2]), SpecError, "the form it had before"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(info, error, message):
    env = levelled(9, 9)
    env.set_info_(agent_info=rows(skill=[1, 2]))
    with pytest.raises(error, match=message):
        env.set_info_(agent_info=info)
    assert env.reset()["skill"].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["observation", "action", "next", "env_info", "collector", "is_init"])
def test_names_that_are_taken_are_refused(name):
    with pytest.raises(ConfigError, match=f"set_info_, agent_info: .*{name}"):
        levelled(9, 9).set_info_(agent_info=rows(**{name: [1, 2]}))


def test_simulators_without_options_refuse_them_at_once():
    with pytest.raises(EnvError, match="expected simulators whose resets take options, got Counter"):
        TransformedEnv(Counter(), Transform()).set_info_(env_info=rows(level=[1, 2, 3]))
    env = GymVectorEnv(SyncVectorEnv([CountingEnv, CountingEnv]))
    with pytest.raises(EnvError, match="GymVectorEnv: expected the same options in every row"):
        env.set_info_(env_info=rows(level=[1, 2]))
    env.set_info_(env_info=rows(level=[1, 1]))
    root = env.reset()
    assert root["env_info", "level"].tolist() == [1, 1]
    env.close()


def test_a_root_without_them_is_named():
    env = levelled(9, 9)
    root = env.reset()
    env.set_info_(env_info=rows(level=[1, 2]))
    with pytest.raises(KeyMissing, match="'env_info'"):
        env.step_and_reset(act(root))
    with pytest.raises(SpecError, match=r"apply_info_: expected a root of batch size \[2\]"):
        env.apply_info_(root[:1])


def test_envs_around_one_another_share_one_state_also_in_a_copy():
    env = TransformedEnv(TransformedEnv(levelled(9, 9), Transform()), Transform())
    env.env.env.reset()
    env.set_seed(3)
    for one in (env, copy.deepcopy(env)):
        assert one.shared is one.env.shared is one.env.env.shared
        assert one.num_moves == 1 and one.env.env.shared.pending_seed == 3
    assert env.env.is_wrapped and env.env.env.is_wrapped and not env.is_wrapped
