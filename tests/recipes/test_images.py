"""Learning from pictures by flags: what is seen, what is stored, and that every algorithm trains on it."""

import json

import av
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from cases.examples import ALONE, load
from torchrl.agents import VIDEOS, RecordVideo
from torchrl.data.replay import MemmapStorage
from torchrl.data.specs import Bounded
from torchrl.envs import GymEnv, check_env
from torchrl.envs.simulators.opengl import find_opengl
from torchrl.envs.transforms import GrayScale, Resize
from torchrl.errors import ConfigError
from torchrl.modules import ConvNet, DuelingMLP, Encoded, ResidualConvNet
from torchrl.modules.models.image_encoder import ImageEncoder

SMALL = ["--from_pixels", "--image_size=40", "--num_envs=2", "--num_cells", "8", "8", "--no-progress_bar"]
REPLAY = ["--buffer_size=96", "--batch_size=8", "--total_frames=64", "--frames_per_batch=16", "--start_frames=16"]
REPLAY += ["--updates_per_frame=0.25"]
PENDULUM = "--env_name=Pendulum-v1"


@pytest.fixture
def agent_of(make_agent):
    """Build the agent of an example from flags, which stand behind small ones; it evaluates nothing."""

    def make(algorithm, *flags):
        agent = make_agent(algorithm, *SMALL, *flags)
        agent.evaluator.close()
        agent.evaluator = None
        return agent

    return make


@pytest.mark.parametrize(
    ("flags", "shape"),
    [
        ([], (4, 84, 84)),
        (["--image_size=40"], (4, 40, 40)),
        (["--no-grayscale"], (12, 84, 84)),
        (["--frame_stack=1"], (1, 84, 84)),
        (["--frame_stack=2", "--no-grayscale", "--image_size=36"], (6, 36, 36)),
    ],
)
def test_a_picture_is_one_image_of_bytes(flags, shape, make_env):
    env = make_env("--from_pixels", *flags)
    assert env.observation_spec["observation"] == Bounded(0, 255, (2, *shape), torch.uint8)
    assert [key for key, _ in env.observation_spec.leaves()] == ["observation"]


def test_vectors_are_stacked_if_it_is_asked_for(make_env):
    assert make_env().observation_spec["observation"].shape == (2, 4)
    assert make_env("--frame_stack=3").observation_spec["observation"].shape == (2, 12)


def test_what_is_seen_is_the_picture_small_and_grey_the_newest_last(make_env):
    env = make_env("--from_pixels", "--frame_stack=2")
    raw = GymEnv("CartPole-v1", num_envs=2, from_pixels=True, pixels_only=True)
    for one in (env, raw):
        one.set_seed(3)
    root, picture = env.reset(), raw.reset()
    small = [GrayScale()(Resize(84)(picture["pixels"])).movedim(-1, 1)] * 2
    for _ in range(4):
        assert torch.equal(root["observation"], torch.cat(small, 1))
        action = torch.tensor([0, 1])
        _, root = env.step_and_reset(root.set("action", action))
        _, picture = raw.step_and_reset(picture.set("action", action))
        small = [small[1], GrayScale()(Resize(84)(picture["pixels"])).movedim(-1, 1)]
    assert not torch.equal(small[0], small[1])
    raw.close()


@pytest.mark.skipif(find_opengl() is None, reason="there is no OpenGL to draw with")
def test_pictures_of_dm_control_are_an_env_like_others(make_env):
    pytest.importorskip("dm_control")
    task = ["--env_library=dm_control", "--env_name=cartpole", "--env_task=swingup", "--frame_skip=8"]
    sizes = ["--image_size=40", "--frame_stack=3", "--max_episode_steps=3", "--num_envs=1"]
    envs = [make_env(*task, *sizes, "--from_pixels", *flags) for flags in ([], ["--camera_id=1"], ["--no-shadows"])]
    assert envs[0].observation_spec["observation"].shape[1:] == (3, 40, 40)
    check_env(envs[0], num_steps=8)
    for env in envs:
        env.set_seed(0)
    first, other_side, plain = (env.reset()["observation"] for env in envs)
    assert not torch.equal(first, other_side) and not torch.equal(first, plain)


