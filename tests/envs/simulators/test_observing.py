"""Entries of ``info`` and pictures as observations."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fakes import ActionEchoSimulator, CountingEnv, CountingSimulator, assert_continues
from torchrl.envs import GymEnv, GymVectorEnv, SerialEnv
from torchrl.envs.simulators import GymSimulator, InfoKeys, LeaveOut, Pixels, Simulator, TimeLimit
from torchrl.errors import ConfigError, EnvError, SpecError

UNBOUNDED = spaces.Box(-np.inf, np.inf, ())
MASK = spaces.Box(0, 1, (2,), np.bool_)


class Telling(CountingEnv):
    """Tells the square of its count, after a reset only if asked to, and which of two choices is legal."""

    def __init__(self, at_reset=True, form="box"):
        super().__init__([3, 2], form=form)
        self.at_reset = at_reset

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed, options=options)
        return observation, self._told() if self.at_reset else {}

    def step(self, action):
        *result, _ = super().step(action)
        return *result, self._told()

    def _told(self):
        legal = np.array([self.num_steps % 2, 1], np.int8)
        return {"square": float(self.num_steps**2), "mask": legal, "deep": {"index": np.float64(self.num_steps)}}


class TestInfoKeys:
    def test_entries_stand_beside_the_observation(self):
        simulator = InfoKeys(Telling(), {"square": UNBOUNDED})
        assert simulator.observation_space == spaces.Dict(
            {"observation": Telling().observation_space, "square": UNBOUNDED}
        )
        observation, info = simulator.reset(seed=0)
        assert (observation["observation"].tolist(), observation["square"]) == ([0], 0)
        assert set(info) == {"square", "mask", "deep"}
        for count in (1, 2):
            observation, reward, *_ = simulator.step(0)
            assert (observation["observation"].tolist(), observation["square"], reward) == ([count], count**2, 0)

    @pytest.mark.parametrize(("ending", "flags"), [("terminated", (True, False)), ("truncated", (False, True))])
    def test_endings_are_the_simulators(self, ending, flags):
        class Ending(CountingSimulator):
            def step(self, action):
                *result, _ = super().step(action)
                return *result, {"count": float(self.num_steps)}

        simulator = InfoKeys(Ending(2, ending=ending), {"count": UNBOUNDED}, defaults={"count": 0.0})
        simulator.reset()
        assert [simulator.step(0)[2:4] for _ in range(2)] == [(False, False), flags]

    def test_a_dict_keeps_its_keys_and_order_and_entries_may_be_nested(self):
        deep = spaces.Dict({"index": UNBOUNDED})
        simulator = InfoKeys(Telling(form="dict"), {"square": UNBOUNDED, "extra": UNBOUNDED}, defaults={"extra": 1.5})
        assert list(simulator.observation_space) == ["deep", "episode", "square", "extra"]
        assert simulator.reset()[0]["extra"] == 1.5
        simulator = InfoKeys(Telling(), {"deep": deep})
        simulator.reset()
        assert simulator.step(0)[0]["deep"] == {"index": 1}

    @pytest.mark.parametrize("form", ["box", "tuple"])
    def test_another_space_goes_under_observation(self, form):
        simulator = InfoKeys(Telling(form=form), {"square": UNBOUNDED})
        assert simulator.observation_space.contains(
            {**simulator.reset()[0], "square": np.zeros((), np.float32)}
        )  # a python float is not in a Box, but can be written to one

    def test_zeros_and_ones_become_bools_where_bools_are_due(self):
        simulator = InfoKeys(Telling(), {"mask": MASK})
        first = simulator.reset()[0]["mask"]
        assert first.dtype == np.bool_ and first.tolist() == [False, True]
        assert simulator.step(0)[0]["mask"].tolist() == [True, True]
        simulator = InfoKeys(Telling(), {"square": spaces.Box(0, 1, (), np.bool_)})
        simulator.reset()
        simulator.step(0)
        assert simulator.step(0)[0]["square"] == 4.0  # no bool: left as it is, for the border to refuse

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
    @pytest.mark.parametrize(
        "space", [MASK, spaces.MultiBinary(2), spaces.Box(0, 1, (2,), np.int8), spaces.MultiDiscrete([2, 2])]
    )
    def test_masks_of_any_dtype_go_into_a_space_of_bits(self, space, dtype):
        world = Telling()
        world._told = lambda: {"mask": np.array([0, 1], dtype)}
        env = SerialEnv(lambda: InfoKeys(world, {"mask": space}))
        mask = env.reset()["mask"]
        assert mask.tolist() == [0, 1] and mask.dtype == env.observation_spec["mask"].dtype
        world._told = lambda: {"mask": np.array([0.5, np.nan])}
        with pytest.raises(SpecError, match="observation 'mask' of row 0: .*got shape .* and dtype float64"):
            env.reset()

    def test_a_missing_entry_is_an_error_that_names_the_default(self):
        simulator = InfoKeys(Telling(at_reset=False), {"square": UNBOUNDED})
        with pytest.raises(EnvError, match=r"an info with 'square', got \[\]. .*defaults=\{'square': \.\.\.\}"):
            simulator.reset()

    def test_a_default_stands_for_a_missing_entry_only(self):
        simulator = InfoKeys(Telling(at_reset=False), {"square": UNBOUNDED}, defaults={"square": -1.0})
        assert [simulator.reset()[0]["square"], simulator.step(0)[0]["square"]] == [-1, 1]
        assert simulator.reset()[0]["square"] == -1

    @pytest.mark.parametrize(
        ("keys", "defaults", "message"),
        [
            ({"observation": UNBOUNDED}, None, "names other than .*got observation"),
            ({"square": UNBOUNDED}, {"sqare": 0.0}, r"defaults for \['square'\], got 'sqare'"),
            ({"mask": MASK}, {"mask": [True]}, "default of 'mask': expected a value in Box"),
            ({"lives": spaces.Discrete(3)}, {"lives": 3}, "default of 'lives': expected a value in Discrete"),
        ],
    )
    def test_names_and_defaults_that_do_not_fit_are_refused(self, keys, defaults, message):
        with pytest.raises(ConfigError, match=message):
            InfoKeys(Telling(), keys, defaults=defaults)

    def test_the_state_is_the_simulators(self):
        class Told(CountingSimulator):
            def reset(self, *, seed=None, options=None):
                return super().reset(seed=seed)[0], {"count": 0.0}

            def step(self, action):
                *result, _ = super().step(action)
                return *result, {"count": float(self.num_steps)}

        assert_continues(lambda: InfoKeys(Told([3, 4]), {"count": UNBOUNDED}))


class TestPixels:
    def test_pictures_alone(self):
        simulator = Pixels(CountingEnv())
        assert simulator.observation_space == spaces.Dict({"pixels": spaces.Box(0, 255, (2, 3, 3), np.uint8)})
        assert simulator.reset()[0]["pixels"].max() == 0
        observation, *_ = simulator.step(0)
        assert list(observation) == ["pixels"] and observation["pixels"].min() == 1

    @pytest.mark.parametrize(("form", "keys"), [("box", ["observation"]), ("dict", ["deep", "episode"])])
    def test_pictures_beside_other_observations(self, form, keys):
        simulator = Pixels(CountingEnv(form=form), "camera", pixels_only=False)
        assert list(simulator.observation_space) == [*keys, "camera"]
        assert list(simulator.reset()[0]) == [*keys, "camera"]
        observation, *_ = simulator.step(0)
        assert observation["camera"].min() == 1 and list(observation) == [*keys, "camera"]

    def test_the_last_picture_of_an_episode_is_its_own(self):
        simulator = Pixels(CountingEnv(2))
        simulator.reset()
        simulator.step(0)
        observation, _, terminated, *_ = simulator.step(0)
        assert terminated and observation["pixels"].min() == 2

    def test_drawing_goes_through_wrappers(self):
        simulator = TimeLimit(Pixels(TimeLimit(CountingEnv(9), 4)), 3)
        simulator.reset()
        assert simulator.render().shape == (2, 3, 3)

    def test_a_taken_name_is_refused(self):
        with pytest.raises(ConfigError, match="names other than"):
            Pixels(CountingEnv(form="dict"), "episode", pixels_only=False)
        assert list(Pixels(CountingEnv(form="dict"), "episode").observation_space) == ["episode"]

    @pytest.mark.parametrize("picture", [None, np.zeros((2, 3)), np.zeros((2, 3, 3)), np.zeros((0, 3, 3), np.uint8)])
    def test_what_is_no_picture_is_refused(self, picture):
        class Odd(CountingSimulator):
            def render(self):
                return picture

        with pytest.raises(EnvError, match=r"Pixels: expected a picture, uint8 \[H, W, 3\], got .* from Odd"):
            Pixels(Odd())

    def test_a_simulator_that_cannot_draw_is_refused(self):
        with pytest.raises(EnvError, match="ActionEchoSimulator: expected a simulator with render"):
            Pixels(ActionEchoSimulator())
        with pytest.raises(EnvError, match="CountingSimulator: expected a simulator with render"):
            Pixels(TimeLimit(CountingSimulator(), 3))

    def test_drawing_changes_nothing_and_the_state_continues(self):
        pytest.importorskip("pygame")  # gymnasium draws classic control with it

        def make(pixels_only):
            simulator = GymSimulator("CartPole-v1", {"render_mode": "rgb_array"})
            return Pixels(simulator, pixels_only=pixels_only)

        seen, blind = make(False), GymSimulator("CartPole-v1")
        assert np.array_equal(seen.reset(seed=3)[0]["observation"], blind.reset(seed=3)[0])
        for action in (0, 1, 1, 0):
            assert np.array_equal(seen.step(action)[0]["observation"], blind.step(action)[0])
        assert_continues(lambda: make(True), steps=12, warm_up=6)


def test_choices_in_info_that_start_elsewhere_are_counted_from_0():
    class Lettered(CountingEnv):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed, options=options)[0], {"floor": 5, "deep": {"pair": np.array([1, 3])}}

    keys = {
        "floor": spaces.Discrete(3, start=4),
        "deep": spaces.Dict(pair=spaces.MultiDiscrete([2, 2], start=[1, 2])),
    }
    env = GymEnv(Lettered([3, 2]), info_keys=keys)
    assert env.observation_spec["floor"].n == 3
    root = env.reset()
    assert root["floor"].item() == 1 and root["deep", "pair"].tolist() == [0, 1]


class Speaking(Simulator):
    """Observes numbers beside text, in a dict within a dict, or in a tuple."""

    action_space = spaces.Discrete(2)

    def __init__(self, form="dict"):
        number, text = spaces.Box(0.0, 9.0, (1,)), spaces.Text(20)
        pair = spaces.Dict([("text", text), ("at", number)])
        forms = {
            "dict": spaces.Dict([("mission", text), ("goal", pair), ("speed", number)]),
            "tuple": spaces.Tuple([number, text, spaces.Dict([("deep", number), ("word", text)])]),
        }
        self.observation_space = forms[form]
        self.form = form

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        return self._observe(), 0.0, self.t == 3, False, {}

    def _observe(self):
        at, after = np.full(1, self.t, np.float32), np.full(1, self.t + 1, np.float32)
        if self.form == "tuple":
            return at, "look", {"deep": after, "word": "up"}
        return {"mission": "go", "goal": {"text": "there", "at": at}, "speed": after}


class TestLeaveOut:
    def test_entries_go_by_name_and_the_rest_keeps_its_order(self):
        simulator = LeaveOut(Speaking(), ["mission", "goal/text"])
        assert list(simulator.observation_space) == ["goal", "speed"]
        assert list(simulator.observation_space["goal"]) == ["at"]
        observation, _ = simulator.reset(seed=0)
        assert observation == {"goal": {"at": [0]}, "speed": [1]}
        observation, reward, terminated, truncated, info = simulator.step(1)
        assert observation == {"goal": {"at": [1]}, "speed": [2]}
        assert (reward, terminated, truncated, info) == (0.0, False, False, {})

    def test_a_level_goes_whole_and_one_that_becomes_empty_goes_too(self):
        for names in (["mission", "goal"], ["mission", ("goal", "text"), "goal/at"]):
            simulator = LeaveOut(Speaking(), names)
            assert list(simulator.observation_space) == ["speed"]
            assert simulator.reset()[0] == {"speed": [1]}

    def test_entries_of_a_tuple_keep_the_names_that_they_have(self):
        simulator = LeaveOut(Speaking("tuple"), ["1", "2/word"])
        assert list(simulator.observation_space) == ["0", "2"]
        assert simulator.reset()[0] == {"0": [0], "2": {"deep": [1]}}
        inner = LeaveOut(Speaking("tuple"), ["2/word"])
        assert isinstance(inner.observation_space, spaces.Tuple)
        assert inner.reset()[0] == ([0], "look", {"deep": [1]})

    def test_the_env_shows_what_is_left(self):
        env = GymEnv(Gym(), leave_out=["mission", "goal/text"])
        assert env.rollout(2)["goal", "at"].tolist() == [[0.0], [1.0]]
        assert set(env.observation_spec.keys()) == {"goal", "speed"}

    @pytest.mark.parametrize("mode", ["sync", "same step"])
    def test_a_vector_env_shows_what_is_left(self, mode):
        modes = {"sync": AutoresetMode.NEXT_STEP, "same step": AutoresetMode.SAME_STEP}
        worlds = SyncVectorEnv([Gym, Gym], autoreset_mode=modes[mode])
        batch = GymVectorEnv(worlds, leave_out=["mission", "goal/text"]).rollout(4)
        assert batch["speed"].squeeze(-1).tolist() == [[1, 2, 3, 1]] * 2
        assert batch["next", "speed"].squeeze(-1).tolist() == [[2, 3, 4, 2]] * 2

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (
                ["goals"],
                r"expected entries of \['goal', 'goal/at', .*\], got 'goals'. Did you mean 'goal'",
            ),
            (["mission", "goal", "speed"], "expected something that stays"),
            ("mission", r"Write \['mission'\]"),
        ],
    )
    def test_mistakes_are_refused(self, names, message):
        with pytest.raises(ConfigError, match=f"^leave_out: .*{message}"):
            LeaveOut(Speaking(), names)


class Gym(gymnasium.Env):
    """The same simulator as gymnasium's own."""

    def __init__(self):
        self.world = Speaking()
        self.observation_space, self.action_space = self.world.observation_space, self.world.action_space

    def reset(self, *, seed=None, options=None):
        return self.world.reset()

    def step(self, action):
        return self.world.step(action)
