"""Films of a policy in training: a picture for each step of one episode, from one start, and nothing else changes."""

import sys
from functools import partial

import av
import numpy as np
import pytest
import torch

from torchrl.agents import VIDEOS, Evaluation, Evaluator, RecordVideo
from torchrl.envs import CartPole, GymEnv, SerialEnv
from torchrl.envs.simulators import Pixels, gym_simulator
from torchrl.errors import ConfigError, KeyMissing, MissingExtraError
from torchrl.record import JSONLinesLogger, read_json_lines


def seen_cartpole():
    """CartPole with its picture beside what the policy reads."""
    film = partial(Pixels, key="film", pixels_only=False)
    options = {"env_kwargs": {"render_mode": "rgb_array"}, "wrappers": [film]}
    return SerialEnv(partial(gym_simulator, "CartPole-v1", **options), 1)


def pictures(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_each_evaluation_has_a_film_of_an_episode_from_the_same_start(make_agent, tmp_path):
    agent = make_agent(evaluate_every=256, hooks=[RecordVideo(seen_cartpole, key="film", seed=7)])
    agent.folder, agent.logger = tmp_path, JSONLinesLogger(tmp_path)
    agent.train()
    agent.logger.close()
    films = sorted((tmp_path / VIDEOS).iterdir())
    assert [film.name for film in films] == ["000000256.mp4", "000000512.mp4"]
    told = [line["video"] for line in read_json_lines(agent.logger.path) if "video" in line]
    assert told == [{"name": "eval/film", "path": f"{VIDEOS}/{film.name}"} for film in films]
    first, last = map(pictures, films)
    played = Evaluator(GymEnv("CartPole-v1", num_envs=1), num_episodes=1, start_seeds=[7])(agent.policy)
    assert len(last) == int(played.lengths[0]) + 1 and last.shape[1:] == (400, 600, 3)
    assert abs(first[0].astype(int) - last[0]).mean() < 1
    env = GymEnv("CartPole-v1", num_envs=1, from_pixels=True, pixels_only=False)
    root = env.reset(seed=[7])
    assert abs(last[0].astype(int) - root["pixels"][0].numpy()).mean() < 2


def test_the_last_picture_shows_how_it_ended_not_how_the_next_began(make_agent, tmp_path):
    agent = make_agent(evaluate_every=512, hooks=[RecordVideo(seen_cartpole, key="film", seed=1)])
    agent.folder = tmp_path
    agent.train()
    (film,) = map(pictures, (tmp_path / VIDEOS).iterdir())
    moves = abs(np.diff(film.astype(int), axis=0)).mean((1, 2, 3))
    assert abs(film[-1].astype(int) - film[0]).mean() > 3 * moves.max() / 2  # it fell; a reset would stand as at first


def test_training_goes_on_as_without(make_agent, tmp_path):
    ended = []
    for hooks in ([], [RecordVideo(seen_cartpole, key="film")]):
        agent = make_agent(evaluate_every=128, hooks=hooks)
        agent.folder = tmp_path / str(len(hooks))
        agent.train()
        ended.append([*agent.loss.state_dict().values(), torch.rand(1)])
    assert all(map(torch.equal, *ended))


def test_a_long_episode_is_cut(make_agent, tmp_path):
    hook = RecordVideo(seen_cartpole, key="film", max_steps=3)
    agent = make_agent(hooks=[hook])
    agent.folder = tmp_path
    hook.on_train_start(agent)
    hook.on_evaluated(agent, Evaluation(torch.ones(1), torch.ones(1, dtype=torch.int64)))
    hook.on_train_end(agent)
    hook.on_train_end(agent)
    assert len(pictures(tmp_path / VIDEOS / "000000000.mp4")) == 4


def test_what_cannot_be_filmed_is_refused_before_training(make_agent, tmp_path, monkeypatch):
    for options in ({"fps": 0}, {"max_steps": 0}):
        with pytest.raises(ConfigError, match="^RecordVideo: expected (fps|max_steps) of at least 1, got 0"):
            RecordVideo(seen_cartpole, **options)
    agent = make_agent(hooks=[RecordVideo(seen_cartpole)])
    with pytest.raises(ConfigError, match="^RecordVideo: expected an agent with a folder, got none"):
        agent.train()
    agent.folder = tmp_path
    with pytest.raises(KeyMissing, match="^RecordVideo: expected .* under 'pixels', got the observations .*'film'"):
        agent.train()
    agent = make_agent(hooks=[RecordVideo(lambda: CartPole(2))])
    agent.folder = tmp_path
    with pytest.raises(ConfigError, match=r"^RecordVideo: expected a make_env of batch size \[1\], got \[2\]"):
        agent.train()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match="A video needs"):
        agent.train()
    assert agent.frames == 0
