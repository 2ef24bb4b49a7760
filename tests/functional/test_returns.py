import pytest
import torch
from torch import Tensor

from torchrl.errors import SpecError
from torchrl.functional import gae, reverse_scan, td0_target

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


def slow_gae(reward, value, next_value, terminated, truncated, gamma, lambda_) -> Tensor:
    """One trajectory after the other in Python floats: the definition, term by term."""
    advantage = torch.zeros(reward.shape, dtype=torch.float64)
    for lane in range(reward.shape[0]):
        running = 0.0
        for t in reversed(range(reward.shape[1])):
            at = (lane, t, 0)
            if terminated[at] or truncated[at]:
                running = 0.0
            bootstrap = 0.0 if terminated[at] else float(next_value[at])
            delta = float(reward[at]) + gamma * bootstrap - float(value[at])
            running = delta + gamma * lambda_ * running
            advantage[at] = running
    return advantage


def random_batch(*shape, seed=0, dtype=torch.float64, ending=0.15) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    floats = {
        name: torch.randn(*shape, 1, generator=generator, dtype=torch.float64).to(dtype)
        for name in ("reward", "value", "next_value")
    }
    flags = {
        name: torch.rand(*shape, 1, generator=generator) < ending for name in ("terminated", "truncated")
    }  # both at once happens too
    return floats | flags


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

    def test_lanes_do_not_touch(self):
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

    def test_nothing_is_broadcast(self):
        with pytest.raises(SpecError, match=r"reverse_scan.*\[4, 1\].*\[4, 4\]"):
            reverse_scan(torch.zeros(4, 1), torch.zeros(4, 4))


class TestTd0Target:
    def test_by_hand(self):
        target = td0_target(
            column(1.0, 2.0, 3.0),
            column(10.0, 20.0, float("nan")),
            column(False, False, True, dtype=torch.bool),
            gamma=0.5,
        )
        assert target.squeeze(-1).tolist() == [6.0, 12.0, 3.0]

    def test_nothing_is_broadcast(self):
        row, flag = torch.zeros(4), torch.zeros(4, 1, dtype=torch.bool)
        with pytest.raises(SpecError, match="td0_target"):
            td0_target(row, row.unsqueeze(-1), flag, gamma=0.9)
        with pytest.raises(SpecError, match="td0_target"):
            td0_target(row.unsqueeze(-1), row, flag, gamma=0.9)


