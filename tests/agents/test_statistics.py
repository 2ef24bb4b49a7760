"""Figures of batches, and means of them: each over what it counts, whatever the batches."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.agents import LATEST, AdaptPenalty, Figures, MinibatchEpochs, episode_statistics
from torchrl.agents.statistics import MeanMetrics, policy_lag, value_statistics
from torchrl.objectives import Loss

MASK = ("collector", "mask")


def ended(*returns, goes_on=0):
    """Build a batch ``[1, T]`` in which episodes of these returns end, one a step, and then none."""
    num = len(returns) + goes_on
    values = torch.zeros(1, num, 1)
    values[0, : len(returns), 0] = torch.tensor(returns)
    done = torch.arange(num).reshape(1, num, 1) < len(returns)
    after = {"episode_return": values, "episode_length": values.long() + 1, "done": done}
    return TensorDict({"next": TensorDict(after, [1, num])}, [1, num])


class TestMeanMetrics:
    def test_the_return_is_the_mean_over_episodes_not_over_batches(self):
        means = MeanMetrics()
        for batch in (ended(100.0), ended(*[4.0] * 25), ended(goes_on=3)):
            means.add(episode_statistics(batch), batch.numel())
        metrics, num_frames = means.take()
        assert metrics["train/episode_return"] == pytest.approx(200 / 26)
        assert metrics["train/episode_length"] == pytest.approx(226 / 26)
        assert metrics.weights["train/episode_return"] == 26 and num_frames == 29
        assert means.take() == ({}, 0)

    def test_plain_numbers_count_once_for_each_batch(self):
        means = MeanMetrics()
        for value in (1.0, torch.tensor(2.0), 6):
            means.add({"own": value}, 10)
        assert means.take()[0] == {"own": 3.0}

    def test_the_latest_stands(self):
        means = MeanMetrics()
        for value in (1.0, 5.0, 4.0):
            means.add(Figures({"steps": value}, {"steps": LATEST}), 1)
        assert means.take()[0] == {"steps": 4.0}

    def test_one_number_comes_back_as_it_was_and_nothing_counts_for_nothing(self):
        means = MeanMetrics()
        means.add(Figures({"a": 0.1, "b": 7.0}, {"a": 3, "b": 0}), 1)
        assert means.take()[0] == {"a": 0.1}

    def test_means_of_means_are_means_of_all(self):
        values = torch.rand(60, dtype=torch.float64)
        outer = MeanMetrics()
        for part in values.split([1, 29, 30]):
            inner = MeanMetrics()
            for piece in part.split(7):
                inner.add(Figures({"x": piece.mean().item()}, {"x": len(piece)}), 1)
            outer.add(*inner.take())
        assert outer.take()[0]["x"] == pytest.approx(values.mean().item(), rel=1e-12)


def test_lag_counts_by_valid_rows():
    batch = TensorDict({"collector": {"policy_version": torch.tensor([[1, 2, 9]])}}, [1, 3])
    assert policy_lag(batch, 10) == {"collect/policy_lag": 6.0}
    batch[MASK] = torch.tensor([[True, True, False]])
    lag = policy_lag(batch, 10)
    assert (lag, lag.weights) == ({"collect/policy_lag": 8.5}, {"collect/policy_lag": 2})


def test_explained_variance_counts_by_valid_rows():
    values, targets = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.0, 2.0, float("nan")]])
    batch = TensorDict({"state_value": values.unsqueeze(-1), "value_target": targets.unsqueeze(-1)}, [1, 3])
    batch[MASK] = torch.tensor([[True, True, False]])
    explained = value_statistics(batch)
    assert explained["explained_variance"] == pytest.approx(0.75) and explained.weights == {"explained_variance": 2}


class Square(Loss):
    """The mean square of what is far from a weight."""

    def __init__(self):
        layer = nn.Linear(1, 1, bias=False)
        super().__init__(in_keys=["x"], trained=[layer])
        self.layer = layer

    def terms(self, rows):
        return {"loss_square": (self.layer.weight - rows["x"]).square().mean()}

    def divergence(self, batch):
        return torch.tensor(0.25)

    def adapt_(self, kl):
        assert kl == 0.25


@pytest.mark.parametrize(("num", "num_epochs", "rows"), [(8, 3, 24), (10, 3, 24), (3, 2, 6)])
def test_losses_count_by_the_rows_that_steps_saw(num, num_epochs, rows):
    loss = Square()
    optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=0.0)
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=num_epochs, minibatch_size=4, max_grad_norm=1.0)
    metrics = optimise(TensorDict({"x": torch.ones(num, 1)}, [num]))
    num_steps = num_epochs * max(1, num // 4)
    assert metrics.weights == {"loss_square": rows, "grad_norm": num_steps}
    assert metrics["loss_square"] == pytest.approx((loss.layer.weight.item() - 1) ** 2)


def test_the_divergence_of_an_update_counts_by_valid_rows():
    batch, metrics = TensorDict({"collector": {"mask": torch.tensor([[True, True, False]])}}, [1, 3]), Figures()
    AdaptPenalty(Square()).on_optimised(None, batch, metrics)
    assert (metrics, metrics.weights) == ({"loss/kl_update": 0.25}, {"loss/kl_update": 2})


def test_figures_go_together_with_plain_numbers():
    both = (Figures({"a": 1.0}, {"a": 3}) | {"b": 2.0}).renamed(str.upper)
    assert (both, both.weights) == ({"A": 1.0, "B": 2.0}, {"A": 3})
    plain = {"a": 1.0}
    plain |= Figures({"b": 2.0}, {"b": 3})
    assert plain == {"a": 1.0, "b": 2.0}
