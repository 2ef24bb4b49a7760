"""dm_control tasks as simulators: named leaves, endings, seeds, and states that continue bit for bit."""

import collections
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from fakes import assert_continues
from torchrl.data.specs import Bounded, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import DMControlEnv, check_env
from torchrl.envs.simulators import DMControlSimulator, dm_control_simulator
from torchrl.envs.simulators.opengl import find_opengl
from torchrl.errors import EnvError, MissingExtraError, SpecError

dm_env = pytest.importorskip("dm_env")
pytest.importorskip("dm_control")


class Scripted(dm_env.Environment):
    """Three steps; nested observations, a scalar, a flag; the discount of the last step is chosen."""

    def __init__(self, last_discount=0.0):
        self._last_discount, self._num_steps = last_discount, None
        self._random = np.random.RandomState(0)
        self._eye = np.zeros((2, 2), np.uint8)

    def observation_spec(self):
        eye = dm_env.specs.BoundedArray((2, 2), np.uint8, 0, 255, name="left")
        return {
            "height": dm_env.specs.BoundedArray((), np.float64, -1.0, 2.0),
            "eyes": {"left": eye, "open": dm_env.specs.Array((), bool)},
            "count": dm_env.specs.DiscreteArray(5),
        }

    def action_spec(self):
        return dm_env.specs.BoundedArray((2,), np.float64, [-1.0, -2.0], [1.0, 2.0])

    def _observe(self):
        self._eye[...] = self._num_steps  # the same memory every step
        eyes = {"left": self._eye, "open": True}
        return {"height": 0.5, "eyes": eyes, "count": self._num_steps}

    def reset(self):
        self._num_steps = 0
        return dm_env.restart(self._observe())

    def step(self, action):
        if self._num_steps is None:
            return self.reset()
        self.last_action = action
        self._num_steps += 1
        if self._num_steps < 3:
            return dm_env.transition(2.0, self._observe())
        return dm_env.TimeStep(dm_env.StepType.LAST, 2.0, self._last_discount, self._observe())


class Drawn(Scripted):
    """Shows what its generators drew, whatever they are; holds none if there are none.

    Args:
        generators: by the name of the attribute.
    """

    def __init__(self, **generators):
        super().__init__()
        del self._random
        self._names = list(generators)
        vars(self).update(generators)

    def observation_spec(self):
        return dm_env.specs.Array((len(self._names),), np.float64)

    def _observe(self):
        return np.array([getattr(self, name).random() for name in self._names])


class Below:
    """A wrapper as other libraries write them."""

    def __init__(self, environment):
        self._environment = environment

    def __getattr__(self, name):
        if name in ("task", "random_state", "_environment"):
            raise AttributeError(name)
        return getattr(self._environment, name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Drawn(_rng=np.random.default_rng(0)),
        lambda: Drawn(a=np.random.RandomState(0), b=random.Random(0), c=np.random.Generator(np.random.MT19937(0))),
        lambda: Below(Below(Drawn(_random=np.random.RandomState(0)))),
    ],
)
def test_whatever_generators_it_holds_are_seeded(make):
    simulator = DMControlSimulator(make())
    (first, _), (other, _), (again, _) = [simulator.reset(seed=seed) for seed in (3, 4, 3)]
    assert np.array_equal(first, again) and not (first == other).any()
    assert len(set(first.tolist())) == len(first)
    check_env(DMControlEnv(make()), num_steps=20)


def test_one_that_draws_nothing_needs_one_line():
    env = Drawn()
    env.random_state = np.random.RandomState(0)
    check_env(DMControlEnv(env), num_steps=20)


def test_observations_are_named_leaves_in_the_tasks_order():
    simulator = DMControlSimulator("humanoid", "walk")
    assert list(simulator.observation_space)[:2] == ["joint_angles", "head_height"]
    assert simulator.observation_space["head_height"].shape == (1,)
    assert simulator.action_space == spaces.Box(-1, 1, (21,), np.float32)
    observation, info = simulator.reset(seed=0)
    assert simulator.observation_space.contains(observation)
    assert info == {}
    observation, reward, terminated, truncated, _ = simulator.step(simulator.action_space.sample())
    assert simulator.observation_space.contains(observation)
    assert type(reward) is float
    assert (terminated, truncated) == (False, False)


