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


def test_all_begin_and_each_answers_once_to_what_it_was_sent(queue):
    begun = []
    for _ in range(3):
        ids, begins = queue.receive()
        assert begins.all() and not queue.answers["done"].any()
        assert np.abs(queue.answers["observation"]).max() <= 0.05
        begun += ids.tolist()
    assert sorted(begun) == list(range(6))
    lengths, restarted = np.zeros(6, int), []
    for number in range(40):
        if number < 3:
            queue.send(np.array(begun[2 * number : 2 * number + 2]), torch.zeros(2, dtype=torch.int64))
        if number < 2:
            continue
        ids, begins = queue.receive()
        for at, (one, begin) in enumerate(zip(ids, begins, strict=True)):
            lengths[one] = 0 if begin else lengths[one] + 1
            assert queue.answers["truncated"][at, 0] == queue.answers["done"][at, 0] == (lengths[one] == 3)
            assert queue.answers["reward"][at, 0] == (not begin) and not queue.answers["terminated"][at, 0]
        is_over = queue.answers["done"][:, 0].copy()
        restarted += ids[is_over].tolist()
        if is_over.all():
            queue.begin_next_episodes(ids)
        elif is_over.any():
            pytest.fail("of two that step together one ended alone")
        else:
            queue.send(ids, torch.zeros(2, dtype=torch.int64))
    assert len(restarted) >= 12


def test_an_action_of_another_form_is_refused(queue):
    ids, _ = queue.receive()
    with pytest.raises(SpecError, match="action"):
        queue.send(ids, torch.zeros(3, dtype=torch.int64))


def test_an_answer_that_comes_twice_is_an_error(queue, monkeypatch):
    receive = queue._pool.receive
    monkeypatch.setattr(queue._pool, "receive", lambda: (np.zeros(2, np.int32), receive()[1]))
    with pytest.raises(EnvError, match=r"2 different simulators, got \[0, 0\]"):
        queue.receive()
