"""Every wrapper of gymnasium.wrappers.vector, in every autoreset mode: right, or refused when it is put together."""

from functools import partial
from types import ModuleType

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import wrappers as single
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import vector

from cases.same import assert_same
from fakes import Painter
from torchrl.envs import GymVectorEnv, SerialEnv
from torchrl.envs.simulators import GymSimulator
from torchrl.errors import EnvError, SpecError

MODES = list(AutoresetMode)
MASKED = [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
where_rows_are_reset = pytest.mark.parametrize("mode", MASKED, ids=lambda mode: mode.name)


pytestmark = pytest.mark.usefixtures("stand_ins_of_wrappers")


def half(observation):
    return observation / 2


# By name: the form of what is observed, the arguments, and the wrapper of one simulator that does the same.
OBSERVATION = {
    "TransformObservation": ("box", {"func": half}, single.TransformObservation),
    "VectorizeTransformObservation": (
        "box",
        {"wrapper": single.TransformObservation, "func": half, "observation_space": Painter.box},
        partial(single.TransformObservation, func=half, observation_space=Painter.box),
    ),
    "FilterObservation": ("dict", {"filter_keys": ["picture"]}, single.FilterObservation),
    "FlattenObservation": ("dict", {}, single.FlattenObservation),
    "GrayscaleObservation": ("picture", {}, single.GrayscaleObservation),
    "ResizeObservation": ("picture", {"shape": (2, 2)}, single.ResizeObservation),
    "ReshapeObservation": ("box", {"shape": (2, 2)}, single.ReshapeObservation),
    "RescaleObservation": ("box", {"min_obs": np.float32(-1), "max_obs": np.float32(1)}, single.RescaleObservation),
    "DtypeObservation": ("box", {"dtype": np.float64}, single.DtypeObservation),
}
OTHER = {
    "TransformAction": ("box", {"func": half}, single.TransformAction),
    "VectorizeTransformAction": (
        "box",
        {"wrapper": single.TransformAction, "func": half, "action_space": Painter.action_space},
        partial(single.TransformAction, func=half, action_space=Painter.action_space),
    ),
    "ClipAction": ("box", {}, single.ClipAction),
    "RescaleAction": ("box", {"min_action": np.float32(-1), "max_action": np.float32(1)}, single.RescaleAction),
    "TransformReward": ("box", {"func": half}, single.TransformReward),
    "VectorizeTransformReward": (
        "box",
        {"wrapper": single.TransformReward, "func": half},
        partial(single.TransformReward, func=half),
    ),
    "ClipReward": ("box", {"min_reward": 1.5, "max_reward": 2.5}, single.ClipReward),
    "DictInfoToList": ("box", {}, None),
    "HumanRendering": ("box", {}, None),
    "RecordVideo": ("box", {}, None),
    "RecordEpisodeStatistics": ("box", {}, None),
}
SINGLE_SPACES = {
    "TransformObservation": {"observation_space": Painter.box},
    "TransformAction": {"action_space": Painter.action_space},
}
LEARNS = {"NormalizeReward"}
REFUSED = {"NormalizeObservation", "ArrayConversion", "JaxToTorch", "NumpyToTorch"}
BACK = {"JaxToNumpy"}  # what comes out of it are arrays of numpy


def test_every_wrapper_of_gymnasium_is_in_a_list():
    assert OBSERVATION.keys() | OTHER.keys() | LEARNS | REFUSED | BACK == set(vector.__all__)


def worlds(form, **options):
    return [partial(Painter, length, form, **options) for length in (2, 3, 5)]


def run(env, num_steps=13):
    """Return the transitions, with an action that no wrapper may change."""
    root = env.reset(seed=3)
    steps = []
    for at in range(num_steps):
        action = torch.full(env.action_spec.shape, at / 10 - 0.5, dtype=env.action_spec.dtype)
        transition, root = env.step_and_reset(root.set("action", action.clone()))
        assert torch.equal(transition["action"], action)
        steps.append(transition.clone())
    return torch.stack(steps, dim=1)


def of_one_world(name, table):
    """Return the transitions of the wrapper of one simulator, which knows nothing of resets."""
    form, options, wrapper = table[name]
    options = {} if isinstance(wrapper, partial) else {**options, **SINGLE_SPACES.get(name, {})}
    wrap = (lambda env: env) if wrapper is None else partial(wrapper, **options)
    return run(SerialEnv([lambda make=make: GymSimulator(wrap(make())) for make in worlds(form)]))


@pytest.mark.parametrize("name", OBSERVATION)
@where_rows_are_reset
def test_observations_are_those_of_wrapped_simulators(mode, name):
    form, options, _ = OBSERVATION[name]
    env = getattr(vector, name)(SyncVectorEnv(worlds(form), autoreset_mode=mode), **options)
    ours = run(GymVectorEnv(env))
    assert ours["next", "done"].sum() == 6 + 4 + 2
    assert_same(ours, of_one_world(name, OBSERVATION))


@pytest.mark.parametrize("name", OTHER)
@every_mode
def test_actions_and_rewards_are_those_of_wrapped_simulators(mode, name, tmp_path):
    form, options, _ = OTHER[name]
    drawn = {"render_mode": "rgb_array"} if name in ("HumanRendering", "RecordVideo") else {}
    if name == "RecordVideo":
        options = {"video_folder": str(tmp_path / "films"), "episode_trigger": lambda episode: False}
    env = getattr(vector, name)(SyncVectorEnv(worlds(form, **drawn), autoreset_mode=mode), **options)
    assert_same(run(GymVectorEnv(env)), of_one_world(name, OTHER))


@pytest.mark.parametrize("name", OBSERVATION)
def test_gymnasium_itself_allows_no_transformed_observations_in_same_step(name):
    form, options, _ = OBSERVATION[name]
    with pytest.raises(ValueError, match="NEXT_STEP"):
        getattr(vector, name)(SyncVectorEnv(worlds(form), autoreset_mode=AutoresetMode.SAME_STEP), **options)


@every_mode
def test_sums_of_rows_that_go_on_outlive_the_restart_of_others(mode):
    """Rows of 2, 3 and 5 steps; after 12 of them 6, 4 and 2 episodes are over, in this order."""
    counted = vector.RecordEpisodeStatistics(SyncVectorEnv(worlds("box"), autoreset_mode=mode))
    run(GymVectorEnv(counted), 12)
    assert [int(length) for length in counted.length_queue] == [2, 3, 2, 5, 2, 3, 2, 3, 2, 5, 2, 3]
    assert [float(total) for total in counted.return_queue] == [3, 6, 3, 15, 3, 6, 3, 6, 3, 15, 3, 6]
    assert counted.episode_lengths.tolist() == [0, 0, 2]


@every_mode
def test_rewards_are_divided_by_what_their_own_rows_have_earned(mode):
    """With gamma = 0.5, rows of 2 and 3 steps earn discounted sums of 1, 2 and 1, 2.5, 3; then both begin again.

    Gymnasium multiplies the sum so far by (1 - terminated), so that at an ending only the last reward counts.
    """
    makers = [partial(Painter, 2), partial(Painter, 3)]
    normalised = vector.NormalizeReward(SyncVectorEnv(makers, autoreset_mode=mode), gamma=0.5)
    sums = []
    normalised.return_rms.update = lambda values: sums.append(np.array(values).tolist())
    run(GymVectorEnv(normalised), 5)
    assert sums == [[1, 1], [2, 2.5], [1, 3], [2, 1], [1, 2.5]]


@where_rows_are_reset
def test_restarts_by_hand_leave_the_others_alone(mode):
    counted = vector.RecordEpisodeStatistics(SyncVectorEnv(worlds("box"), autoreset_mode=mode))
    env = GymVectorEnv(counted)
    root = env.reset()
    action = torch.zeros(3, 2)
    root = env.step(root.set("action", action))["next"].select("observation")
    env.reset(torch.tensor([False, True, False]))
    assert counted.episode_lengths.tolist() == [1, 0, 1] and counted.episode_returns.tolist() == [1, 0, 1]


def test_normalised_observations_are_refused_with_what_to_write():
    env = vector.NormalizeObservation(SyncVectorEnv(worlds("box")))
    with pytest.raises(EnvError, match=r"write TransformedEnv\(GymVectorEnv\(vector_env\), VecNorm\(\)"):
        GymVectorEnv(env)


class Converted(VectorWrapper):
    """Has the form of gymnasium's ArrayConversion, which imports a package of its own."""

    def __init__(self, env, target):
        super().__init__(env)
        self._target_xp = ModuleType(target)


def test_arrays_of_other_libraries_are_refused():
    with pytest.raises(EnvError, match=r"expected arrays of numpy, got those of torch.*Leave the wrapper out"):
        GymVectorEnv(vector.TransformReward(Converted(SyncVectorEnv(worlds("box")), "torch"), half))
    GymVectorEnv(Converted(SyncVectorEnv(worlds("box")), "array_api_compat.numpy"))


class Tensors(VectorWrapper):
    def reset(self, *, seed=None, options=None):
        observations, info = self.env.reset(seed=seed, options=options)
        return torch.from_numpy(observations), info


def test_tensors_in_the_place_of_arrays_are_named():
    env = GymVectorEnv(Tensors(SyncVectorEnv(worlds("box"), autoreset_mode=AutoresetMode.SAME_STEP)))
    with pytest.raises(SpecError, match="an array of numpy at the key 'observation', got a Tensor"):
        env.reset()


class Counted(VectorWrapper):
    """Counts the steps of each row, and forgets all rows in every reset."""

    def reset(self, *, seed=None, options=None):
        self.counts = np.zeros(self.num_envs)
        return self.env.reset(seed=seed, options=options)


@where_rows_are_reset
def test_a_reset_of_somebody_else_is_refused_where_rows_are_restarted(mode):
    env = vector.TransformReward(Counted(SyncVectorEnv(worlds("box"), autoreset_mode=mode)), half)
    with pytest.raises(EnvError, match=r"rows that go on, got Counted with a reset of its own.*SAME_STEP"):
        GymVectorEnv(env)


def test_a_reset_of_somebody_else_is_not_needed_in_same_step():
    env = GymVectorEnv(Counted(SyncVectorEnv(worlds("box"), autoreset_mode=AutoresetMode.SAME_STEP)))
    assert_same(run(env), of_one_world("DictInfoToList", OTHER))
    with pytest.raises(EnvError, match="expected rows that can be restarted one by one"):
        env.reset(torch.tensor([True, False, False]))


class Partly(gymnasium.vector.VectorEnv):
    """Returns some rows of each step, those that are ready."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    num_envs, batch_size = 4, 2
    single_observation_space, single_action_space = Painter.box, Painter.action_space


def test_a_part_of_the_rows_is_refused():
    with pytest.raises(EnvError, match=r"GymVectorEnv\(Partly\): expected all 4 rows at every step, got batch_size 2"):
        GymVectorEnv(Partly())


def test_a_mode_that_is_not_said_can_be_written():
    env = SyncVectorEnv(worlds("box"), autoreset_mode=AutoresetMode.SAME_STEP)
    env.metadata = {}
    with pytest.raises(EnvError, match=r"got None. Write vector_env.metadata = .*SAME_STEP if the step that ends"):
        GymVectorEnv(env)
    env.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
    assert_same(run(GymVectorEnv(env)), of_one_world("DictInfoToList", OTHER))
