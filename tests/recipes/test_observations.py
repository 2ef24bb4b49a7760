"""What the networks of a run see: whatever the space, one vector or one picture, without a word from the user."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from cases.examples import ALONE, load, settings_of
from torchrl.data.specs import Bounded
from torchrl.errors import ConfigError, SpecError
from torchrl.recipes import is_choice, require_choice
from torchrl.recipes.observations import describe_observations, sees_images

SMALL = ["--num_envs=2", "--num_cells", "8", "8", "--no-progress_bar"]
REPLAY = ["--buffer_size=96", "--batch_size=8", "--total_frames=32", "--frames_per_batch=8", "--start_frames=8"]
REPLAY += ["--updates_per_frame=0.25"]
ON_POLICY = ["--frames_per_batch=16", "--total_frames=16"]
LIMITS = np.iinfo(np.int64)


class World(gymnasium.Env):
    """Shows what it is told to, one sample after the other; episodes have four steps."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 4, False, {}


def cells(high, *shape):
    return spaces.Box(0, high, shape, np.uint8)


KINEMATICS = spaces.Box(-np.inf, np.inf, (5, 5), np.float32)
MAP = {"direction": spaces.Discrete(4), "image": cells(255, 7, 7, 3)}
MISSION = {"mission": spaces.Text(100), "goal": spaces.Dict(words=spaces.Text(9), at=spaces.Discrete(3))}
GOAL = {"goal": spaces.Dict(words=spaces.Text(9)), "image": cells(10, 7, 7, 3)}
WORLDS = {  # space, the size of the vector, what is said of it
    "Lake": (spaces.Discrete(16), 16, "observation [] one-hot"),
    "Shifted": (spaces.Discrete(3, start=5), 3, "observation [] one-hot"),
    "Cards": (
        spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)]),
        45,
        "0 [] one-hot; 1 [] one-hot; 2 [] one-hot",
    ),
    "Dice": (spaces.MultiDiscrete([[2, 3], [4, 2]]), 11, "observation [2, 2] one-hot"),
    "Lamps": (spaces.MultiBinary([2, 3]), 6, "observation [2, 3] as bits, flattened"),
    "Flags": (spaces.Box(0, 1, (3,), np.bool_), 3, "observation [3] as bits"),
    "Integers": (spaces.Box(-3, 5, (4,), np.int32), 4, "observation [4] scaled by its bounds"),
    "Unlimited": (spaces.Box(LIMITS.min, LIMITS.max, (2,), np.int64), 2, "observation [2] scaled by its bounds"),
    "Scalar": (spaces.Box(0.0, 1.0, ()), 1, "observation [] flattened"),
    "Window": (KINEMATICS, 25, "observation [5, 5] flattened"),
    "Symbols": (cells(10, 7, 7, 3), 147, "observation [7, 7, 3] scaled by its bounds, flattened"),
    "Map": (
        spaces.Dict(MAP),
        151,
        "direction [] one-hot; image [7, 7, 3] scaled by its bounds, flattened",
    ),
    "Grid": (cells(10, 50, 60, 3), 9000, "observation [50, 60, 3] scaled by its bounds, flattened"),
    "Memory": (cells(255, 128), 128, "observation [128] scaled by its bounds"),
    "Mixed": (
        spaces.Dict(speed=spaces.Box(-1.0, 1.0, (2,)), gear=spaces.Discrete(3)),
        5,
        "speed [2]; gear [] one-hot",
    ),
    "Half": (spaces.Box(-1.0, 1.0, (2, 2), np.float16), 4, "observation [2, 2] in float32, flattened"),
    "Halves": (
        spaces.Dict(a=spaces.Box(-1.0, 1.0, (2,), np.float16), b=spaces.Box(-1.0, 1.0, (3,))),
        5,
        "a [2] in float32; b [3]",
    ),
    "Vector": (spaces.Box(-1.0, 1.0, (3,)), 3, None),
}
PICTURES = {
    "Eye": (cells(255, 50, 60, 3), [4, 84, 84], "observation [50, 60, 3]"),
    "Grey": (cells(255, 84, 84), [4, 84, 84], "observation [84, 84]"),
    "Camera": (spaces.Dict(camera=cells(255, 36, 36, 1)), [4, 84, 84], "camera [36, 36, 1]"),
}
TEXTS = {"Talking": spaces.Dict(MAP | MISSION), "Words": spaces.Dict(GOAL)}
FIRST, STACKED, LARGE = cells(255, 3, 50, 60), cells(255, 4, 84, 84, 3), spaces.Discrete(2**16 + 1)
REFUSED = {"First": FIRST, "Stacked": STACKED, "Large": LARGE}
BOTH = {"Both": spaces.Dict(eye=cells(255, 40, 40, 3), speed=spaces.Box(-1.0, 1.0, (2,)))}
SPACES = {name: space for name, (space, *_) in (WORLDS | PICTURES).items()} | TEXTS | REFUSED | BOTH
for name, space in SPACES.items():
    for suffix, actions in (("", spaces.Discrete(2)), ("Pushed", spaces.Box(-1.0, 1.0, (1,)))):
        kwargs = {"observation_space": space, "action_space": actions}
        gymnasium.register(f"seen/{name}{suffix}-v0", World, kwargs=kwargs, disable_env_checker=True)