def test_spaces_and_values_of_any_dm_env():
    simulator = DMControlSimulator(Scripted())
    space = simulator.observation_space
    assert space["height"] == spaces.Box(-1, 2, (1,), np.float64)
    assert space["eyes"]["left"] == spaces.Box(0, 255, (2, 2), np.uint8)
    assert space["eyes"]["open"] == spaces.Box(0, 1, (1,), np.uint8)
    assert space["count"] == spaces.MultiDiscrete([5])
    assert simulator.action_space == spaces.Box(np.float32([-1, -2]), np.float32([1, 2]))
    observation, _ = simulator.reset()
    assert observation["height"].tolist() == [0.5]
    assert observation["count"].tolist() == [0]
    observation, reward, *_ = simulator.step(np.array([0.5, -2], np.float32))
    assert observation["eyes"]["left"].tolist() == [[1, 1], [1, 1]]
    assert simulator.env.last_action.tolist() == [0.5, -2]
    assert reward == 2.0


Pair = collections.namedtuple("Pair", ["left", "right"])


class Nested(Scripted):
    """Observes a named tuple, whose spec is a dict, and a list; acts by a dict with a list in it."""

    def observation_spec(self):
        side = dm_env.specs.Array((2,), np.float32)
        return {"pair": {"left": side, "right": side}, "list": [side, dm_env.specs.DiscreteArray(7)]}

    def action_spec(self):
        return {"gear": dm_env.specs.DiscreteArray(3), "pull": [dm_env.specs.BoundedArray((), np.float64, -1.0, 2.0)]}

    def _observe(self):
        left = np.full(2, self._num_steps, np.float32)
        return {"pair": Pair(left, left + 10), "list": [left, self._num_steps]}


def test_nested_observations_and_actions():
    env = DMControlEnv(world := Nested())
    assert env.action_spec == Composite({"gear": Categorical(3), ("pull", "0"): Bounded(-1.0, 2.0, (1,))})
    root = env.reset()
    action = TensorDict({"gear": torch.tensor(2), "pull": {"0": torch.tensor([0.5])}})
    step = env.step(root.set("action", action))["next"]
    assert step["pair", "right"].tolist() == [11, 11] and step["list", "1"].tolist() == [1]
    assert world.last_action["gear"] == 2 and world.last_action["pull"] == [0.5]
    assert world.last_action["pull"][0].shape == () and world.last_action["pull"][0].dtype == np.float32
    check_env(env, num_steps=20)


def test_a_world_may_have_a_method_to_seed_it():
    class Seeded(Drawn):
        def seed(self, seed):
            self.drawn = np.random.default_rng(seed).random()

        def observation_spec(self):
            return dm_env.specs.Array((1,), np.float64)

        def _observe(self):
            return np.array([self.drawn])

    env = DMControlEnv(Seeded())
    env.set_seed(3)
    first = env.reset()["observation"].item()
    env.set_seed(3)
    assert env.reset()["observation"].item() == first
    check_env(env, num_steps=20)


def test_a_choice_as_action():
    class Choosing(Scripted):
        def action_spec(self):
            return dm_env.specs.DiscreteArray(4)

    simulator = DMControlSimulator(Choosing())
    assert simulator.action_space == spaces.Discrete(4)
    simulator.reset()
    simulator.step(3)
    assert simulator.env.last_action == 3


@pytest.mark.parametrize("discount", [2.0, -0.1, float("nan"), None, "1"])
def test_a_discount_that_is_none_is_refused(discount):
    simulator = DMControlSimulator(Scripted(discount))
    simulator.reset()
    simulator.step(np.zeros(2))
    simulator.step(np.zeros(2))
    with pytest.raises(EnvError, match="a discount from 0 to 1"):
        simulator.step(np.zeros(2))


