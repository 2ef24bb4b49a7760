"""What a collector records in: batches of the steps that were written, pictures in memory of their own."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from torchrl.collectors import Collector
from torchrl.collectors.recording import Recording
from torchrl.envs import SerialEnv
from torchrl.envs.simulators import Simulator


def transition(number, rows=2):
    small, picture = torch.full((rows, 3), float(number)), torch.full((rows, 64, 64), number, dtype=torch.uint8)
    next_ = TensorDict({"small": small + 1, "deep": TensorDict({"picture": picture + 1}, [rows])}, [rows])
    return TensorDict({"small": small, "picture": picture, "next": next_}, [rows])


def recorded(recording, numbers):
    recording.renew()
    for step, number in zip(recording.steps, numbers, strict=True):
        assert step.update_(transition(number)) and step.fits(transition(number))
    return recording.take()


def pictures(batch):
    return batch["picture"][:, :, 0, 0].tolist(), batch["next", "deep", "picture"][:, :, 0, 0].tolist()


def test_a_batch_holds_its_steps_and_shares_nothing_with_the_next():
    recording = Recording(transition(0), 3)
    one = recorded(recording, [1, 2, 3])
    kept = one.clone()
    other = recorded(recording, [4, 5, 6])
    assert (one == kept).all()
    assert pictures(one) == ([[1, 2, 3]] * 2, [[2, 3, 4]] * 2) and pictures(other) == ([[4, 5, 6]] * 2, [[5, 6, 7]] * 2)
    assert (
        one["small"][..., 0].tolist() == [[1, 2, 3]] * 2 and other["next", "small"][..., 0].tolist() == [[5, 6, 7]] * 2
    )
    for batch in (one, other):
        assert all(value.is_contiguous() for value in batch.values(True, True)) and batch.batch_size == (2, 3)


def test_a_batch_that_nobody_took_is_written_anew():
    recording = Recording(transition(0), 2)
    recording.renew()
    recording.steps[0].update_(transition(9))
    assert pictures(recorded(recording, [1, 2]))[0] == [[1, 2]] * 2


def test_a_picture_is_not_copied_on_its_way_out():
    recording = Recording(transition(0), 2)
    places = [recording.steps[0].views[path].data_ptr() for path in ("picture", ("next", "deep", "picture"), "small")]
    batch = recorded(recording, [1, 2])
    came = [batch[path].data_ptr() for path in ("picture", ("next", "deep", "picture"), "small")]
    assert came[:2] == places[:2] and came[2] != places[2]


class Wall(Simulator):
    """Shows its time and its last action on a wall; episodes have four steps."""

    observation_space, action_space = spaces.Box(0, 255, (2, 64, 64), np.uint8), spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.time, self.last = 0, 9
        return self.seen(), {}

    def step(self, action):
        self.time, self.last = self.time + 1, action
        return self.seen(), 1.0, self.time == 4, False, {}

    def seen(self):
        return np.stack([np.full((64, 64), number, np.uint8) for number in (self.time, self.last)])


@pytest.mark.parametrize("num_envs", [None, 2])
def test_a_collector_of_pictures_gives_the_steps_of_a_rollout(num_envs):
    def make():
        return SerialEnv(Wall, num_envs)

    collector = Collector(make(), frames_per_batch=6 * (num_envs or 1), seed=3)
    batches = [collector.collect() for _ in range(3)]
    env = make()
    env.set_seed(3)
    root = env.reset()
    for time in range(18):
        step = batches[time // 6][..., time % 6]
        now, root = env.step_and_reset(root.set("action", step["action"]))
        assert torch.equal(now["observation"], step["observation"])
        assert torch.equal(now["next", "observation"], step["next", "observation"])