class World(gymnasium.Env):
    """Shows what it is told to; no episode ends."""

    action_space = spaces.Discrete(2)

    def __init__(self, observation_space):
        self.observation_space = observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


SPEED = spaces.Box(-1, 1, (2,), np.float32)
WORLDS = {
    "Eye": image(50, 60, 3),
    "Camera": spaces.Dict(camera=image(50, 60, 1)),
    "First": image(3, 50, 60),
    "Mixed": spaces.Dict(observation=image(50, 60, 3), speed=SPEED),
    "Film": spaces.Dict(film=SPEED, speed=SPEED),
}
for world, space in WORLDS.items():
    gymnasium.register(f"tests/{world}-v0", World, kwargs={"observation_space": space}, disable_env_checker=True)


@pytest.mark.parametrize(
    ("world", "flags", "shape"), [("Eye", [], (4, 84, 84)), ("Camera", ["--image_size=40"], (4, 40, 40))]
)
def test_an_observation_that_is_a_picture_is_treated_alike(world, flags, shape, make_env):
    env = make_env(f"--env_name=tests/{world}-v0", *flags)
    assert env.observation_spec["observation"].shape == (2, *shape)
    assert [key for key, _ in env.observation_spec.leaves()] == ["observation"]


def test_networks_with_memory_see_pictures(make_agent):
    flags = [*REPLAY, "--env_name=tests/Eye-v0", "--image_size=40", "--num_envs=2", "--num_cells=8"]
    agent = make_agent(
        "dqn", *flags, "--memory=gru", "--memory_size=8", "--sequence_len=4", "--frame_stack=1", "--max_episode_steps=8"
    )
    before = [x.clone() for x in agent.loss.trainable_parameters()]
    agent.train()
    assert not any(map(torch.equal, before, agent.loss.trainable_parameters()))
    assert agent.optimise.buffer[:]["observation"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("world", "message"),
    [
        ("First", r"an image \[H, W, C\] with 1, 3 or 4 channels, got 'observation' of shape \[3, 50, 60\], uint8"),
        ("Mixed", r"an image and nothing beside it, got \['observation', 'speed'\]"),
    ],
)
def test_other_pictures_are_refused(world, message, make_env):
    with pytest.raises(ConfigError, match=f"^networks: expected {message}"):
        make_env(f"--env_name=tests/{world}-v0")


def test_the_name_of_the_film_is_free_where_nothing_is_filmed(make_env):
    assert make_env("--env_name=tests/Film-v0").observation_spec["observation"].shape == (2, 4)


def test_a_run_with_workers_is_evaluated_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = load("dqn").main
    try:
        short = ["--eval_episodes=1", "--record_episodes=1", "--num_workers=2", "--name=whole", "--save_buffer"]
        run([*SMALL, *REPLAY, *short])
        (folder,) = (tmp_path / "dqn_logging").iterdir()
        run([f"--evaluate={folder}"])
        assert "last.pt: return" in capsys.readouterr().out
        run([f"--resume={folder}", "--name=more", "--total_frames=96"])
        (more,) = (tmp_path / "dqn_logging").glob("more*")
        assert json.loads((more / "summary.json").read_text())["frames"] == 96
    finally:
        torch.set_flush_denormal(False)


def test_what_cannot_be_seen_is_refused(make_env, agent_of):
    with pytest.raises(ConfigError, match="--from_pixels: expected gym or dm_control, got --env_library=toy"):
        make_env("--from_pixels", "--env_library=toy", "--env_name=Matching")
    with pytest.raises(ConfigError, match="--image_size: expected an image for the convolutions.*20 × 20 pixels"):
        agent_of("dqn", "--image_size=20")
    with pytest.raises(ConfigError, match="networks: expected one vector of floats.*one image of bytes"):
        agent_of("ppo", "--norm_observations")


