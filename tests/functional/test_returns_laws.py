"""What holds for every function that computes returns."""

import inspect

import pytest
import torch
from hypothesis import given, settings, strategies as st

from cases.return_functions import FACTS, FUNCTIONS, USUAL, VALUES, call, random_batch
from torchrl import functional
from torchrl.errors import SpecError
from torchrl.functional import (
    discounted_return,
    gae,
    importance_weight,
    n_step_return,
    next_step_follows,
    reaches_ending,
    return_so_far,
    td_lambda,
    vtrace,
)

each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
each_on_policy_function = pytest.mark.parametrize("function", FUNCTIONS[:-1], ids=lambda function: function.__name__)
each_coefficient = pytest.mark.parametrize(
    ("function", "name"),
    [(function, "gamma") for function in FUNCTIONS] + [(function, "lambda_") for function in (td_lambda, gae, vtrace)],
)
TARGET = -1  # of what `call` returns


def test_every_public_function_with_a_mask_is_among_the_cases():
    public = [getattr(functional, name) for name in functional.__all__]
    masked = {function for function in public if "mask" in inspect.signature(function).parameters}
    # test_endings.py, test_returns.py, test_curiosity.py
    of_their_own = {next_step_follows, reaches_ending, return_so_far}
    assert masked == {*FUNCTIONS, *of_their_own}


def assert_close(got, expected, tolerance=1e-11):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@each_function
class TestEndings:
    def test_the_table(self, function):
        """r = 1, γ = ½, V = 10 behind an event, then a row of another or the same episode that is worth 600.

        An ordinary step goes on to those 600, a time limit to the 10 that the true successor is worth.
        """
        got = {}
        for event, terminated, truncated in [("step", 0, 0), ("over", 1, 0), ("limit", 0, 1), ("both", 1, 1)]:
            batch = {
                "reward": torch.tensor([[1.0], [100.0]]),
                "value": torch.tensor([[7.0], [10.0]]),
                "next_value": torch.tensor([[10.0], [1000.0]]),
                "terminated": torch.tensor([[terminated], [0]], dtype=torch.bool),
                "truncated": torch.tensor([[truncated], [0]], dtype=torch.bool),
                "log_weight": torch.zeros(2, 1),
            }
            target = call(function, batch, gamma=0.5, lambda_=1.0, n=2)[TARGET]
            assert target[1].item() == 600  # the edge of the batch
            got[event] = target[0].item()
        assert got == {"step": 301.0, "over": 1.0, "limit": 6.0, "both": 1.0}

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_concatenated_trajectories_equal_each_alone(self, function, data):
        """Concatenated trajectories equal each alone: a longer batch changes nothing about what ended before."""
        lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
        alone = [random_batch(1, length, seed=seed, ending=0.0) for seed, length in enumerate(lengths)]
        for batch in alone:
            ending = data.draw(st.sampled_from([("terminated",), ("truncated",), ("terminated", "truncated")]))
            for name in ending:
                batch[name][:, -1] = True
        together = {name: torch.cat([batch[name] for batch in alone], dim=-2) for name in alone[0]}
        separate = zip(*[call(function, batch) for batch in alone], strict=True)
        for got, expected in zip(call(function, together), separate, strict=True):
            assert_close(got, torch.cat(expected, dim=-2))

    def test_swapped_flags_are_another_result(self, function):
        batch = random_batch(4, 20)
        swapped = batch | {"terminated": batch["truncated"], "truncated": batch["terminated"]}
        for got, other in zip(call(function, batch), call(function, swapped), strict=True):
            differs = (got - other).abs() > 1e-3
            assert differs[(batch["terminated"] ^ batch["truncated"])].all()


@each_function
class TestMask:
    def mask(self):
        mask = torch.ones(3, 12, 1, dtype=torch.bool)
        mask[0, 8:], mask[1, 3:5], mask[2, 0] = False, False, False
        return mask

    def test_valid_stretches_equal_batches_of_their_own(self, function):
        batch, mask = random_batch(3, 12, rewards=2), self.mask()
        got = call(function, batch, mask=mask)
        for row, start, stop in [(0, 0, 8), (1, 0, 3), (1, 5, 12), (2, 1, 12)]:
            stretch = {name: x[row, start:stop] for name, x in batch.items()}
            for x, expected in zip(got, call(function, stretch), strict=True):
                assert_close(x[row, start:stop], expected)
        assert all((x[~mask.squeeze(-1)] == 0).all() for x in got)

    def test_masked_rows_reach_neither_results_nor_gradients(self, function):
        batch, mask = random_batch(3, 12), self.mask()
        expected = call(function, batch, mask=mask)
        full = {name: torch.full((3, 12, 1), x, dtype=torch.float64) for name, x in (("gamma", 0.9), ("lambda_", 0.7))}
        full["weight"] = importance_weight(batch["log_weight"], clip=USUAL["weight_clip"])
        poisoned = {name: x.clone() for name, x in (batch | full).items()}
        for x in poisoned.values():
            if x.is_floating_point():
                x[~mask] = float("nan")
                x.requires_grad_()
            else:
                x[~mask] ^= True
        got = call(function, poisoned, mask=mask)
        for x, y in zip(got, expected, strict=True):
            assert_close(x, y)
        sum(x.square().sum() for x in got).backward()
        reached = {name: x.grad for name, x in poisoned.items() if x.is_floating_point() and x.grad is not None}
        assert {"reward", "next_value", "gamma"} <= reached.keys()
        for gradient in reached.values():
            assert gradient.isfinite().all() and (gradient[~mask] == 0).all() and (gradient[mask] != 0).any()

    def test_all_rows_masked(self, function):
        batch = random_batch(2, 3)
        for x in call(function, batch, mask=torch.zeros(2, 3, 1, dtype=torch.bool)):
            assert (x == 0).all()