@pytest.mark.parametrize(
    ("discount", "flags"),
    [(0.0, (True, False)), (torch.tensor(0.0), (True, False)), (1.0, (False, True)), (0.9, (False, True))],
)
def test_a_last_discount_of_zero_is_an_end_of_the_task_and_any_other_a_time_limit(discount, flags):
    simulator = DMControlSimulator(Scripted(discount))
    simulator.reset()
    assert [simulator.step(np.zeros(2))[2:4] for _ in range(3)] == [(False, False), (False, False), flags]


def test_the_suite_ends_by_its_time_limit():
    simulator = DMControlSimulator("cartpole", "swingup", task_kwargs={"time_limit": 0.05})
    simulator.reset(seed=0)
    assert [simulator.step(np.zeros(1))[3] for _ in range(5)] == [False] * 4 + [True]


def test_a_step_without_an_episode_is_refused():
    with pytest.raises(EnvError, match=r"reset\(\) first"):
        DMControlSimulator(Scripted()).step(np.zeros(2))


def test_a_seed_fixes_the_episode_without_rebuilding():
    simulator = DMControlSimulator("reacher", "easy")
    env = simulator.env
    first, _ = simulator.reset(seed=3)
    other, _ = simulator.reset()
    again, _ = simulator.reset(seed=3)
    assert simulator.env is env
    assert first["to_target"].tolist() == again["to_target"].tolist() != other["to_target"].tolist()
    fresh, _ = DMControlSimulator("reacher", "easy").reset(seed=3)
    assert fresh["to_target"].tolist() == first["to_target"].tolist()


def test_observations_are_not_views_of_the_environments_memory():
    simulator = DMControlSimulator(Scripted())
    first, _ = simulator.reset()
    simulator.step(np.zeros(2))
    assert first["eyes"]["left"].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DMControlSimulator("cheetha", "run"), 'a domain of the suite.*Did you mean "cheetah"'),
        (lambda: DMControlSimulator("walker", "runn"), 'a task of "walker".*Did you mean "run"'),
        (lambda: DMControlSimulator("walker"), "got None. Known: stand, walk, run"),
        (lambda: DMControlSimulator(Scripted(), "run"), "only with the name of a domain"),
        (lambda: DMControlSimulator(3), "int without reset, step"),
        (lambda: DMControlSimulator(Drawn()).reset(seed=1), "env.task.random"),
        (lambda: DMControlEnv(Drawn()).set_seed(1), r"write env.random_state = np.random.RandomState\(0\)"),
        (lambda: check_env(DMControlEnv(Drawn())), "got a Drawn without one"),
        (
            lambda: DMControlEnv(Scripted()).set_info_(env_info=TensorDict(a=1)),
            "expected simulators whose resets take options",
        ),
        (lambda: DMControlSimulator(Scripted()).reset(options={"a": 1}), "resets take options"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(EnvError, match=message):
        build()


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(MissingExtraError, match=r"\.\[dm-control\]"):
        DMControlSimulator("cheetah", "run")


def test_building_a_task_says_nothing():
    code = "from torchrl.envs.simulators import DMControlSimulator; DMControlSimulator('cheetah', 'run')"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "task",
    [
        ("cheetah", "run"),
        ("humanoid", "walk"),
        ("reacher", "easy"),  # moves its target in the model
        ("point_mass", "hard"),  # draws its tendons in the model
        ("manipulator", "bring_ball"),
        ("quadruped", "run"),
    ],
)
def test_the_state_continues_bit_for_bit(task):
    assert_continues(lambda: DMControlSimulator(*task))


def test_the_time_limit_is_part_of_the_state():
    first, second = (DMControlSimulator("cartpole", "swingup", task_kwargs={"time_limit": 0.05}) for _ in range(2))
    first.reset(seed=0)
    for _ in range(3):
        first.step(np.zeros(1))
    second.set_state(first.get_state())
    assert [second.step(np.zeros(1))[3] for _ in range(2)] == [False, True]


