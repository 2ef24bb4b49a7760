"""BatchRenorm against the equations of its paper, in numbers and gradients; when it learns; what it refuses."""

import copy

import pytest
import torch

from cases.devices import DEVICES
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import BatchRenorm


def corrected(num_features=1, **options):
    """A layer whose correction is fully open."""
    layer = BatchRenorm(num_features, r_ramp=(0, 1), d_ramp=(0, 1), **options)
    layer.num_batches.fill_(1)
    return layer


def test_one_batch_by_hand():
    layer = corrected(eps=3.0, momentum=0.25, max_r=3.0, max_d=5.0)
    layer.running_mean.fill_(2.0)
    layer.running_std.fill_(1.0)
    # mean 4, variance 1, σ_B = √(1 + 3) = 2, r = 2, d = 2
    y = layer(torch.tensor([[3.0], [5.0]]))
    assert y.flatten().tolist() == [-0.5 * 2 + 2, 0.5 * 2 + 2]
    assert layer.running_mean.item() == 2.5 and layer.running_std.item() == 1.25
    assert layer.num_batches.item() == 2


def test_clipped_corrections_by_hand():
    layer = corrected(eps=3.0, max_r=1.5, max_d=0.5)
    layer.running_mean.fill_(2.0)
    assert layer(torch.tensor([[3.0], [5.0]])).flatten().tolist() == [-0.5 * 1.5 + 0.5, 0.5 * 1.5 + 0.5]
    layer = corrected(eps=3.0, max_r=4.0, max_d=0.5)
    layer.running_mean.fill_(100.0)
    layer.running_std.fill_(16.0)  # r = 1/8, clipped to 1/4; d = −6, clipped to −0.5
    assert layer(torch.tensor([[3.0], [5.0]])).flatten().tolist() == [-0.5 / 4 - 0.5, 0.5 / 4 - 0.5]


def test_without_clipping_it_computes_what_evaluation_computes():
    layer = corrected(5, max_r=1e6, max_d=1e6)
    layer.running_mean.normal_()
    layer.running_std.uniform_(0.5, 2.0)
    x = 3 + 2 * torch.randn(64, 5)
    frozen = copy.deepcopy(layer).eval()
    torch.testing.assert_close(layer(x), frozen(x), rtol=1e-4, atol=1e-4)


def test_the_correction_opens_linearly():
    layer = BatchRenorm(1, eps=1e-12, max_r=3.0, max_d=5.0, r_ramp=(10, 20), d_ramp=(10, 30))
    x = torch.tensor([[99.0], [101.0]])  # mean 100, σ_B 1; against 0 and 0.01, both corrections hit their limits
    for num_batches, r, d in (
        (0, 1.0, 0.0),
        (10, 1.0, 0.0),
        (15, 2.0, 1.25),
        (20, 3.0, 2.5),
        (30, 3.0, 5.0),
        (99, 3.0, 5.0),
    ):
        layer.num_batches.fill_(num_batches)
        layer.running_mean.zero_()
        layer.running_std.fill_(0.01)
        torch.testing.assert_close(layer(x).flatten(), torch.tensor([-r + d, r + d]))


def test_before_the_ramps_it_is_batch_normalisation():
    layer, reference = BatchRenorm(5), torch.nn.BatchNorm1d(5, eps=1e-3)
    x = 3 + 2 * torch.randn(64, 5)
    torch.testing.assert_close(layer(x), reference(x))
    torch.testing.assert_close(layer.running_mean, 0.01 * x.mean(0))
    torch.testing.assert_close(layer.running_std, 0.99 + 0.01 * (x.var(0, correction=0) + 1e-3).sqrt())


def test_r_and_d_carry_no_gradient():
    layer = corrected(3, max_r=2.0).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2.0)
        layer.bias.normal_()
    x = (1 + torch.randn(6, 3, dtype=torch.float64)).requires_grad_()
    var, mean = torch.var_mean(x.detach(), 0, correction=0)
    r = (var + 1e-3).sqrt().clamp(0.5, 2.0)
    d = mean.clone()

    def reference(x, weight, bias):
        var, mean = torch.var_mean(x, 0, correction=0)
        return ((x - mean) / (var + 1e-3).sqrt() * r + d) * weight + bias

    inputs, probe = (x, layer.weight, layer.bias), torch.randn(6, 3, dtype=torch.float64)
    theirs = torch.autograd.grad((reference(*inputs) * probe).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((layer(x) * probe).sum(), inputs), theirs)
    assert torch.autograd.gradcheck(reference, inputs)


@pytest.mark.parametrize("freeze", ["eval", "no_grad"])
@pytest.mark.parametrize("device", DEVICES)
def test_acting_and_evaluation_use_the_running_statistics_and_leave_them(freeze, device):
    layer = corrected(3).to(device)
    layer.running_mean.fill_(1.0)
    layer.running_std.fill_(2.0)
    layer.train(freeze != "eval")
    before = copy.deepcopy(layer.state_dict())
    with torch.set_grad_enabled(freeze != "no_grad"):
        y = layer(torch.full((1, 3), 5.0, device=device))
    assert y.tolist() == [[2.0, 2.0, 2.0]]
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_all_leading_dimensions_are_rows():
    flat, x = corrected(3), torch.randn(4, 5, 3)
    shaped = copy.deepcopy(flat)
    torch.testing.assert_close(shaped(x), flat(x.flatten(0, 1)).unflatten(0, (4, 5)))
    torch.testing.assert_close(shaped.running_std, flat.running_std)
    assert shaped.eval()(x[0, 0]).shape == (3,)


def test_everything_learnt_is_saved_and_copied():
    layer, other = corrected(3), BatchRenorm(3)
    layer(torch.randn(8, 3))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(8, 3)
    assert set(layer.state_dict()) == {"weight", "bias", "running_mean", "running_std", "num_batches"}
    for twin in (other.eval(), copy.deepcopy(layer).eval()):
        torch.testing.assert_close(twin(x), layer.eval()(x), rtol=0, atol=0)
    assert layer.num_batches.item() == 2


def test_compiles_without_a_break():
    layer, x = corrected(3), torch.randn(8, 3)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(layer.state_dict(), twin.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), twin(x))
    assert layer.num_batches.item() == 3


@pytest.mark.parametrize(
    "options",
    [
        {"num_features": 0},
        {"momentum": 0.0},
        {"momentum": 1.5},
        {"eps": 0.0},
        {"max_r": 0.5},
        {"max_d": -1.0},
        {"r_ramp": (5, 5)},
        {"d_ramp": (-1, 5)},
    ],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="BatchRenorm"):
        BatchRenorm(**{"num_features": 3, **options})


def test_a_single_row_or_another_size_is_refused():
    with pytest.raises(SpecError, match=r"at least two rows, got \[1, 3\].*no_grad"):
        BatchRenorm(3)(torch.zeros(1, 3))
    with pytest.raises(SpecError, match=r"a shape ending in \[3\], got \[8, 1\]"):
        BatchRenorm(3)(torch.zeros(8, 1))