class TestWeights:
    @each_on_policy_function
    def test_weight_one_is_no_weight(self, function):
        batch = random_batch(3, 20)
        ones = batch | {"log_weight": torch.zeros_like(batch["log_weight"])}
        without = {name: x for name, x in batch.items() if name != "log_weight"}
        for got, expected in zip(call(function, ones, weight_clip=1.0), call(function, without), strict=True):
            assert_close(got, expected)

    @each_function
    def test_weight_zero_leaves_the_value(self, function):
        batch = random_batch(3, 20)
        batch["log_weight"] = torch.full_like(batch["log_weight"], -torch.inf)
        assert_close(call(function, batch)[TARGET], batch["value"])

    @each_function
    def test_clipped_weights_are_those_of_the_clip(self, function):
        batch = random_batch(3, 20)
        options = {"weight_clip": 1.2, "rho_clip": 1.2, "c_clip": 1.2}
        clipped = batch | {"log_weight": batch["log_weight"].exp().clamp(max=1.2).log()}
        unclipped = {"weight_clip": None, "rho_clip": None, "c_clip": None}
        for got, expected in zip(call(function, batch, **options), call(function, clipped, **unclipped), strict=True):
            assert_close(got, expected)

    @each_function
    def test_earlier_actions_weigh_nothing(self, function):
        """Per decision: an action weighs what came of it, not what came before it."""
        batch = random_batch(3, 20)
        other = batch | {"log_weight": batch["log_weight"].clone()}
        other["log_weight"][:, :10] += 0.3
        for got, expected in zip(call(function, other), call(function, batch), strict=True):
            assert_close(got[:, 10:], expected[:, 10:])
            assert not torch.equal(got[:, :10], expected[:, :10])


class TestCoefficients:
    @each_coefficient
    def test_every_form_of_one_number_is_the_same(self, function, name):
        batch = random_batch(3, 20, rewards=2)
        expected = call(function, batch, **{name: 0.6})
        for shape in ((), (2,), (3, 20, 2)):
            got = call(function, batch, **{name: torch.full(shape, 0.6, dtype=torch.float64)})
            for x, y in zip(got, expected, strict=True):
                assert_close(x, y)

    @each_function
    def test_rewards_do_not_touch(self, function):
        """Each reward dimension, with a γ and λ of its own, is the function of that dimension alone."""
        batch = random_batch(3, 20, rewards=3)
        gamma, lambda_ = torch.tensor([0.9, 0.5, 1.0]).double(), torch.tensor([0.3, 0.8, 1.0]).double()
        got = call(function, batch, gamma=gamma, lambda_=lambda_)
        for dim in range(3):
            one = {name: x[..., dim : dim + 1] if name in VALUES else x for name, x in batch.items()}
            expected = call(function, one, gamma=gamma[dim].item(), lambda_=lambda_[dim].item())
            for x, y in zip(got, expected, strict=True):
                assert_close(x[..., dim : dim + 1], y)

    @each_function
    def test_a_discount_of_zero_ends_like_the_task(self, function):
        """As ``gamma`` of a row acts between it and what follows, γ = 0 there is the end of the task there."""
        batch = random_batch(3, 20)
        gamma = 0.9 * (~batch["terminated"]).double()
        never = torch.zeros_like(batch["terminated"])
        expected = call(function, batch)
        got = call(function, batch | {"terminated": never}, gamma=gamma)
        for x, y in zip(got, expected, strict=True):
            assert_close(x, y)


@each_function
class TestPrecision:
    @pytest.mark.parametrize("gamma", [0.99, 0.999, 1.0])
    def test_single_precision_on_2048_rows(self, function, gamma):
        """The error is measured against the largest return: 1e-6 of it, while sums run over up to 2048 rows."""
        exact = random_batch(4, 2048, ending=0.0005)
        single = {name: x.float() if x.is_floating_point() else x for name, x in exact.items()}
        exact = {name: x.double() if x.is_floating_point() else x for name, x in single.items()}  # the same numbers
        options = {"gamma": gamma, "lambda_": 0.99, "n": 2000, "weight_clip": 1.0, "rho_clip": 1.0}
        for got, expected in zip(call(function, single, **options), call(function, exact, **options), strict=True):
            assert got.dtype is torch.float32
            assert (got - expected).abs().max() < 1e-6 * expected.abs().max()

    def test_result_has_the_precision_of_the_reward(self, function):
        batch = random_batch(2, 5, dtype=torch.float32)
        gamma = torch.tensor([0.9], dtype=torch.float64)
        assert all(x.dtype is torch.float32 for x in call(function, batch, gamma=gamma, lambda_=gamma))