@pytest.mark.parametrize(
    ("algorithm", "flags"),
    [
        ("dqn", []),
        ("dqn", ["--dueling", "--noisy", "--distributional", "--prb"]),
        ("dqn", ["--multi_step"]),
        ("dqn", ["--sub_traj_len=4"]),
        ("dqn", ["--buffer_folder=frames"]),
        ("ddpg", [PENDULUM, "--ou_exploration"]),
        ("td3", [PENDULUM, "--actor_interval=1"]),
        ("sac", [PENDULUM]),
        ("sac", [PENDULUM, "--gsde"]),
        ("sac", [PENDULUM, "--state_value"]),
        ("sac", []),
        ("redq", [PENDULUM, "--num_q_values=3", "--actor_interval=1"]),
        ("dqn", ["--random_shift=4", "--encoder=impala", "--encoder_width=0.25"]),
        ("sac", [PENDULUM, "--share_encoder", "--random_shift=4", "--encoder=drq", "--encoder_width=0.1"]),
        ("sac", ["--share_encoder", "--color_jitter=0.4", "--no-grayscale"]),
        ("redq", [PENDULUM, "--share_encoder", "--num_q_values=3", "--actor_interval=1", "--random_shift=2"]),
    ],
)
def test_algorithms_with_replay_train_on_images(algorithm, flags, agent_of):
    agent = agent_of(algorithm, *REPLAY, *flags)
    assert any(isinstance(part, ImageEncoder) for part in agent.loss.modules())
    before = [parameter.clone() for parameter in agent.loss.trainable_parameters()]
    agent.train()
    assert agent.optimise.num_updates == 16
    after = agent.loss.trainable_parameters()
    assert all(value.isfinite().all() for value in after) and not any(map(torch.equal, before, after))


SHARED = [*REPLAY, PENDULUM, "--share_encoder", "--image_features=5"]


def convolutions(module):
    return {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Conv2d)}


@pytest.mark.parametrize("flags", [SHARED, [*REPLAY, "--share_encoder"]])
def test_a_shared_encoder_is_one_and_only_the_critics_loss_trains_it(flags, agent_of):
    agent = agent_of("sac", *flags)
    loss = agent.loss
    assert len(convolutions(loss.actor)) == 3 and convolutions(loss.actor) == convolutions(loss.critic)
    assert not convolutions(loss.actor) & convolutions(loss.target_critic)
    trained = [id(p) for p in loss.trainable_parameters()]
    assert len(trained) == len(set(trained)) and convolutions(loss.critic) <= set(trained)
    agent.store(agent.collector.collect())
    terms = loss(agent.optimise.buffer.sample(8))
    shared = {id(p): p for part in loss.actor.modules() if isinstance(part, ConvNet) for p in part.parameters()}
    terms["loss_actor"].backward(retain_graph=True)
    assert all(p.grad is None for p in shared.values())
    assert all(p.grad is not None for p in loss.actor.parameters() if id(p) not in shared)
    assert all(p.grad is None for p in loss.critic.parameters())
    terms["loss_critic"].backward()
    assert all(p.grad is not None for p in loss.critic.parameters())


def test_features_are_reduced_for_actor_and_critics_apart(agent_of):
    loss = agent_of("sac", *SHARED).loss
    actor, critic = (
        [part for part in network.modules() if isinstance(part, torch.nn.LayerNorm)]
        for network in (loss.actor, loss.critic)
    )
    assert [part.normalized_shape for part in (*actor, *critic)] == [(5,), (5,)] and actor[0] is not critic[0]


@pytest.mark.parametrize(
    ("flags", "kind", "num_cells"),
    [
        ([], ConvNet, [32, 64, 64]),
        (["--encoder_width=0.5"], ConvNet, [16, 32, 32]),
        (["--encoder=drq"], ConvNet, [32, 32, 32, 32]),
        (["--encoder=impala", "--encoder_width=2"], ResidualConvNet, [32] * 5 + [64] * 10),
    ],
)
def test_the_encoder_is_the_one_that_was_asked_for(flags, kind, num_cells, agent_of):
    (encoder,) = (part for part in agent_of("dqn", *REPLAY, *flags).loss.actor.modules() if type(part) is kind)
    assert [part.out_channels for part in encoder.modules() if isinstance(part, torch.nn.Conv2d)] == num_cells


