"""Running moments against numpy, masks, eval mode, copies; the normaliser inside networks."""

import copy

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError, NonFiniteError, SpecError
from torchrl.modules import MLP, Categorical, ObservationNormalizer, ProbabilisticActor, ValueOperator


def updated(*batches, **kwargs):
    normalizer = ObservationNormalizer(batches[0].shape[-1], **kwargs)
    for batch in batches:
        normalizer.update(batch)
    return normalizer


def test_moments_of_several_batches_equal_numpy_over_all_rows():
    rng = np.random.default_rng(0)
    batches = [rng.normal([0, 5, -1e3], [1, 0.01, 30], (size, 2, 3)) for size in (1, 40, 7, 500)]
    normalizer = updated(*(torch.as_tensor(batch, dtype=torch.float32) for batch in batches))
    rows = np.concatenate([batch.astype(np.float32).astype(np.float64).reshape(-1, 3) for batch in batches])
    assert normalizer.count.item() == len(rows) == 2 * 548
    np.testing.assert_allclose(normalizer.mean.numpy(), rows.mean(0), rtol=1e-10)
    np.testing.assert_allclose(normalizer.var.numpy(), rows.var(0), rtol=1e-8)
    x = torch.tensor([[1.0, 5.02, -950.0]])
    expected = (x.double().numpy() - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-8)
    np.testing.assert_allclose(normalizer(x).numpy(), expected, rtol=1e-4)


def test_the_mean_still_moves_after_a_hundred_million_rows():
    normalizer = ObservationNormalizer(1)
    normalizer.count.fill_(10**8)
    normalizer.mean.fill_(1000.0)
    for _ in range(10):
        normalizer.update(torch.full((1000, 1), 1001.0))
    expected = (10**8 * 1000.0 + 10**4 * 1001.0) / (10**8 + 10**4)  # a step of 1e-5: less than float32's spacing, 6e-5
    assert normalizer.mean.item() == pytest.approx(expected, rel=1e-13)
    assert normalizer.count.item() == 10**8 + 10**4


@pytest.mark.parametrize("trailing", [False, True], ids=["[*B]", "[*B, 1]"])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_masked_rows_reach_nothing(trailing, junk):
    x, mask = torch.randn(6, 5, 3), torch.rand(6, 5) < 0.6
    dirty = torch.where(mask[..., None], x, junk)
    normalizer = ObservationNormalizer(3)
    normalizer.update(dirty, mask=mask[..., None] if trailing else mask)
    clean = updated(x[mask])
    assert normalizer.state_dict().keys() == clean.state_dict().keys()
    for name, value in clean.state_dict().items():
        torch.testing.assert_close(normalizer.state_dict()[name], value, msg=name)