def test_the_state_of_any_dm_env_continues():
    first, second = DMControlSimulator(Scripted()), DMControlSimulator(Scripted(0.5))
    first.reset()
    first.step(np.zeros(2))
    second.set_state(first.get_state())
    assert second.step(np.zeros(2))[0]["count"].tolist() == [2]
    assert second.step(np.zeros(2))[2:4] == (True, False)


def test_the_state_of_another_task_is_refused():
    state = DMControlSimulator("cheetah", "run").get_state()
    with pytest.raises(EnvError, match="Humanoid.*Cheetah"):
        DMControlSimulator("humanoid", "walk").set_state(state)
    with pytest.raises(EnvError, match="this MuJoCo model"):
        DMControlSimulator("cartpole", "three_poles").set_state(DMControlSimulator("cartpole", "balance").get_state())


class FakePhysics:
    """Draws what it is told to."""

    def __init__(self, error=None):
        self.error = error

    def render(self, height=2, width=3):
        if self.error is not None:
            raise self.error
        return np.zeros((height, width, 3), np.uint8)


def drawing(error=None, **render_kwargs):
    env = Scripted()
    env.physics = FakePhysics(error)
    return DMControlSimulator(env, render_kwargs=render_kwargs)


def test_pictures_come_from_the_physics():
    assert drawing().render().shape == (2, 3, 3)
    assert drawing(height=5, width=4).render().shape == (5, 4, 3)


@pytest.mark.parametrize("error", [RuntimeError("No OpenGL rendering backend is available."), ImportError("no EGL")])
def test_drawing_without_opengl_says_what_to_set(error):
    with pytest.raises(EnvError, match=f"{error}.*MUJOCO_GL=egl"):
        drawing(error).render()


def test_arguments_that_the_physics_refuses_keep_its_message():
    with pytest.raises(TypeError, match="heigth"):
        drawing(heigth=3).render()
    with pytest.raises(ValueError, match="no such camera"):
        drawing(ValueError("no such camera")).render()


def test_an_environment_without_physics_cannot_be_drawn():
    with pytest.raises(EnvError, match="an environment with physics, got Scripted"):
        DMControlSimulator(Scripted()).render()


def run_with_opengl(script, backend="egl"):
    """Run a script in a process of its own: MuJoCo aborts the process if it is asked again after it found no OpenGL."""
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name and name != "MUJOCO_GL"}
    if backend is not None:
        environment["MUJOCO_GL"] = backend
    root = Path(__file__).parents[3]
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_a_task_of_the_suite_is_drawn_by_what_is_found():
    probe = "from dm_control import suite; suite.load('cartpole', 'swingup').physics.render(height=8, width=8)"
    if run_with_opengl(probe).returncode:
        pytest.skip("MuJoCo finds no EGL on this machine")
    script = """
import numpy as np
from torchrl.envs.simulators import DMControlSimulator, Pixels
def make(**options):
    return DMControlSimulator("cartpole", "swingup", **options)
seen = Pixels(make(render_kwargs={"height": 24, "width": 32, "camera_id": 0}), pixels_only=False)
blind = make()
first, _ = seen.reset(seed=1)
assert first["pixels"].shape == (24, 32, 3) and first["pixels"].std() > 0
assert np.array_equal(first["position"], blind.reset(seed=1)[0]["position"])
for _ in range(20):
    after, other = seen.step(np.ones(1)), blind.step(np.ones(1))
    assert np.array_equal(after[0]["position"], other[0]["position"]) and after[1] == other[1]
assert not np.array_equal(first["pixels"], after[0]["pixels"])
other = Pixels(make(render_kwargs={"height": 24, "width": 32, "camera_id": 0}))
other.set_state(seen.get_state())
assert np.array_equal(other.step(np.ones(1))[0]["pixels"], seen.step(np.ones(1))[0]["pixels"])
print("drawn")
"""
    result = run_with_opengl(script, backend=None)
    assert "drawn" in result.stdout, result.stderr


needs_opengl = pytest.mark.skipif(find_opengl() is None, reason="there is no OpenGL to draw with")


