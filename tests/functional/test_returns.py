import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from cases.return_functions import random_batch
from cases.slow_returns import slow_gae, slow_n_step, slow_td_lambda
from torchrl.errors import ConfigError
from torchrl.functional import (
    discounted_return,
    gae,
    n_step_return,
    reaches_ending,
    reverse_scan,
    td0_target,
    td_lambda,
)

GAMMA, LAMBDA = 0.9, 0.7


def column(*values, dtype=torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype).unsqueeze(-1)


def slow_scan(x: Tensor, decay: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for t in reversed(range(x.shape[-2])):
        y[..., t, :] = x[..., t, :]
        if t + 1 < x.shape[-2]:
            y[..., t, :] += decay[..., t, :] * y[..., t + 1, :]
    return y


def flags(*values) -> Tensor:
    return column(*values, dtype=torch.bool)


# Five rows: two steps, the task is over, a time limit, the edge of the batch.
SERIES = {
    "reward": column(1.0, 1.0, 1.0, 1.0, 1.0),
    "next_value": column(4.0, 6.0, 100.0, 20.0, 40.0),
    "terminated": flags(0, 0, 1, 0, 0),
    "truncated": flags(0, 0, 0, 1, 0),
}
# Two rows of weights ½ and 2, and nothing after them; the value of the first row's successor is that of the second.
WEIGHTED = {
    "reward": column(1.0, 4.0),
    "terminated": flags(0, 0),
    "truncated": flags(0, 0),
    "weight": column(0.5, 2.0),
}
SECOND = {"value": column(10.0, 20.0), "next_value": column(20.0, 0.0)}


def weights_of(batch: dict, *, given: bool) -> dict:
    """Take weights, clipped at 1.2, and values out of a batch, and return them, or nothing."""
    weight, value = batch.pop("log_weight").exp().clamp(max=1.2), batch.pop("value")
    return {"weight": weight, "value": value} if given else {}


def rows(x: Tensor) -> list[float]:
    return x.squeeze(-1).tolist()


class TestReverseScan:
    def test_by_hand(self):
        # y3 = 4; y2 = 3 + 0·4; y1 = 2 + 2·3 = 8; y0 = 1 + 0.5·8
        y = reverse_scan(column(1.0, 2.0, 3.0, 4.0), column(0.5, 2.0, 0.0, 9.0))
        assert y.squeeze(-1).tolist() == [5.0, 8.0, 3.0, 4.0]

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 33, 100])
    @pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
    def test_equals_the_loop(self, length, batch):
        generator = torch.Generator().manual_seed(length)
        x, decay = torch.randn(2, *batch, length, 2, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(reverse_scan(x, decay), slow_scan(x, decay), rtol=1e-10, atol=1e-10)

    def test_rows_do_not_touch(self):
        x, decay = torch.ones(3, 5, 2), torch.full((3, 5, 2), 0.5)
        x[1] = float("nan")
        x[2, :, 0] = float("nan")
        y = reverse_scan(x, decay)
        assert y[0].isfinite().all() and y[2, :, 1].isfinite().all()

    def test_gradient(self):
        x, decay = torch.randn(2, 2, 6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.autograd.gradcheck(reverse_scan, (x.requires_grad_(), decay.requires_grad_()))

    def test_arguments_are_left_alone(self):
        x, decay = torch.ones(6, 1), torch.full((6, 1), 0.5)
        reverse_scan(x, decay)
        assert (x == 1).all() and (decay == 0.5).all()


class TestTd0Target:
    def test_by_hand(self):
        target = td0_target(column(1.0, 2.0, 3.0), column(10.0, 20.0, float("nan")), flags(0, 0, 1), gamma=0.5)
        assert target.squeeze(-1).tolist() == [6.0, 12.0, 3.0]

    def test_less_an_average_reward(self):
        target = td0_target(column(1.0, 2.0) - 0.5, column(10.0, 20.0), flags(0, 1), gamma=1.0)
        assert rows(target) == [10.5, 1.5]

    def test_each_reward_has_its_discount(self):
        reward = next_value = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        target = td0_target(reward, next_value, flags(0, 1), gamma=torch.tensor([0.5, 0.0]))
        assert target.tolist() == [[1.5, 2.0], [3.0, 4.0]]


class TestDiscountedReturn:
    def test_by_hand(self):
        """What the batch shows, and with values where it ends; γ = ½."""
        reward = {name: x for name, x in SERIES.items() if name != "next_value"}
        assert rows(discounted_return(**reward, gamma=0.5)) == [1.75, 1.5, 1.0, 1.0, 1.0]
        assert rows(discounted_return(**SERIES, gamma=0.5)) == [1.75, 1.5, 1.0, 11.0, 21.0]

    def test_weights_by_hand(self):
        """2·4 = 8, ½·(1 + ½·8) = 2.5; clipped at 1: 1·4 = 4, ½·(1 + ½·4) = 1.5."""
        assert rows(discounted_return(**WEIGHTED, gamma=0.5)) == [2.5, 8.0]
        clipped = WEIGHTED | {"weight": column(0.5, 1.0)}
        assert rows(discounted_return(**clipped, gamma=0.5)) == [1.5, 4.0]

    def test_control_variate_by_hand(self):
        """8 + (1 - 2)·20 = -12, ½·(1 + ½·-12) + ½·10 = 2.5."""
        assert rows(discounted_return(**WEIGHTED, value=SECOND["value"], gamma=0.5)) == [2.5, -12.0]

    @pytest.mark.parametrize("bootstrap", [False, True])
    @pytest.mark.parametrize("weights", [False, True])
    def test_equals_the_definition(self, bootstrap, weights):
        batch = random_batch(3, 40)
        off = weights_of(batch, given=weights)
        if not bootstrap:
            batch["next_value"] = None
        expected = slow_n_step(**batch, gamma=GAMMA, n=1000, **off)
        got = discounted_return(**batch, gamma=GAMMA, **off)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


class TestNStepReturn:
    @pytest.mark.parametrize(
        ("n", "expected"),
        [
            (1, [3.0, 4.0, 1.0, 11.0, 21.0]),
            (2, [3.0, 1.5, 1.0, 11.0, 21.0]),  # 1 + ½·1 + ¼·6
            (3, [1.75, 1.5, 1.0, 11.0, 21.0]),
            (100, [1.75, 1.5, 1.0, 11.0, 21.0]),
        ],
    )
    def test_by_hand(self, n, expected):
        assert rows(n_step_return(**SERIES, gamma=0.5, n=n)) == expected

    def test_weights_by_hand(self):
        """n = 1: ½·(1 + ½·20) = 5.5, 2·4 = 8; with values + ½·10 and - 20. n = 2 as the discounted return."""
        series = WEIGHTED | {"next_value": SECOND["next_value"]}
        assert rows(n_step_return(**series, gamma=0.5, n=1)) == [5.5, 8.0]
        assert rows(n_step_return(**series, value=SECOND["value"], gamma=0.5, n=1)) == [10.5, -12.0]
        assert rows(n_step_return(**series, value=SECOND["value"], gamma=0.5, n=2)) == [2.5, -12.0]

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(length=st.integers(1, 20), n=st.integers(1, 25), seed=st.integers(0, 1000), weights=st.booleans())
    def test_equals_the_definition(self, length, n, seed, weights):
        batch = random_batch(2, length, seed=seed)
        off = weights_of(batch, given=weights)
        expected = slow_n_step(**batch, gamma=GAMMA, n=n, **off)
        got = n_step_return(**batch, gamma=GAMMA, n=n, **off)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("n", [0, -1, 2.0, None])
    def test_n_is_a_count(self, n):
        with pytest.raises(ConfigError, match="n_step_return.*at least 1"):
            n_step_return(**SERIES, gamma=0.5, n=n)


class TestTdLambda:
    def test_by_hand(self):
        """γ = λ = ½: 1 + ½·(½·6 + ½·1) = 2.75, 1 + ½·(½·4 + ½·2.75) = 2.6875."""
        target = td_lambda(**SERIES, gamma=0.5, lambda_=0.5)
        assert rows(target) == [2.6875, 2.75, 1.0, 11.0, 21.0]

    @pytest.mark.parametrize("lambda_", [0.0, 0.95, 1.0])
    @pytest.mark.parametrize("weights", [False, True])
    def test_equals_the_definition(self, lambda_, weights):
        batch = random_batch(3, 40)
        off = weights_of(batch, given=weights)
        expected = slow_td_lambda(**batch, gamma=GAMMA, lambda_=lambda_, **off)
        got = td_lambda(**batch, gamma=GAMMA, lambda_=lambda_, **off)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


class TestGae:
    def test_by_hand(self):
        advantage, target = gae(**SERIES, value=column(2.0, 4.0, 6.0, 8.0, 10.0), gamma=0.5, lambda_=0.5)
        # δ: 1 + 2 - 2 = 1;  1 + 3 - 4 = 0;  1 - 6 = -5;  1 + 10 - 8 = 3;  1 + 20 - 10 = 11
        # A: 1 + ¼·(0 - 5/4) = 0.6875;  0 + ¼·(-5) = -1.25;  -5;  3;  11
        assert advantage.squeeze(-1).tolist() == [0.6875, -1.25, -5.0, 3.0, 11.0]
        assert target.squeeze(-1).tolist() == [2.6875, 2.75, 1.0, 11.0, 21.0]

    def test_weights_by_hand(self):
        """δ = (1, -16): 2·-16 = -32, ½·(1 + ½·-32) = -7.5; the targets are those of the other functions."""
        advantage, target = gae(**WEIGHTED, **SECOND, gamma=0.5, lambda_=1.0)
        assert rows(advantage) == [-7.5, -32.0] and rows(target) == [2.5, -12.0]

    def test_without_a_trace_it_is_the_weighted_error(self):
        assert rows(gae(**WEIGHTED, **SECOND, gamma=0.5, lambda_=0.0)[0]) == [0.5, -32.0]

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 64), (3, 257)])
    @pytest.mark.parametrize("lambda_", [0.0, 0.95, 1.0])
    @pytest.mark.parametrize("weights", [False, True])
    def test_equals_the_definition(self, shape, lambda_, weights):
        batch = random_batch(*shape)
        value = batch["value"]
        off = {"value": value} | weights_of(batch, given=weights)
        advantage, target = gae(**batch, gamma=0.99, lambda_=lambda_, **off)
        expected = slow_gae(**batch, gamma=0.99, lambda_=lambda_, **off)
        torch.testing.assert_close(advantage, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(target, expected + value, rtol=1e-10, atol=1e-10)


class TestReachesEnding:
    def test_by_hand(self):
        """After a time limit and the end of a task the third episode runs over the edge."""
        got = reaches_ending(flags(0, 0, 0, 1, 0, 0), flags(0, 1, 0, 0, 0, 0))
        assert rows(got) == [True, True, True, True, False, False]

    def test_a_reset_in_mid_episode_is_no_ending(self):
        got = reaches_ending(flags(0, 0, 0, 1), flags(0, 0, 0, 0), is_init=flags(1, 0, 1, 0))
        assert rows(got) == [False, False, True, True]

    def test_masked_rows_end_nothing(self):
        got = reaches_ending(flags(0, 0, 1, 0, 1), flags(0, 0, 0, 0, 0), mask=flags(1, 1, 0, 1, 1))
        assert rows(got) == [False, False, False, True, True]

    def test_long_rows(self):
        ended = torch.zeros(2, 1000, 1, dtype=torch.bool)
        ended[0, 997] = True
        got = reaches_ending(ended, torch.zeros_like(ended))
        assert got[0, :998].all() and not got[0, 998:].any() and not got[1].any()
