"""Random changes of sampled images: what is drawn for whom, how often, reproducibility, and the buffer's transform."""

import copy

import pytest
import torch
from tensordict import TensorDict

from torchrl.data import ColorJitter, RandomCrop, RandomShift
from torchrl.data.replay import ReplayBuffer, SliceSampler, TensorStorage
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.functional import jitter_colors
from torchrl.modules import CenterCrop, ConvNet


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(num=64, *, channels=2, size=8, dtype=torch.uint8):
    """Return a batch whose pixels say where they are: row 16 · y + x, alike in all images."""
    places = (16 * torch.arange(size).view(-1, 1) + torch.arange(size)).to(dtype)
    images = places.expand(num, channels, size, size)
    after = {"observation": images.clone(), "reward": torch.ones(num, 1)}
    return TensorDict({"observation": images.clone(), "action": torch.arange(num), "next": after}, [num])


def offsets(images):
    """Read off where the window of each image began, from a pixel in the middle: [N, 2]."""
    middle = images[:, 0, 4, 4].long()
    return torch.stack([middle // 16 - 4, middle % 16 - 4], -1)


def test_every_shift_is_as_likely_as_another_and_none_goes_farther():
    shift, counts = RandomShift(2, generator=seeded()), torch.zeros(5, 5)
    for _ in range(40):
        drawn = offsets(shift(sample())["observation"]) + 2
        counts.index_put_(drawn.unbind(-1), torch.ones(len(drawn)), accumulate=True)
    expected = 40 * 64 / 25  # 102.4; χ² of 24 degrees of freedom is below 51 in 999 of 1,000 cases
    assert ((counts - expected) ** 2 / expected).sum() < 51


def test_observation_and_successor_are_shifted_apart_and_frames_of_a_stack_alike():
    shifted = RandomShift(2, generator=seeded())(sample())
    here, after = shifted["observation"], shifted["next", "observation"]
    assert torch.equal(here[:, 0], here[:, 1]) and torch.equal(after[:, 0], after[:, 1])
    assert 0 < (offsets(here) == offsets(after)).all(-1).float().mean() < 0.2  # 1 in 25
    assert len(offsets(here).unique(dim=0)) > 15


def test_nothing_else_changes_and_the_batch_is_not_written_to():
    batch = sample()
    before = batch.clone()
    shifted = RandomShift(generator=seeded())(batch)
    assert (batch == before).all()
    assert shifted["action"] is batch["action"] and shifted["next", "reward"] is batch["next", "reward"]
    assert shifted["observation"].dtype == torch.uint8 and shifted.batch_size == batch.batch_size


def test_all_steps_of_a_slice_are_shifted_alike():
    slices = sample(60).view(12, 5).copy()
    here = RandomShift(3, generator=seeded())(slices)["observation"]
    assert here.shape == (12, 5, 2, 8, 8)
    assert torch.equal(here, here[:, :1].expand_as(here))
    assert len(offsets(here[:, 0]).unique(dim=0)) > 6


def test_one_seed_draws_the_same_and_a_state_goes_on():
    batch, first, second = sample(), RandomShift(generator=seeded(3)), RandomShift(generator=seeded(3))
    assert (first(batch) == second(batch)).all()
    state = copy.deepcopy(first.state_dict())
    expected = first(batch)
    other = RandomShift(generator=seeded(9))
    other.load_state_dict(state)
    assert (other(batch) == expected).all()
    assert RandomShift().state_dict() == {}


def test_crops_lie_within_the_image_at_every_place_alike():
    crop, seen = RandomCrop(5, 6, generator=seeded()), torch.zeros(4, 3)
    for _ in range(20):
        images = crop(sample())["observation"]
        assert images.shape == (64, 2, 5, 6)
        first = images[:, 0, 0, 0].long()
        seen.index_put_((first // 16, first % 16), torch.ones(64), accumulate=True)
    expected = 20 * 64 / 12  # 106.7; χ² of 11 degrees of freedom is below 31.3 in 999 of 1,000 cases
    assert ((seen - expected) ** 2 / expected).sum() < 31.3


def test_a_crop_of_the_whole_image_is_the_image_and_a_larger_one_is_refused():
    batch = sample()
    assert torch.equal(RandomCrop(8)(batch)["observation"], batch["observation"])
    with pytest.raises(SpecError, match=r"images of at least 9 × 9 pixels, got \[8, 8\]"):
        RandomCrop(9)(batch)


def test_colors_are_drawn_within_their_ranges_for_each_row():
    batch = sample(400, channels=6, dtype=torch.float32)
    batch["observation"].fill_(0.5)
    bright = ColorJitter(brightness=0.4, keys=["observation"], generator=seeded())(batch)["observation"]
    factors = bright[:, 0, 0, 0] / 0.5
    assert torch.equal(bright, bright[:, :1, :1, :1].expand_as(bright))
    assert factors.min() > 0.6 and factors.max() < 1.4 and factors.std() == pytest.approx(0.8 / 12**0.5, rel=0.1)
    wide = ColorJitter(brightness=3.0, keys=["observation"], generator=seeded())(batch)["observation"]
    assert wide.min() >= 0 and wide.max() == 1  # factors from 0 to 4, cut at white


def test_hue_turns_both_ways_and_all_four_together_are_the_function():
    batch = sample(5, channels=3)
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.5, keys=["observation"], generator=seeded(1))
    generator = seeded(1)
    unit = [torch.rand(5, generator=generator) for _ in range(4)]
    factors = dict(zip(("brightness", "contrast", "saturation"), (0.6 + 0.8 * x for x in unit), strict=False))
    expected = jitter_colors(batch["observation"], **factors, hue=unit[3] - 0.5)
    assert torch.equal(jitter(batch)["observation"], expected)


def test_a_buffer_changes_its_samples_and_goes_on_alike_from_a_save(tmp_path):
    def make():
        return ReplayBuffer(TensorStorage(64), transform=RandomShift(2, generator=seeded()), batch_size=8, seed=0)

    buffer = make()
    buffer.extend(sample())
    assert (buffer[:]["observation"] == sample()["observation"]).all()  # what is stored stays
    assert len(offsets(buffer.sample()["observation"]).unique(dim=0)) > 3
    state = buffer.state_dict()
    buffer.save(str(tmp_path / "saved"))
    expected = buffer.sample()
    for load in (lambda twin: twin.load_state_dict(state), lambda twin: twin.load(str(tmp_path / "saved"))):
        twin = make()
        load(twin)
        assert (twin.sample() == expected).all()
    assert (copy.deepcopy(buffer).sample() == buffer.sample()).all()
    state.pop("transform")  # as earlier versions saved it
    make().load_state_dict(state)


def test_samples_made_ahead_are_those_that_would_be_made_when_asked_for():
    samples = []
    for prefetch in (0, 2):
        transform = RandomShift(2, generator=seeded())
        buffer = ReplayBuffer(TensorStorage(64), transform=transform, batch_size=8, prefetch=prefetch, seed=0)
        buffer.extend(sample())
        samples.append([buffer.sample() for _ in range(5)])
        buffer.close()
    assert all((now == ahead).all() for now, ahead in zip(*samples, strict=True))


def test_a_network_acts_on_whole_images_and_learns_from_windows():
    network = torch.nn.Sequential(CenterCrop(36), ConvNet(2))
    batch = sample(6, size=40)
    windows = RandomCrop(36, generator=seeded())(batch)["observation"]
    assert windows.shape[-2:] == (36, 36) and network(windows).shape == network(batch["observation"]).shape
    assert torch.equal(network(batch["observation"]), network(batch["observation"][..., 2:38, 2:38]))


def test_a_buffer_of_slices_shifts_each_slice_as_one():
    transform = RandomShift(2, generator=seeded())
    buffer = ReplayBuffer(TensorStorage(64), sampler=SliceSampler(4), transform=transform, seed=0)
    steps = sample(64).view(1, 64).copy()
    flags = torch.zeros(1, 64, 1, dtype=torch.bool)
    steps["is_init"], steps["next", "truncated"], steps["next", "done"] = flags, flags, flags
    buffer.extend(steps)
    here = buffer.sample(32)["observation"]
    assert here.shape == (8, 4, 2, 8, 8) and torch.equal(here, here[:, :1].expand_as(here))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomShift(0), "a pad of at least 1 pixel, got 0"),
        (lambda: RandomCrop(84, 0), "at least one pixel each way"),
        (lambda: ColorJitter(), "something to change"),
        (lambda: ColorJitter(hue=0.6), "a hue from 0 to 0.5, got 0.6"),
        (lambda: ColorJitter(contrast=float("nan")), "a contrast of at least 0, got nan"),
        (lambda: RandomShift(4, "observation"), r"Write \['observation'\]"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_entries_that_are_no_images_or_not_there_are_refused():
    batch = sample()
    with pytest.raises(SpecError, match=r"RandomShift.*under 'action', got \[64\], torch.int64, in a batch \[64\]"):
        RandomShift(keys=["action"])(batch)
    with pytest.raises(KeyMissing, match="'pixels'"):
        RandomShift(keys=["pixels"])(batch)
    with pytest.raises(SpecError, match="got a Tensor|got Tensor"):
        RandomShift()(batch["observation"])
    with pytest.raises(SpecError, match="images"):
        RandomShift()(batch[0])
