"""Frames stored once: every stack is the one that came, at every place, at every edge, whatever the batches were."""

import pytest
import torch
from tensordict import TensorDict

from cases.devices import DEVICES
from torchrl.collectors import Collector
from torchrl.data.replay import KeepBest, ReplayBuffer, SliceSampler, StackedFrames, TensorStorage
from torchrl.envs import GymEnv, TransformedEnv
from torchrl.envs.transforms import FrameStack
from torchrl.errors import ConfigError, SpecError


def stacked(num_envs, num_frames, num_steps, seed=0, **start):
    env = TransformedEnv(GymEnv("CartPole-v1", num_envs=num_envs), FrameStack(num_frames, dim=-1, **start))
    return Collector(env, frames_per_batch=num_envs * num_steps, seed=seed)


def pair(capacity, num_frames, device="cpu", start="repeat", **options):
    frames = StackedFrames("observation", num_frames=num_frames, dim=-1, start=start)
    once = ReplayBuffer(TensorStorage(capacity, frames=frames, device=device), seed=0, **options)
    return once, ReplayBuffer(TensorStorage(capacity), seed=0, **options), frames


def require_equal(once, twice):
    assert len(once) == len(twice)
    one, other = once[:].cpu(), twice[:]
    assert set(one.keys(True, True)) == set(other.keys(True, True))
    for key in other.keys(True, True):
        assert torch.equal(one.get(key), other.get(key)), key


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_frames", [1, 2, 4])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 11])
@pytest.mark.parametrize("capacity", [33, 50, 200])
def test_every_stack_is_the_one_that_came(capacity, num_steps, num_frames, device):
    """After every batch, over several rounds of the ring: at episode edges, at the write head, at the oldest steps."""
    collector = stacked(3, num_frames, num_steps)
    once, twice, frames = pair(capacity, num_frames, device)
    for _ in range(260 // (3 * num_steps)):
        batch = collector.collect()
        once.extend(batch), twice.extend(batch)
        require_equal(once, twice)
    ends = int(twice[:]["next", "done"].sum())
    assert frames.num_extra <= ends + 3 + 3 * (num_frames - 1)  # the edges, the head and the oldest steps
    once.empty()
    assert frames.num_extra == 0
    once.extend(batch)
    twice.empty(), twice.extend(batch)
    require_equal(once, twice)


@pytest.mark.parametrize(("num_frames", "num_steps"), [(1, 2), (2, 1), (4, 3), (4, 11)])
def test_zeros_stand_before_an_episode_if_stacks_begin_so(num_frames, num_steps):
    """Over several rounds of the ring, and in another storage that goes on with the state."""
    collector = stacked(3, num_frames, num_steps, start="zeros")
    once, twice, frames = pair(33, num_frames, start="zeros")
    for number in range(150 // (3 * num_steps)):
        batch = collector.collect()
        once.extend(batch), twice.extend(batch)
        require_equal(once, twice)
        if number == 3:
            again = pair(33, num_frames, start="zeros")[0]
            again.load_state_dict(once.state_dict())
            once = again
    assert once.storage.make_empty_copy().layout == once.storage.layout == f"records, {frames.layout}"
    if num_frames > 1:
        with pytest.raises(SpecError, match='The other way to begin is start="zeros"'):
            pair(33, num_frames)[0].extend(stacked(3, num_frames, 9, start="zeros").collect())
        with pytest.raises(SpecError, match='zeros stand before .* The other way to begin is start="repeat"'):
            pair(33, num_frames, start="zeros")[0].extend(stacked(3, num_frames, 9).collect())


def test_batches_that_begin_in_mid_episode_and_masked_steps():
    """Nobody has the older frames of the first step but the batch; a step that is left out cuts the chain."""
    collector = stacked(2, 3, 12)
    once, twice, _ = pair(60, 3)
    for number in range(8):
        batch = collector.collect()
        if number % 2:
            mask = torch.ones(2, 12, dtype=torch.bool)
            mask[0, 5], mask[1, :2] = False, False
            batch["collector", "mask"] = mask
        elif number % 4:
            continue  # a batch that is not stored
        batch = batch.exclude(("collector", "traj_ids")) if number > 5 else batch
        once, twice = (once, twice) if number <= 5 else pair(60, 3)[:2]
        once.extend(batch[:, 3:]), twice.extend(batch[:, 3:])
        require_equal(once, twice)


def test_samples_and_slices():
    collector = stacked(4, 4, 16)
    once, twice, _ = pair(150, 4, sampler=SliceSampler(6))
    for _ in range(6):
        batch = collector.collect()
        once.extend(batch), twice.extend(batch)
    one, other = once.sample(6 * 20), twice.sample(6 * 20)
    assert one.batch_size == (20, 6)
    for key in other.keys(True, True):
        assert torch.equal(one.get(key), other.get(key)), key


def test_a_state_goes_on():
    collector = stacked(2, 3, 10)
    once, twice, _ = pair(50, 3)
    for _ in range(4):
        batch = collector.collect()
        once.extend(batch), twice.extend(batch)
    again = pair(50, 3)[0]
    again.load_state_dict(once.state_dict())
    require_equal(again, twice)
    for _ in range(4):
        batch = collector.collect()
        again.extend(batch), twice.extend(batch)
        require_equal(again, twice)


def pixels(num_rows, num_steps, num_frames=4, length=100, start=0):
    """Stacks of 84 × 84 bytes whose episodes all have one length."""
    frames = torch.arange(num_rows * (num_steps + 1) * 84 * 84).remainder(251).to(torch.uint8)
    frames = frames.view(num_rows, num_steps + 1, 84, 84)
    since = (torch.arange(num_steps) + start).remainder(length)
    back = torch.arange(num_frames - 1, -1, -1)
    root = (torch.arange(num_steps)[:, None] - torch.minimum(back, since[:, None])).clamp(min=0)
    after = torch.cat((root[:, 1:], torch.arange(1, num_steps + 1)[:, None]), 1)
    shape = [num_rows, num_steps]
    return TensorDict(
        {
            "pixels": frames[:, root],
            "is_init": since.eq(0).view(1, -1, 1).expand(*shape, 1),
            "next": TensorDict(
                {"pixels": frames[:, after], "done": since.eq(length - 1).view(1, -1, 1).expand(*shape, 1)}, shape
            ),
        },
        shape,
    )


def test_a_transition_of_pixels_costs_about_one_frame():
    frames = StackedFrames("pixels", num_frames=4, dim=-3)
    buffer = ReplayBuffer(TensorStorage(2000, frames=frames), seed=0)
    batch = pixels(4, 500)
    buffer.extend(batch)
    sample = buffer.sample(32)
    assert sample["pixels"].shape == sample["next", "pixels"].shape == (32, 4, 84, 84)
    rows, steps = sample["replay", "index"].remainder(4), sample["replay", "index"] // 4
    assert torch.equal(sample["pixels"], batch["pixels"][rows, steps])
    assert torch.equal(sample["next", "pixels"], batch["next", "pixels"][rows, steps])
    per_item = 1 + frames.num_extra / len(buffer)
    assert 1 < per_item <= 1.1


@pytest.mark.parametrize("fault", ["order", "padding", "successor", "is_init"])
def test_what_would_not_be_rebuilt_is_refused(fault):
    batch = stacked(2, 3, 30).collect()
    once, _, _ = pair(100, 3)
    value = batch["observation"].clone()
    if fault == "order":
        batch["observation"] = value.unflatten(-1, (3, 4)).flip(-2).flatten(-2)
    elif fault == "padding":
        starts = batch["is_init"].squeeze(-1)
        value[starts] = torch.cat((torch.zeros(int(starts.sum()), 8), value[starts][:, 8:]), 1)
        batch["observation"] = value
    elif fault == "successor":
        batch["next", "observation"] = value
    else:
        batch["is_init"] = torch.ones_like(batch["is_init"])
    with pytest.raises(SpecError, match="every stack to be the one before it, moved on by one frame"):
        once.extend(batch)
    assert len(once) == 0


def test_bad_arguments():
    with pytest.raises(ConfigError, match="num_frames of at least 1 and a negative dim"):
        StackedFrames("pixels", num_frames=4, dim=0)
    with pytest.raises(ConfigError, match="start of .*, got 'zero'"):
        StackedFrames("pixels", start="zero")
    once, _, _ = pair(100, 3)
    with pytest.raises(SpecError, match=r"the keys 'observation', 'next/observation' and 'is_init', got \['x'\]"):
        once.extend(TensorDict({"x": torch.zeros(2)}, [2]))
    assert len(once) == 0 and once.storage.entries is None
    batch = stacked(2, 2, 5).collect()
    with pytest.raises(SpecError, match=r"'observation' as 3 frames joined along -1, got shape \[8\]"):
        once.extend(batch)
    frames = StackedFrames("observation", num_frames=2, dim=-1)
    with pytest.raises(ConfigError, match="a RingWriter with a TensorStorage, got KeepBest"):
        ReplayBuffer(TensorStorage(4, frames=frames), writer=KeepBest("x"))