@pytest.fixture
def env_of(make_env):
    """Build the environment of flags, and return it with its settings."""

    def make(name, *flags):
        flags = [f"--env_name=seen/{name}-v0", *flags]
        return make_env(*flags), settings_of("ppo", *flags).environment

    return make


@pytest.mark.parametrize("name", WORLDS)
def test_every_space_becomes_a_vector_and_it_is_said_how(name, env_of):
    _, size, said = WORLDS[name]
    env, settings = env_of(name)
    ((key, leaf),) = env.observation_spec.leaves()
    assert key == "observation" and leaf.shape == (2, size) and leaf.dtype == torch.float32
    batch = env.rollout(6)
    for values in (batch["observation"], batch["next", "observation"]):
        for step in values.unbind(1):
            leaf.assert_contains(step)
    assert describe_observations(settings, env) == (said and f"observes {size} numbers: {said}")
    assert not sees_images(env)


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_over_their_whole_range_and_large_enough_are_a_picture(name, env_of):
    _, shape, said = PICTURES[name]
    env, settings = env_of(name)
    assert env.observation_spec["observation"] == Bounded(0, 255, (2, *shape), torch.uint8)
    assert sees_images(env)
    told = f"observes a picture: {said} as {shape} (--pictures=none takes its numbers)"
    assert describe_observations(settings, env) == told


def test_a_flag_decides_what_is_a_picture(env_of):
    assert env_of("Eye", "--pictures=none")[0].observation_spec["observation"] == Bounded(0.0, 1.0, (2, 9000))
    symbols, _ = env_of("Grid", "--pictures=observation")
    assert symbols.observation_spec["observation"].shape == (2, 4, 84, 84) and sees_images(symbols)
    assert env_of("Both", "--pictures=none")[0].observation_spec["observation"].shape == (2, 4802)
    assert env_of("Both", "--leave_out", "speed")[0].observation_spec["observation"].shape == (2, 4, 84, 84)
    assert env_of("Map", "--leave_out", "direction", "--pictures=image")[0].observation_spec["observation"].ndim == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["Both"], r"an image and nothing beside it, got \['eye', 'speed'\]. --leave_out speed"),
        (["First"], r"an image \[H, W, C\] with 1, 3 or 4 channels, got 'observation' of shape \[3, 50, 60\], uint8"),
        (["Stacked"], r"an image .* got 'observation' of shape \[4, 84, 84, 3\], uint8. --pictures=none"),
        (["Lake", "--pictures=observation"], r"an image .* got 'observation' of shape \[\], int64"),
        (["Eye", "--pictures=pixels"], r"auto, none or one of \['observation'\], got 'pixels'"),
        (["Large"], "at most 65,536 choices to write one-hot, got 65,537 in 'observation'. Leave it out"),
        (["Map", "--leave_out", "imag"], r"entries of \['direction', 'image'\], got 'imag'. Did you mean 'image'"),
        (["Lake", "--leave_out", "x"], r"entries of \[\], got 'x'"),
        (["Map", "--leave_out", "image", "direction"], "something that stays"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_write(flags, message, env_of):
    with pytest.raises(ConfigError, match=message):
        env_of(*flags)


def test_text_is_refused_by_name_and_left_out_by_name(env_of):
    with pytest.raises(SpecError, match=r"'goal/words'.* got Text.*leave_out=\['goal/words'\].*--leave_out goal/words"):
        env_of("Talking")
    env, settings = env_of("Talking", "--leave_out", "mission", "goal/words")
    assert env.observation_spec["observation"].shape == (2, 154)
    told = "observes 154 numbers: direction [] one-hot; goal/at [] one-hot"
    assert describe_observations(settings, env).startswith(told)
    assert env_of("Words", "--leave_out", "goal")[0].observation_spec["observation"].shape == (2, 147)


def test_numbers_of_several_steps_are_stacked(env_of):
    assert env_of("Lake", "--frame_stack=3")[0].observation_spec["observation"].shape == (2, 48)
    env, _ = env_of("Lamps", "--frame_stack=2")
    batch = env.rollout(3)
    assert torch.equal(batch["next", "observation"][..., :6], batch["observation"][..., 6:])


def test_two_maps_that_differ_are_seen_to_differ(env_of):
    env, _ = env_of("Symbols")
    seen = env.rollout(20)["observation"].flatten(0, 1)
    assert len(seen.unique(dim=0)) == 40 and set((seen * 10).unique().round(decimals=4).tolist()) == set(range(11))


ALGORITHMS = {
    "ppo": ON_POLICY,
    "a2c": ON_POLICY,
    "impala": [*ON_POLICY, *ALONE["impala"]],
    "reinforce": ON_POLICY,
    "dqn": REPLAY,
    "r2d2": [*REPLAY, "--sub_traj_len=4", "--burn_in=1"],
    "sac": REPLAY,
    "ddpg": REPLAY,
    "td3": [*REPLAY, "--actor_interval=1"],
    "redq": [*REPLAY, "--num_q_values=3", "--actor_interval=1"],
}


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        *((algorithm, "Map") for algorithm in ALGORITHMS),
        *(("ppo", name) for name in ("Lake", "Cards", "Lamps", "Window")),
    ],
)
def test_every_algorithm_trains_on_every_kind(algorithm, name, make_agent):
    pushed = "Pushed" if algorithm in ("ddpg", "td3", "redq") else ""
    agent = make_agent(algorithm, f"--env_name=seen/{name}{pushed}-v0", *SMALL, *ALGORITHMS[algorithm])
    agent.evaluator.close()
    agent.evaluator = None
    before = [parameter.clone() for parameter in agent.loss.trainable_parameters()]
    agent.train()
    after = list(agent.loss.trainable_parameters())
    assert all(value.isfinite().all() for value in after) and not all(map(torch.equal, before, after))