@each_function
def test_gradient(function):
    """Every float argument, γ and λ included; no weight is near its clip."""
    batch = random_batch(2, 6, rewards=2, ending=0.3)
    batch["log_weight"] = batch["log_weight"].clamp(max=0.3)
    coefficients = {"gamma": 0.9, "lambda_": 0.7}
    batch |= {name: torch.tensor([x, x / 2], dtype=torch.float64) for name, x in coefficients.items()}
    floats = {name: x.requires_grad_() for name, x in batch.items() if x.is_floating_point()}

    def of_floats(*values):
        return call(function, batch | dict(zip(floats, values, strict=True)), c_clip=1.5)

    assert torch.autograd.gradcheck(of_floats, tuple(floats.values()))


@each_function
def test_arguments_are_left_alone(function):
    batch = random_batch(2, 6) | {"mask": torch.rand(2, 6, 1) < 0.8}
    kept = {name: x.clone() for name, x in batch.items()}
    call(function, batch)
    assert all(torch.equal(x, kept[name]) for name, x in batch.items())


@each_function
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_any_batch_dimensions(function, shape):
    batch = random_batch(*shape, 7)
    flat = {name: x.reshape(-1, 7, 1) for name, x in batch.items()}
    for got, expected in zip(call(function, batch), call(function, flat), strict=True):
        assert_close(got, expected.reshape(*shape, 7, 1))


@each_function
def test_compiles_to_one_graph(function):
    batch = random_batch(2, 6) | {"mask": torch.rand(2, 6, 1) < 0.8}
    compiled = torch.compile(lambda batch: call(function, batch), fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(batch), call(function, batch), strict=True):
        assert_close(got, expected)


class TestRefusals:
    """Beside those of ``test_broadcasting.py``: rows against columns."""

    @each_function
    @pytest.mark.parametrize("name", FACTS)
    def test_facts_do_not_have_the_dimension_of_rewards(self, function, name):
        batch = random_batch(3, 4, rewards=2) | {"mask": torch.ones(3, 4, 1, dtype=torch.bool)}
        batch[name] = batch[name].expand(3, 4, 2)
        with pytest.raises(SpecError, match=r"of shape \[3, 4, 1\], got \w+ \[3, 4, 2\]"):
            call(function, batch)

    @each_function
    def test_values_of_one_reward_beside_two(self, function):
        batch = random_batch(3, 4, rewards=2)
        batch["next_value"] = batch["next_value"][..., :1]
        with pytest.raises(SpecError, match=r"next_value \[3, 4, 1\]"):
            call(function, batch)

    @each_function
    def test_everything_without_the_last_dimension(self, function):
        """Then time would be taken for the batch and the batch for time."""
        batch = {name: x.squeeze(-1) for name, x in random_batch(3, 4).items()}
        with pytest.raises(SpecError, match=r"\[3, 1\]"):
            call(function, batch)

    @each_function
    def test_no_time(self, function):
        batch = {name: x[0, 0] for name, x in random_batch(1, 1).items()}
        with pytest.raises(SpecError, match="time before last"):
            call(function, batch)

    @each_coefficient
    @pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (4,), (1,)])
    def test_coefficients_that_would_be_broadcast(self, function, name, shape):
        with pytest.raises(SpecError, match=f"{name} as a number"):
            call(function, random_batch(3, 4, rewards=2), **{name: torch.full(shape, 0.5)})

    @each_function
    def test_rewards_that_are_counts(self, function):
        batch = random_batch(3, 4)
        batch["reward"] = batch["reward"].long()
        with pytest.raises(SpecError, match=r"floating dtype, got torch.int64"):
            call(function, batch)

    @each_function
    @pytest.mark.parametrize("name", ["terminated", "truncated", "mask"])
    def test_flags_that_are_numbers(self, function, name):
        batch = random_batch(3, 4) | {"mask": torch.ones(3, 4, 1, dtype=torch.bool)}
        batch[name] = batch[name].float()
        with pytest.raises(SpecError, match="torch.bool"):
            call(function, batch)


def test_the_functions_agree_where_they_should():
    """One family: the discounted return is n → ∞, λ = 1, and what advantages add up to."""
    batch = random_batch(3, 30)
    whole = call(discounted_return, batch)[0]
    assert_close(call(n_step_return, batch, n=30)[0], whole)
    assert_close(call(td_lambda, batch, lambda_=1.0)[0], whole)
    assert_close(call(gae, batch, lambda_=1.0)[TARGET], whole)
    one_step = call(n_step_return, batch, n=1)[0]
    assert_close(call(td_lambda, batch, lambda_=0.0)[0], one_step)
    assert_close(call(gae, batch, lambda_=0.7)[TARGET], call(td_lambda, batch, lambda_=0.7)[0])