@needs_opengl
def test_pictures_are_those_of_the_raw_library_from_a_seed_to_the_last_step():
    suite = pytest.importorskip("dm_control.suite")
    seen = {"height": 24, "width": 32, "camera_id": 0}
    options = {"frame_skip": 2, "max_episode_steps": 3, "from_pixels": True, "pixels_only": True}
    ours = dm_control_simulator("cartpole", "swingup", **options, render_kwargs=seen)
    raw = suite.load("cartpole", "swingup")
    for seed in (5, 6):
        raw.task.random.seed(seed)
        raw.reset()
        observation, _ = ours.reset(seed=seed)
        for step in range(1, 4):
            assert np.array_equal(observation["pixels"], raw.physics.render(**seen))
            action = np.array([0.5], np.float32)
            observation, reward, terminated, truncated, _ = ours.step(action)
            assert reward == pytest.approx(raw.step(action).reward + raw.step(action).reward)
            assert (terminated, truncated) == (False, step == 3)
        assert np.array_equal(observation["pixels"], raw.physics.render(**seen))  # the true last observation
    ours.close()


def test_without_opengl_the_variable_to_set_is_named():
    pytest.importorskip("mujoco")
    script = """
from torchrl.envs import DMControlEnv
from torchrl.errors import EnvError
try:
    DMControlEnv("cartpole", "swingup", from_pixels=True)
except EnvError as error:
    print(error)
"""
    result = run_with_opengl(script, backend="disable")
    assert "expected a picture drawn by OpenGL" in result.stdout and "MUJOCO_GL=egl" in result.stdout, result.stderr


def test_a_task_that_takes_opengl_for_its_states_says_so():
    script = """
from torchrl.envs import DMControlEnv
from torchrl.errors import EnvError
try:
    DMControlEnv("quadruped", "escape").reset()
except EnvError as error:
    print(error)
"""
    result = run_with_opengl(script, backend="disable")
    expected = "expected OpenGL, by which this task makes its terrain even where no picture is observed"
    assert expected in result.stdout and "MUJOCO_GL=egl" in result.stdout, result.stderr


def test_a_system_that_is_drawn_when_it_is_built_is_the_same_in_every_row():
    def springs(env):
        return [simulator.env.physics.model.jnt_stiffness.tolist() for simulator in env.simulators]

    first, again = DMControlEnv("lqr", "lqr_2_1", num_envs=2), DMControlEnv("lqr", "lqr_2_1")
    (one, two), (three,) = springs(first), springs(again)
    assert one == two == three
    assert springs(DMControlEnv("lqr", "lqr_2_1", task_kwargs={"random": 3})) != [one]
    starts = [env.reset()["position"] for env in (first, again)]
    assert not torch.equal(starts[0][0], starts[0][1]) and not torch.equal(starts[0][0], starts[1])  # unseeded
    first.set_seed(7)
    seeded = first.reset()["position"]
    first.set_seed(7)
    assert torch.equal(first.reset()["position"], seeded)


def test_bounds_of_an_action_are_the_tasks_own_and_those_at_ten_billion_are_none():
    assert DMControlEnv("lqr", "lqr_6_2").action_spec == Unbounded((2,))
    leg = [(-1.0, 1.0), (-1.0, 1.1), (-0.8, 0.8)]  # yaw, lift, extend
    low, high = zip(*leg * 4, strict=True)
    assert DMControlEnv("quadruped", "run").action_spec == Bounded(low, high)

    class HalfBounded(Scripted):
        def action_spec(self):
            return dm_env.specs.BoundedArray((2,), np.float64, [-1e10, -2.0], [1.0, 1e11])

    assert DMControlSimulator(HalfBounded()).action_space == spaces.Box(
        np.float32([-np.inf, -2]), np.float32([1, np.inf])
    )


class Told(Scripted):
    """Observes text and a choice; an action is a whole number from 1 to 3."""

    def observation_spec(self):
        return {"text": dm_env.specs.StringArray(()), "count": dm_env.specs.DiscreteArray(5)}

    def action_spec(self):
        return dm_env.specs.BoundedArray((), np.int32, 1, 3)

    def _observe(self):
        return {"text": "go", "count": self._num_steps}