def test_samples_are_changed_and_what_is_stored_is_not(agent_of):
    agent = agent_of("dqn", *REPLAY, "--random_shift=3", "--no-grayscale", "--color_jitter=0.8")
    agent.store(agent.collector.collect())
    shift, jitter = agent.optimise.buffer.transform.functions
    assert (shift.pad, jitter.factors["contrast"], jitter.hue) == (3, 0.8, 0.5)
    stored = {int(place): image for place, image in enumerate(agent.optimise.buffer[:]["observation"])}
    sample = agent.optimise.buffer.sample(8)
    places = sample["replay", "index"].tolist()
    assert not any(torch.equal(x, stored[p]) for x, p in zip(sample["observation"], places, strict=True))
    assert agent_of("dqn", *REPLAY).optimise.buffer.transform is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--color_jitter=0.4"], "--color_jitter: expected --no-grayscale"),
        ([PENDULUM, "--share_encoder", "--gsde"], "--share_encoder: expected --no-gsde"),
        ([PENDULUM, "--share_encoder", "--state_value"], "--share_encoder: expected --no-state_value"),
    ],
)
def test_flags_of_pictures_that_do_not_go_together_are_refused(flags, message, agent_of):
    with pytest.raises(ConfigError, match=message):
        agent_of("sac", *REPLAY, *flags)


@pytest.mark.parametrize("flags", [[], ["--shared_mapping"], [PENDULUM, "--gsde"]])
@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "impala", "reinforce"])
def test_algorithms_on_policy_train_on_images(algorithm, flags, agent_of):
    agent = agent_of(algorithm, "--frames_per_batch=32", "--total_frames=32", *ALONE.get(algorithm, []), *flags)
    before = [parameter.clone() for parameter in agent.loss.trainable_parameters()]
    agent.train()
    after = list(agent.loss.trainable_parameters())
    assert all(value.isfinite().all() for value in after) and not any(map(torch.equal, before, after))


def test_a_dueling_network_stands_behind_the_convolutions(agent_of):
    network = agent_of("dqn", *REPLAY, "--dueling").loss.actor.module
    assert type(network) is Encoded and type(network.head) is DuelingMLP


def test_each_frame_is_stored_once_and_comes_back_as_it_was_seen(agent_of):
    agent = agent_of("dqn", *REPLAY)
    batches = [agent.collector.collect() for _ in range(3)]
    for batch in batches:
        agent.store(batch)
    (frames,) = agent.optimise.buffer.storage.frames
    assert frames.key == ("observation",) and frames.num_frames == 4
    seen = torch.cat(batches, 1)
    stored = agent.optimise.buffer[:]
    for key in ("observation", ("next", "observation"), "action"):
        assert torch.equal(stored[key], seen[key].transpose(0, 1).flatten(0, 1)), key


@pytest.mark.parametrize(
    ("algorithm", "flags"), [("dqn", []), ("ppo", ["--no-from_pixels"]), ("ddpg", ["--no-from_pixels", PENDULUM])]
)
def test_evaluations_are_filmed_if_it_is_asked_for(algorithm, flags, agent_of, tmp_path):
    replay = [] if algorithm == "ppo" else REPLAY
    agent = agent_of(algorithm, *replay, "--frames_per_batch=32", "--total_frames=64", "--record_video", *flags)
    (film,) = [hook for hook in agent.hooks if type(hook) is RecordVideo]
    agent.folder, film.max_steps = tmp_path, 12
    film.on_train_start(agent)
    film.on_evaluated(agent, None)
    film.on_train_end(agent)
    with av.open(str(tmp_path / VIDEOS / "000000000.mp4")) as container:
        num = sum(1 for _ in container.decode(video=0))
    assert 9 <= num <= 13
    assert not [hook for hook in agent_of(algorithm, *replay, *flags).hooks if type(hook) is RecordVideo]


@pytest.mark.parametrize("flag", ["--multi_step", "--buffer_folder=frames"])
def test_where_frames_cannot_be_stored_once_they_are_stored_whole(flag, agent_of):
    agent = agent_of("dqn", *REPLAY, flag)
    batch = agent.collector.collect()
    agent.store(batch)
    items = agent.optimise.buffer[:]
    assert items["observation"].shape[1:] == items["next", "observation"].shape[1:] == (4, 40, 40)
    assert isinstance(agent.optimise.buffer.storage, MemmapStorage) == flag.startswith("--buffer")