class TestGae:
    def test_by_hand(self):
        """Five rows: two steps, the task is over, a time limit, the edge of the batch. γ = λ = ½."""
        advantage, target = gae(
            reward=column(1.0, 1.0, 1.0, 1.0, 1.0),
            value=column(2.0, 4.0, 6.0, 8.0, 10.0),
            next_value=column(4.0, 6.0, 100.0, 20.0, 40.0),
            terminated=column(False, False, True, False, False, dtype=torch.bool),
            truncated=column(False, False, False, True, False, dtype=torch.bool),
            gamma=0.5,
            lambda_=0.5,
        )
        # δ: 1 + 2 - 2 = 1;  1 + 3 - 4 = 0;  1 - 6 = -5;  1 + 10 - 8 = 3;  1 + 20 - 10 = 11
        # A: 1 + ¼·(0 - 5/4) = 0.6875;  0 + ¼·(-5) = -1.25;  -5;  3;  11
        assert advantage.squeeze(-1).tolist() == [0.6875, -1.25, -5.0, 3.0, 11.0]
        assert target.squeeze(-1).tolist() == [2.6875, 2.75, 1.0, 11.0, 21.0]

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 64), (3, 257)])
    @pytest.mark.parametrize("lambda_", [0.0, 0.95, 1.0])
    def test_equals_the_definition(self, shape, lambda_):
        batch = random_batch(*shape)
        advantage, target = gae(**batch, gamma=0.99, lambda_=lambda_)
        expected = slow_gae(**batch, gamma=0.99, lambda_=lambda_)
        torch.testing.assert_close(advantage, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(target, expected + batch["value"], rtol=1e-10, atol=1e-10)

    def test_single_precision_stays_close_to_double(self):
        batch = random_batch(2, 1000, ending=0.002, dtype=torch.float32)
        advantage, _ = gae(**batch, gamma=0.999, lambda_=0.99)
        assert advantage.dtype is torch.float32
        torch.testing.assert_close(
            advantage.double(), slow_gae(**batch, gamma=0.999, lambda_=0.99), rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize("ending", ["terminated", "truncated", "both"])
    def test_concatenated_trajectories_equal_each_alone(self, ending):
        lengths = (1, 4, 9, 2)
        alone = [random_batch(1, length, seed=length, ending=0.0) for length in lengths]
        for batch in alone:
            for name in ("terminated", "truncated"):
                batch[name][:, -1] = ending in (name, "both")
        together = {name: torch.cat([batch[name] for batch in alone], dim=-2) for name in alone[0]}
        expected = [gae(**batch, gamma=GAMMA, lambda_=LAMBDA) for batch in alone]
        for got, each in zip(gae(**together, gamma=GAMMA, lambda_=LAMBDA), zip(*expected, strict=True), strict=True):
            torch.testing.assert_close(got, torch.cat(each, dim=-2), rtol=1e-12, atol=1e-12)

    def test_time_limit_keeps_the_value_and_the_end_of_the_task_does_not(self):
        """What goes wrong when the flags are mixed up: these three must differ."""
        batch = {name: column(1.0) for name in ("reward", "value", "next_value")}
        no, yes = column(False, dtype=torch.bool), column(True, dtype=torch.bool)
        cases = {"step": (no, no), "over": (yes, no), "limit": (no, yes), "both": (yes, yes)}
        got = {
            event: gae(**batch, terminated=terminated, truncated=truncated, gamma=0.5, lambda_=1.0)[0].item()
            for event, (terminated, truncated) in cases.items()
        }
        assert got == {"step": 0.5, "over": 0.0, "limit": 0.5, "both": 0.0}

    def test_masked_rows_reach_nothing(self):
        batch = random_batch(3, 12)
        mask = torch.ones(3, 12, 1, dtype=torch.bool)
        mask[0, 8:], mask[1, 3:5], mask[2, 0] = False, False, False
        # A masked successor ends the trace as a time limit does; this is the reference for the valid rows.
        cut = {name: tensor.clone() for name, tensor in batch.items()}
        cut["truncated"][0, 7] = cut["truncated"][1, 2] = True
        expected = slow_gae(**cut, gamma=GAMMA, lambda_=LAMBDA)
        for name in ("reward", "value", "next_value"):
            batch[name][~mask] = float("nan")
            batch[name].requires_grad_()
        advantage, target = gae(**batch, gamma=GAMMA, lambda_=LAMBDA, mask=mask)
        torch.testing.assert_close(advantage[mask], expected[mask], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(target[mask], (expected + batch["value"])[mask], rtol=1e-12, atol=1e-12)
        assert (advantage[~mask] == 0).all() and (target[~mask] == 0).all()
        (advantage.sum() + target.square().sum()).backward()
        for name in ("reward", "value", "next_value"):
            assert batch[name].grad.isfinite().all() and (batch[name].grad[~mask] == 0).all()
            assert (batch[name].grad[mask] != 0).any()

    @pytest.mark.parametrize("name", ["reward", "value", "next_value", "terminated", "truncated", "mask"])
    def test_nothing_is_broadcast(self, name):
        batch = random_batch(3, 4) | {"mask": torch.ones(3, 4, 1, dtype=torch.bool)}
        batch[name] = batch[name].squeeze(-1)
        with pytest.raises(SpecError, match=r"\[3, 4\]"):
            gae(**batch, gamma=GAMMA, lambda_=LAMBDA)