def test_text_is_left_out_by_name_and_choices_stay_choices():
    assert DMControlSimulator(Told()).observation_space["text"].max_length > 1000
    with pytest.raises(SpecError, match=r"'text'.*got Text.*leave_out=\['text'\]"):
        DMControlEnv(Told())
    env = DMControlEnv(Told(), leave_out=["text"])
    assert env.observation_spec["count"] == MultiCategorical([5])
    assert env.rollout(3)["count"].tolist() == [[0], [1], [2]]


def test_an_action_of_whole_numbers_stays_one():
    env = DMControlEnv(world := Told(), leave_out=["text"])
    assert env.action_spec == Bounded(1, 3, (1,), torch.int32)
    env.step(env.reset().set("action", torch.tensor([2], dtype=torch.int32)))
    assert world.last_action == 2 and world.last_action.dtype == np.int32


def test_whole_numbers_from_zero_are_choices():
    world = Told()
    world.action_spec = lambda: dm_env.specs.BoundedArray((2,), np.int32, 0, [1, 4])
    env = DMControlEnv(world, leave_out=["text"])
    assert env.action_spec == MultiCategorical([2, 5])
    env.step(env.reset().set("action", torch.tensor([1, 4])))
    assert world.last_action.tolist() == [1, 4] and world.last_action.dtype == np.int32
    world.action_spec = lambda: dm_env.specs.BoundedArray((2,), np.int32, 0, 2**31 - 1)
    assert DMControlEnv(world, leave_out=["text"]).action_spec == Bounded(0, 2**31 - 1, (2,), torch.int32)


def test_an_argument_that_the_task_does_not_take_is_refused():
    with pytest.raises(EnvError, match=r'task_kwargs: expected arguments that "balance" takes, got \[\'wind\'\]'):
        DMControlSimulator("cartpole", "balance", task_kwargs={"wind": True})


class Rewarded(Scripted):
    """Gives the reward it is told to."""

    def __init__(self, value, **specs):
        super().__init__()
        self.value, self.specs = value, specs

    def step(self, action):
        return super().step(action)._replace(reward=self.value)

    def reward_spec(self):
        return self.specs.get("reward", super().reward_spec())

    def action_spec(self):
        return self.specs.get("action", super().action_spec())

    def observation_spec(self):
        return self.specs.get("observation", super().observation_spec())


def test_a_reward_of_one_entry_is_a_number_and_others_are_refused():
    assert DMControlEnv(Rewarded(np.array([2.0]))).rollout(2)["next", "reward"].tolist() == [[2.0], [2.0]]
    with pytest.raises(EnvError, match="reward of row 0: expected a float, got array.*Weigh several objectives"):
        DMControlEnv(Rewarded(np.zeros(2))).rollout(2)
    with pytest.raises(EnvError, match="reward of row 0: expected a float, got None"):
        DMControlEnv(Rewarded(None)).rollout(2)


ARRAY = dm_env.specs.Array((2,), np.float64)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rewarded(0.0, reward=ARRAY), r"one reward a step, got Rewarded with rewards of shape \[2\]. Weigh"),
        (lambda: Rewarded(0.0, action={"a": None}), "specs of arrays, or .* got a NoneType for action.a. Describe it"),
        (lambda: Rewarded(0.0, observation={"a": (50,)}), r"specs of arrays.* got 50 for observation.a\[0\]"),
        (lambda: Scripted, r"got the class Scripted. Build one: DMControlEnv\(Scripted\(...\)\)"),
        (lambda: type("Pool", (Scripted,), {"__module__": "envpool.python"})(), r"EnvPoolEnv\(name, num_envs\)"),
    ],
)
def test_what_cannot_be_presented_is_told_what_to_write(build, message):
    with pytest.raises(EnvError, match=f"DMControlSimulator: expected .*{message}"):
        DMControlEnv(build())
