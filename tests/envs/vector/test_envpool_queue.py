"""EnvPool's asynchronous mode: who answers, what begins an episode, that nobody answers twice."""

import numpy as np
import pytest
import torch

from torchrl.envs import EnvPoolEnv
from torchrl.errors import EnvError, SpecError

pytest.importorskip("envpool")


@pytest.fixture
def queue():
    env = EnvPoolEnv("CartPole-v1", 2, env_kwargs={"max_episode_steps": 3}, num_threads=2)
    made = env.make_queue(6)
    made.begin(range(6))
    yield made
    made.close()
    made.close()


def test_each_answers_once_to_what_it_was_sent(queue):
    lengths, num_begun, ready = np.zeros(6, int), np.zeros(6, int), []
    for _ in range(60):
        ids, begins = queue.receive()
        lengths[ids] = np.where(begins, 0, lengths[ids] + 1)
        num_begun[ids] += begins
        is_over = queue.answers["done"][:, 0].copy()
        assert np.array_equal(is_over, lengths[ids] == 3) and np.array_equal(queue.answers["truncated"][:, 0], is_over)
        assert np.array_equal(queue.answers["reward"][:, 0], ~begins) and not queue.answers["terminated"].any()
        assert (np.abs(queue.answers["observation"][begins]) <= 0.05).all()
        queue.begin_next_episodes(ids[is_over])
        ready += ids[~is_over].tolist()
        if len(ready) >= 2:
            queue.send(np.array(ready[:2]), torch.zeros(2, dtype=torch.int64))
            del ready[:2]
    assert num_begun.min() >= 1 and num_begun.sum() > 20


def test_an_action_of_another_form_is_refused(queue):
    ids, _ = queue.receive()
    with pytest.raises(SpecError, match="action"):
        queue.send(ids, torch.zeros(3, dtype=torch.int64))


def test_an_answer_that_comes_twice_is_an_error(queue, monkeypatch):
    receive = queue._pool.receive
    monkeypatch.setattr(queue._pool, "receive", lambda: (np.zeros(2, np.int32), receive()[1]))
    with pytest.raises(EnvError, match=r"2 different simulators, got \[0, 0\]"):
        queue.receive()