def test_the_command_says_what_it_observes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--env_name=seen/Map-v0", *SMALL, *ON_POLICY, "--record_episodes=1", "--eval_episodes=1"]
    load("ppo").main(flags)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "observes 151 numbers: direction [] one-hot; image [7, 7, 3] scaled by its bounds, flattened"


def test_several_bits_at_once_are_not_one_choice(env_of):
    gymnasium.register(
        "seen/Switches-v0",
        World,
        kwargs={"observation_space": spaces.Discrete(3), "action_space": spaces.Box(0, 1, (3,), np.bool_)},
        disable_env_checker=True,
    )
    env, _ = env_of("Switches")
    assert not is_choice(env) and is_choice(env_of("Lake")[0])
    with pytest.raises(ConfigError, match="networks: expected one choice as the action"):
        require_choice(env)


def test_velocities_are_hidden_and_frames_without_them_are_stacked(make_env):
    env = make_env("--env_name=Pendulum-v1", "--mask_velocity", "--frame_stack=2")
    settings = settings_of("ppo", "--env_name=Pendulum-v1", "--mask_velocity", "--frame_stack=2").environment
    assert describe_observations(settings, env) == "observes 4 numbers: observation [3] without velocities"
    env.set_seed(0)
    batch = env.rollout(3)
    assert batch["observation"].shape == (2, 3, 4)
    assert torch.equal(batch["observation"][:, 1, :2], batch["observation"][:, 0, 2:])  # cosine and sine
    assert (batch["observation"].unflatten(-1, (2, 2)).square().sum(-1) - 1).abs().max() < 1e-6


def test_velocities_are_hidden_in_processes_too(make_env):
    flags = ["--env_name=MountainCar-v0", "--mask_velocity", "--env_workers=2"]
    assert make_env(*flags).observation_spec["observation"].shape == (2, 1)


@pytest.mark.parametrize(
    ("flags", "got"),
    [
        (["--env_name=Taxi-v4"], "got Taxi-v4"),
        (["--env_library=toy", "--env_name=Matching"], "got a task of another kind"),
    ],
)
def test_velocities_that_are_not_known_are_refused_with_what_to_write(flags, got, make_env):
    message = f"--mask_velocity: expected a vector of one of Acrobot, .*{got}. --leave_out velocity leaves out"
    with pytest.raises(ConfigError, match=message):
        make_env(*flags, "--mask_velocity")


def test_the_memory_task_of_minigrid_trains_without_its_text(make_env, make_agent):
    pytest.importorskip("minigrid")
    flags = ["--env_name=MiniGrid-MemoryS11-v0", "--leave_out", "mission", "--norm_observations"]
    env, settings = make_env(*flags), settings_of("ppo", *flags).environment
    said = "observes 151 numbers: direction [] one-hot; image [7, 7, 3] scaled by its bounds, flattened"
    assert describe_observations(settings, env) == said
    agent = make_agent("ppo", *flags, *SMALL, *ON_POLICY)
    assert agent.collector.collect()["observation"].shape == (2, 8, 151)
    with pytest.raises(SpecError, match="Or leave it out: .* or --leave_out mission"):
        make_env("--env_name=MiniGrid-MemoryS11-v0")
