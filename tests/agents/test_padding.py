"""The law of padding for what agents do with a batch: rows that the mask rules out reach no number and no parameter."""

import importlib
import inspect
import pkgutil
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from cases.padding import MASK, poisoned
from torchrl import agents
from torchrl.agents import (
    AdaptPenalty,
    Agent,
    Anneal,
    Hook,
    MinibatchEpochs,
    ProgressBar,
    ReplayUpdates,
    RewardScale,
    StepExploration,
    SuccessShare,
    UpdateNormalizer,
    episode_statistics,
)
from torchrl.agents.parts import GradientSteps
from torchrl.agents.sequences import valid_rows, valid_sequences
from torchrl.agents.statistics import Figures, num_valid_frames, policy_lag, value_statistics
from torchrl.data import specs
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.modules import (
    MLP,
    Categorical,
    EGreedy,
    ObservationNormalizer,
    ProbabilisticActor,
    QValueActor,
    ValueOperator,
)
from torchrl.objectives import DQNLoss, KLPenaltyPPOLoss

SUMS = ("weight", "mean", "square")  # of returns


def make_loss():
    torch.manual_seed(0)
    actor = ProbabilisticActor(MLP(3, 2, num_cells=(8,)), Categorical)
    return KLPenaltyPPOLoss(actor, ValueOperator(MLP(3, 1, num_cells=(8,))), entropy_coef=0.01)


def take_steps(batch):
    """Take the gradient steps of two epochs; return what is logged, and the parameters."""
    loss = make_loss()
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    step = MinibatchEpochs(loss, optimizer, num_epochs=2, minibatch_size=4, max_grad_norm=0.5, generator=generator)
    return step(batch), loss.state_dict()


def adapt_penalty(batch):
    loss, metrics = make_loss(), {}
    AdaptPenalty(loss).on_optimised(None, batch, metrics)
    return metrics, loss.state_dict()


def update_normalizer(batch):
    normalizer, metrics = ObservationNormalizer(3), {}
    UpdateNormalizer(normalizer).on_optimised(None, batch, metrics)
    return metrics, normalizer.state_dict()


def read_rows(batch):
    return valid_rows(batch, ["observation", ("next", "reward")]).to_dict()


def policy_lag_of(batch):
    return policy_lag(batch, 20)


def scale_rewards(batch):
    """Return the sums over all rows, none of which goes on; they fade by the place in time, which tests change."""
    scale = RewardScale(0.9, decay=1.0)
    scale.update(batch.set("is_init", torch.ones(*batch.batch_size, 1, dtype=torch.bool)))
    return {name: scale.state_dict()[name] for name in SUMS}


def count_frames(batch):
    """Count in updates that wait for more frames than there are."""
    loss = DQNLoss(QValueActor(MLP(3, 2)))
    optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=0.1)
    updates = ReplayUpdates(loss, optimizer, ReplayBuffer(TensorStorage(8)), batch_size=4, start_frames=100)
    updates(batch)
    return updates.num_frames


def step_exploration(batch):
    policy = EGreedy(QValueActor(MLP(3, 2)), specs.Categorical(2), num_frames=100)
    StepExploration().on_optimised(SimpleNamespace(policy=policy), batch, {})
    return policy.frames.item()


def share_successes(batch):
    metrics = Figures()
    batch["next", "is_success"] = batch["next", "reward"].clamp(min=0)
    SuccessShare("is_success").on_optimised(None, batch, metrics)
    return {name: (value, metrics.weights[name]) for name, value in metrics.items()}


# What is called with a batch, and what it leaves behind: numbers to log, and state.
CASES = {
    episode_statistics: episode_statistics,
    value_statistics: value_statistics,
    num_valid_frames: num_valid_frames,
    valid_rows: read_rows,
    MinibatchEpochs: take_steps,
    AdaptPenalty: adapt_penalty,
    UpdateNormalizer: update_normalizer,
    policy_lag: policy_lag_of,
    ReplayUpdates: count_frames,
    RewardScale: scale_rewards,
    StepExploration: step_exploration,
    SuccessShare: share_successes,
}
# They ask only the agent, which hands batches on; the last keeps masked steps, and the mask with them.
NEVER_LOOK = {Agent, Hook, Anneal, ProgressBar, GradientSteps, valid_sequences}


def is_told_of_a_batch(x):
    methods = [x] if inspect.isfunction(x) else [m for m in vars(x).values() if inspect.isfunction(m)]
    public = [method for method in methods if not method.__name__.startswith("_") or method.__name__ == "__call__"]
    return any("batch" in inspect.signature(method).parameters for method in public)


def make_batch():
    """Three lanes of six rows, as a policy and an estimator left them; a third of the rows is valid no more."""
    generator = torch.Generator().manual_seed(2)
    normal = lambda *tail: torch.randn(3, 6, *tail, generator=generator)  # noqa: E731
    batch = TensorDict({"observation": normal(3), "logits": normal(2)}, batch_size=[3, 6])
    batch["action"] = torch.randint(2, (3, 6), generator=generator)
    batch["action_log_prob"] = Categorical(batch["logits"]).log_prob(batch["action"])
    for key in ("advantage", "state_value", "value_target", ("next", "reward"), ("next", "episode_return")):
        batch[key] = normal(1)
    batch["next", "episode_length"] = torch.randint(1, 9, (3, 6, 1), generator=generator)
    batch["next", "done"] = torch.rand(3, 6, 1, generator=generator) < 0.5
    batch["collector", "policy_version"] = torch.randint(20, (3, 6), generator=generator)
    return batch


def test_whatever_is_told_of_a_batch_is_among_the_cases():
    modules = [importlib.import_module(f"torchrl.agents.{info.name}") for info in pkgutil.iter_modules(agents.__path__)]
    own = {x for m in modules for n, x in vars(m).items() if getattr(x, "__module__", "") == m.__name__ and n[0] != "_"}
    told = {x for x in own if (inspect.isfunction(x) or inspect.isclass(x)) and is_told_of_a_batch(x)}
    assert told == CASES.keys() | NEVER_LOOK


@pytest.mark.parametrize("case", CASES.values(), ids=[x.__name__ for x in CASES])
class TestPadding:
    def test_masked_rows_reach_nothing(self, case):
        batch, mask = make_batch(), torch.arange(18).reshape(3, 6) % 3 != 1
        assert (batch["next", "done"].squeeze(-1) & mask).any()
        torch.testing.assert_close(case(poisoned(batch, mask)), case(batch[mask]), rtol=0, atol=0)

    def test_a_mask_that_is_true_everywhere_changes_nothing(self, case):
        batch = make_batch()
        expected = case(batch.clone())
        torch.testing.assert_close(case(batch.set(MASK, torch.ones(3, 6, dtype=torch.bool))), expected, rtol=0, atol=0)

    def test_a_batch_without_a_valid_row_leaves_no_number_and_no_trace(self, case):
        nothing = case(poisoned(make_batch(), torch.zeros(3, 6, dtype=torch.bool)))
        if case in (take_steps, adapt_penalty, update_normalizer):
            metrics, state = nothing
            fresh = (make_loss() if case is not update_normalizer else ObservationNormalizer(3)).state_dict()
            assert metrics == {}
            torch.testing.assert_close(state, fresh, rtol=0, atol=0)
        elif case is read_rows:
            assert nothing["observation"].shape == (0, 3)
        else:
            assert nothing in ({}, {"explained_variance": 0.0}, 0, dict.fromkeys(SUMS, 0.0))
