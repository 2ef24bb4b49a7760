"""``check_env`` passes the environments we ship and finds planted mistakes."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from fakes import CountingEnv, CountingSimulator, FaultySimulator, PlantedError
from torchrl.envs import GymEnv, SerialEnv, TransformedEnv, check_env
from torchrl.envs.transforms import VecNorm
from torchrl.envs.vector.buffers import Leaf, allocate_observations, observation_leaves
from torchrl.errors import EnvError, SpecError


def test_the_fakes_pass():
    check_env(SerialEnv([lambda: CountingSimulator(2), lambda: CountingSimulator(3, ending="truncated")]))
    check_env(SerialEnv(FaultySimulator, 2))


FAULTS = {
    "observation_shape": (SpecError, r"shape \[2\]"),
    "observation_string": (SpecError, "dtype <U4"),
    "observation_object": (SpecError, "dtype object"),
    "observation_out_of_bounds": (SpecError, "-1"),
    "observation_nan": (SpecError, "NaN"),
    "reward_nan": (SpecError, "NaN"),
    "reward_list": (EnvError, "reward of row 0: expected a float"),
    "ignores_seed": (EnvError, "the same run twice"),
    "raises_in_reset": (PlantedError, "planted in reset"),
    "raises_in_step": (PlantedError, "planted in step"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_mistakes_are_found_and_named(fault):
    kind, message = FAULTS[fault]
    with pytest.raises(kind, match=message):
        check_env(SerialEnv(lambda: FaultySimulator(fault), 2), num_steps=30)


def test_an_exception_of_a_simulator_says_which_row():
    env = SerialEnv([lambda: FaultySimulator(length=9), lambda: FaultySimulator("raises_in_step", length=9)])
    root = env.reset()
    with pytest.raises(PlantedError) as caught:
        env.step(root.set("action", torch.zeros(2, dtype=torch.int64)))
    assert caught.value.__notes__ == ["Raised by the simulator of row 1 in step()."]


class ReusedBuffer(CountingSimulator):
    """Hands out the same array at every step: harmless here, since the border copies it."""

    buffer = np.zeros(1, np.float32)

    def _observation(self):
        self.buffer[:] = self.num_steps
        return self.buffer


def test_a_reused_buffer_of_a_simulator_does_no_harm():
    check_env(SerialEnv(lambda: ReusedBuffer(3)))


def test_an_observation_space_that_lies_about_its_dtype_is_found():
    class Whole(CountingSimulator):
        def __init__(self):
            super().__init__(3)
            self.observation_space = spaces.Box(0, 10, (1,), np.int64)

    with pytest.raises(SpecError, match="dtype float32"):
        check_env(SerialEnv(Whole))


class Old(CountingSimulator):
    """Speaks the interface of old gym."""

    def step(self, action):
        return super().step(action)[:4]


class Older(CountingSimulator):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0]


def test_results_of_another_interface_are_named():
    with pytest.raises(EnvError, match=r"step of row 0: expected \(observation, .*got 4 values"):
        check_env(SerialEnv(Old, 2))
    with pytest.raises(EnvError, match=r"reset of row 0: expected \(observation, info\), got ndarray"):
        check_env(SerialEnv(Older, 2))


def test_what_is_no_env_is_refused_with_the_line_to_write():
    with pytest.raises(EnvError, match=r"GymEnv\(env\)"):
        check_env(CountingSimulator(3))


class Declaring(CountingEnv):
    """Observes a dict, with an entry too many at some time."""

    def __init__(self, when, where):
        super().__init__(4, form="dict")
        self.when, self.where = when, where

    def _observation(self):
        observation = super()._observation()
        if (self.num_steps > 0) == (self.when == "step"):
            (observation["deep"] if self.where == "deep/more" else observation)["more"] = np.zeros(1)
        return observation


@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("where", ["more", "deep/more"])
def test_entries_that_no_space_declares_are_found(when, where):
    for env in (GymEnv(Declaring(when, where)), SerialEnv(lambda: Declaring(when, where), 2)):
        with pytest.raises(EnvError, match=rf"\['{where}'\] beside them. Declare them"):
            check_env(env, num_steps=9)


def test_an_entry_too_many_of_a_tuple_is_found():
    class More(CountingEnv):
        def _observation(self):
            return (*super()._observation(), 3)

    with pytest.raises(EnvError, match=r"\['2'\] beside them"):
        check_env(SerialEnv(lambda: More(4, form="tuple"), 2))


class Reporting(CountingSimulator):
    """Writes something else where a flag belongs, from its second episode on."""

    def __init__(self, name, value):
        super().__init__(3)
        self.name, self.value = name, value

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        flags = {"terminated": terminated, "truncated": truncated}
        if self.episode == 1:
            flags[self.name] = self.value
        return observation, reward, flags["terminated"], flags["truncated"], info


@pytest.mark.parametrize("name", ["terminated", "truncated"])
@pytest.mark.parametrize("value", [None, float("nan"), "no", "", 2, 0.5, -1, [], np.float32("nan")])
def test_a_flag_that_is_none_is_refused_at_any_step(name, value):
    env = SerialEnv([lambda: CountingSimulator(3), lambda: Reporting(name, value)])
    with pytest.raises(EnvError, match=f"{name} of row 1: expected a bool"):
        check_env(env)


@pytest.mark.parametrize("value", [0, 1, 0.0, np.bool_(True), np.int64(1), np.array(False), np.array([True])])
def test_a_flag_that_says_yes_or_no_in_another_dtype_is_taken(value):
    check_env(SerialEnv([lambda: CountingSimulator(3), lambda: Reporting("truncated", value)]))


def test_text_for_a_reward_is_refused_at_any_step():
    class Texts(CountingSimulator):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, "1.5" if self.episode == 2 else reward, *rest

    with pytest.raises(EnvError, match="reward of row 0: expected a float, got '1.5'"):
        check_env(SerialEnv(lambda: Texts(3)))


class Large(CountingSimulator):
    """Observes 1, and a number too large in the second step of its second episode, or at its start."""

    def __init__(self, dtype, came, value, at):
        super().__init__(3)
        self.came, self.value, self.at = came, value, at
        limits = (-np.inf, np.inf) if np.dtype(dtype).kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        self.observation_space = spaces.Box(*limits, (2,), dtype)

    def _observation(self):
        observation = np.ones(2, self.came)
        if self.episode == 1 and self.num_steps == self.at:
            observation[1] = self.value
        return observation


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize(
    ("dtype", "came", "value"),
    [
        (np.int8, np.int64, 300),
        (np.int16, np.int64, -40000),
        (np.int32, np.int64, 2**40),
        (np.uint8, np.uint16, 256),
        (np.float64, np.float64, 1e300),
        (np.float32, np.float64, -1e300),
        (np.float16, np.float64, 1e6),
    ],
)
def test_a_number_that_the_declared_dtype_cannot_hold_is_refused(dtype, came, value, at):
    env = SerialEnv([lambda: Large(dtype, came, 1, at), lambda: Large(dtype, came, value, at)])
    with pytest.raises(SpecError, match=r"observation of row 1, 'observation': expected numbers that") as caught:
        env.rollout(9)
    assert f"got {value}." in str(caught.value)
    check_env(SerialEnv(lambda: Large(dtype, came, 7, at)))


@pytest.mark.parametrize(("space", "values"), [(np.int8, [[1], [300]]), (np.float64, [[1.0], [1e300]])])
def test_a_batch_with_numbers_too_large_is_refused_as_well(space, values):
    box = spaces.Box(0, 100, (1,), space)
    leaf = Leaf(allocate_observations(box, 2), observation_leaves(box)[0], str)
    for write in (leaf.write_batch, partial(leaf.write_part, np.arange(2)), partial(leaf.write_rows, np.ones(2, bool))):
        with pytest.raises(SpecError, match="a batch of observations, 'observation': expected numbers that"):
            write(np.array(values))
        write(np.array(values) * 0 + 7)
        assert leaf.array.tolist() == [[7], [7]]


def test_endings_that_are_always_both_are_said_to_be_those_of_a_simulator_that_resets_itself():
    with pytest.warns(UserWarning, match="got both at all .* A simulator that resets itself"):
        check_env(SerialEnv(lambda: CountingSimulator(3, ending="both"), 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(SerialEnv(lambda: CountingSimulator([3, 2], ending=["both", "truncated"]), 2))


class Wearing(CountingSimulator):
    """Starts alike from a seed, and then counts its steps since it was built."""

    total = 0

    def step(self, action):
        self.total += 1
        observation, *rest = super().step(action)
        return observation + self.total // 40, *rest


def test_a_simulator_whose_runs_start_alike_and_then_differ_gets_advice_that_applies():
    make = lambda: SerialEnv(lambda: Wearing(5), 2)  # noqa: E731
    message = r"another 'next/observation' from step \d+ on. The runs start alike.*Box2D.*repeats=False"
    with pytest.raises(EnvError, match=message):
        check_env(make())
    check_env(make(), repeats=False)


def test_a_simulator_whose_starts_differ_is_told_to_draw_from_its_seeded_generator():
    with pytest.raises(EnvError, match=r"from step 0 on. Draw every random number") as caught:
        check_env(SerialEnv(lambda: FaultySimulator("ignores_seed", from_step=0), 2))
    assert "Box2D" not in str(caught.value) and "Freeze" not in str(caught.value)


def test_running_statistics_are_named_where_there_are_some():
    with pytest.raises(EnvError, match=r"Freeze running statistics of transforms first \(env.transform.eval\(\)\)"):
        check_env(TransformedEnv(SerialEnv(lambda: CountingSimulator(5), 2), VecNorm()))
