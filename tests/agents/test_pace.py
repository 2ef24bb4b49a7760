"""Frames per second, the time left, and the memory of a GPU."""

from types import SimpleNamespace

import pytest
import torch

from cases.devices import needs_cuda
from torchrl.agents.pace import Pace, final_frames, gpu_memory_gb


def paced(*points):
    clock = iter([seconds for seconds, _ in points])
    pace = Pace(clock=lambda: next(clock))
    for _, frames in points:
        pace.note(frames)
    return pace


def test_the_speed_is_that_of_the_last_interval_and_the_rest_goes_at_the_mean():
    pace = paced((0.0, 1000), (1.0, 1100), (5.0, 1200))
    assert pace.frames_per_second == 25.0
    assert pace.seconds_for(400) == 10.0  # 200 frames took 5 s


def test_only_the_last_ten_intervals_count():
    """The first frames of a replay run, drawn at random, are much faster than those that are trained on."""
    pace = paced((0.0, 0), (1.0, 10_000), *((1.0 + 10 * index, 10_000 + 100 * index) for index in range(1, 11)))
    assert pace.seconds_for(100) == 10.0


def test_before_any_frame_nothing_is_known():
    assert paced((0.0, 500)).frames_per_second == 0.0
    assert paced((0.0, 500)).seconds_for(100) is None and paced((0.0, 500), (3.0, 500)).seconds_for(100) is None


@pytest.mark.parametrize(("total", "expected"), [(400, 612), (356, 356), (-1, -1)])
def test_training_ends_with_a_whole_batch(total, expected):
    collector = SimpleNamespace(total_frames=total, frames_per_batch=256)
    assert final_frames(SimpleNamespace(frames=100, collector=collector)) == expected


def test_without_a_gpu_there_is_no_memory_to_tell(monkeypatch):
    agent = SimpleNamespace(loss=torch.nn.Linear(1, 1))
    assert gpu_memory_gb(agent) is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert gpu_memory_gb(agent) is None  # the learner is on the CPU all the same


@needs_cuda
def test_the_memory_is_the_most_that_tensors_have_taken():
    agent = SimpleNamespace(loss=torch.nn.Linear(1, 1, device="cuda"))
    before = gpu_memory_gb(agent)
    taken = torch.zeros(250_000_000, device="cuda")
    assert gpu_memory_gb(agent) >= 1.0
    del taken
    assert gpu_memory_gb(agent) >= max(before, 1.0)