def test_a_wholly_masked_batch_changes_nothing():
    normalizer = updated(torch.randn(10, 2))
    before = copy.deepcopy(normalizer.state_dict())
    normalizer.update(torch.full((4, 2), float("nan")), mask=torch.zeros(4, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in normalizer.state_dict().items())


def test_a_value_that_is_not_finite_is_an_error_and_leaves_the_statistics():
    normalizer = updated(torch.randn(10, 2))
    before = copy.deepcopy(normalizer.state_dict())
    with pytest.raises(NonFiniteError, match="finite observations"):
        normalizer.update(torch.tensor([[1.0, float("nan")]]))
    assert all(torch.equal(value, before[name]) for name, value in normalizer.state_dict().items())


def test_eval_mode_freezes():
    normalizer = updated(torch.randn(10, 2)).eval()
    x = torch.randn(3, 2)
    before = normalizer(x)
    normalizer.update(100 + torch.randn(10, 2))
    assert torch.equal(normalizer(x), before) and normalizer.count == 10
    normalizer.train()
    assert torch.equal(normalizer(x), before)  # train mode by itself changes nothing either
    normalizer.update(100 + torch.randn(10, 2))
    assert normalizer.count == 20


def test_the_result_survives_state_dict_deepcopy_and_a_new_object():
    normalizer, x = updated(3 + 2 * torch.randn(50, 2)), torch.randn(4, 2)
    other = ObservationNormalizer(2)
    other.load_state_dict(normalizer.state_dict())
    other.update(x), normalizer.update(x)
    assert torch.equal(other(x), normalizer(x)) and torch.equal(copy.deepcopy(normalizer)(x), normalizer(x))
    assert other.count.dtype == torch.int64 and other.mean.dtype == torch.float64


def test_before_the_first_update_only_the_clipping_acts():
    x = torch.tensor([[0.5, -100.0, 7.0]])
    assert ObservationNormalizer(3)(x).tolist() == [[0.5, -10.0, 7.0]]
    assert torch.equal(ObservationNormalizer(3, clip=None)(x), x)
    assert ObservationNormalizer(3, clip=5.0)(x).tolist() == [[0.5, -5.0, 5.0]]
    nothing_yet = ObservationNormalizer(3, clip=None, eps=1.0)
    nothing_yet.update(x, mask=torch.tensor([False]))  # no row counts: no update
    assert torch.equal(nothing_yet(x), x)


def test_a_constant_feature_gives_zero():
    normalizer = updated(torch.full((10, 1), 3.0))
    assert normalizer(torch.full((2, 1), 3.0)).tolist() == [[0.0], [0.0]]


def test_a_large_offset_does_not_cancel_away():
    x = 1e5 + torch.randn(1000, 1)
    normalized = updated(x)(x).double()
    assert normalized.mean().abs() < 0.01 and abs(normalized.std() - 1) < 0.01


def test_leading_dimensions_and_observations_of_several_dimensions():
    normalizer = ObservationNormalizer((2, 3))
    x = 5 + torch.randn(7, 4, 2, 3)
    normalizer.update(x)
    assert normalizer.mean.shape == (2, 3) and normalizer.count == 28
    assert normalizer(x).shape == x.shape
    torch.testing.assert_close(normalizer(x[0, 0]), normalizer(x)[0, 0])


def test_a_shape_that_would_broadcast_is_refused():
    normalizer = ObservationNormalizer(4)
    with pytest.raises(SpecError, match=r"forward: expected a shape ending in \[4\], got \[8, 1\]"):
        normalizer(torch.zeros(8, 1))
    with pytest.raises(SpecError, match=r"update: expected a shape ending in \[4\], got \[1\]"):
        normalizer.update(torch.zeros(1))
    with pytest.raises(SpecError, match=r"expected a bool mask of shape \[8\], got torch.bool of shape \[4\]"):
        normalizer.update(torch.zeros(8, 4), mask=torch.ones(4, dtype=torch.bool))


def test_it_follows_its_network_to_another_device():
    network = nn.Sequential(ObservationNormalizer(3), MLP(3, 2)).to("meta")
    assert all(buffer.device.type == "meta" for buffer in network.buffers()) and len(list(network.buffers())) == 5


def test_one_normaliser_in_actor_and_critic_is_updated_once_for_both():
    normalizer = ObservationNormalizer(4)
    actor = ProbabilisticActor(nn.Sequential(normalizer, MLP(4, 2)), Categorical)
    critic = ValueOperator(nn.Sequential(normalizer, MLP(4, 1)))
    batch = TensorDict({"observation": 50 + 3 * torch.randn(6, 8, 4)}, [6, 8])
    before = actor.build(batch).logits, critic(batch.clone())["state_value"]
    normalizer.update(batch["observation"])
    after = actor.build(batch).logits, critic(batch.clone())["state_value"]
    assert not any(torch.allclose(one, other) for one, other in zip(before, after, strict=True))
    expected = actor.module[1]((batch["observation"] - normalizer.mean.float()) / normalizer.var.sqrt().float())
    torch.testing.assert_close(after[0], expected, rtol=1e-4, atol=1e-4)
    assert not list(normalizer.parameters())


@pytest.mark.parametrize("options", [{"clip": 0.0}, {"clip": float("nan")}, {"eps": 0.0}, {"eps": -1.0}])
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError, match="a positive eps, and a positive clip or None"):
        ObservationNormalizer(2, **options)
