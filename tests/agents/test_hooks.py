"""The hooks that come with the agent, each called as the agent calls it."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.agents import (
    AdaptPenalty,
    Evaluation,
    Figures,
    Hook,
    ProgressBar,
    StopAtReturn,
    SuccessShare,
    UpdateNormalizer,
)
from torchrl.agents.hooks import check_hooks
from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import Categorical, ObservationNormalizer, ProbabilisticActor, ValueOperator
from torchrl.objectives import KLPenaltyPPOLoss


class Stub:
    """An agent as far as hooks look at it."""

    def __init__(self, frames=0, total_frames=-1):
        self.frames = frames
        self.collector = SimpleNamespace(total_frames=total_frames)
        self.evaluator = None
        self.is_stopped = False

    def stop(self):
        self.is_stopped = True


def result(*returns):
    return Evaluation(torch.tensor(returns), torch.ones(len(returns), dtype=torch.int64))


def test_a_hook_does_nothing_by_default():
    hook, agent = Hook(), Stub()
    hook.on_train_start(agent)
    hook.on_batch(agent, None)
    hook.on_optimised(agent, None, {})
    hook.on_evaluated(agent, result(1.0))
    hook.on_train_end(agent)
    assert not agent.is_stopped


@pytest.mark.parametrize(("returns", "is_stopped"), [((474.0, 475.0), False), ((474.0, 476.0), True)])
def test_stop_at_return_looks_at_the_mean(returns, is_stopped):
    agent = Stub()
    StopAtReturn(475.0).on_evaluated(agent, result(*returns))
    assert agent.is_stopped is is_stopped


def test_the_share_of_successes_is_of_the_valid_episodes_that_ended():
    step = {"done": torch.tensor([[0, 1, 0, 1], [0, 1, 0, 1]], dtype=torch.bool).unsqueeze(-1)}
    step["reached"] = torch.tensor([[1, 0, 0, 2], [1, 1, 1, 0]])
    batch = TensorDict({"next": step}, batch_size=[2, 4])
    metrics = Figures()
    SuccessShare("reached").on_optimised(Stub(), batch, metrics)
    assert metrics == {"train/success_share": 0.5} and metrics.weights == {"train/success_share": 4}
    batch["collector", "mask"] = torch.tensor([[True] * 4, [True] * 3 + [False]])
    SuccessShare("reached").on_optimised(Stub(), batch, metrics)
    assert metrics["train/success_share"] == pytest.approx(2 / 3)
    empty = Figures()
    SuccessShare("reached").on_optimised(Stub(), batch[:, :1], empty)
    assert not empty
    with pytest.raises(KeyMissing, match="reeched"):
        SuccessShare("reeched").on_optimised(Stub(), batch, metrics)


def test_the_normalizer_learns_from_the_valid_rows_only():
    normalizer = ObservationNormalizer(1)
    batch = TensorDict({"position": torch.tensor([[[1.0], [3.0], [torch.nan]]])}, batch_size=[1, 3])
    batch["collector", "mask"] = torch.tensor([[True, True, False]])
    UpdateNormalizer(normalizer, key="position").on_optimised(Stub(), batch, {})
    assert normalizer.count == 2 and normalizer.mean == 2.0 and normalizer.var == 1.0
    with pytest.raises(KeyMissing, match="observation"):
        UpdateNormalizer(normalizer).on_optimised(Stub(), batch, {})


def test_the_progress_bar_follows_the_frames_from_where_a_run_stands(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar, agent = ProgressBar(), Stub(frames=100, total_frames=400)
    bar.on_train_start(agent)
    agent.frames = 200
    bar.on_optimised(agent, None, {"train/episode_return": 12.3})
    bar.on_evaluated(agent, result(42.0))
    agent.frames = 400
    bar.on_optimised(agent, None, {})
    bar.on_train_end(agent)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "400/400" in last and "train=12.3" in last and "eval=42.0" in last
    bar.on_train_end(agent)  # a second end is harmless
    assert not capsys.readouterr().err


@pytest.mark.parametrize("every_frames", [None, 50])
def test_in_a_file_progress_is_a_line_for_each_record(capsys, every_frames):
    bar, agent = ProgressBar(), Stub(frames=0, total_frames=400)
    agent.evaluator = SimpleNamespace(every_frames=every_frames)
    bar.on_train_start(agent)
    for agent.frames in range(1, 401):
        bar.on_optimised(agent, None, {"train/episode_return": agent.frames / 2})
        if every_frames is not None and agent.frames % 200 == 0:
            bar.on_evaluated(agent, result(42.0))
    bar.on_train_end(agent)
    lines = capsys.readouterr().err.splitlines()
    if every_frames is None:
        assert len(lines) == 10 and lines[0].startswith("40 of 400 frames, ") and lines[0].endswith(", train 20.0")
        assert "frames, 0:00:00 left, " in lines[0] and "left" not in lines[-1]
    else:
        assert len(lines) == 2 and lines[0].startswith("200 of 400 frames, ")
        assert lines[0].endswith("frames/s, train 100.0, eval 42.0") and "\r" not in "".join(lines)


def test_progress_counts_to_the_end_of_the_last_whole_batch(capsys):
    bar, agent = ProgressBar(), Stub(frames=100, total_frames=400)
    agent.collector.frames_per_batch = 256
    agent.evaluator = SimpleNamespace(every_frames=50)
    bar.on_train_start(agent)
    agent.frames = 612  # 100 + 2 * 256
    bar.on_evaluated(agent, result(42.0))
    assert capsys.readouterr().err.startswith("612 of 612 frames, ")


def test_a_method_that_is_no_named_point_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'on_batch'"):
        type("Typo", (Hook,), {"on_bach": lambda self, agent, batch: None})
    with pytest.raises(ConfigError, match="'after_batch'"):
        type("Guess", (Hook,), {"after_batch": lambda self, agent, batch: None})


def test_the_penalty_follows_the_divergence_of_each_update():
    actor = ProbabilisticActor(nn.Linear(1, 2), Categorical)
    loss = KLPenaltyPPOLoss(actor, ValueOperator(nn.Linear(1, 1)), kl_target=0.01, kl_coef=1.0)
    batch = actor(TensorDict({"observation": torch.ones(4, 1)}, [4]))
    batch.update({"advantage": torch.ones(4, 1), "value_target": torch.ones(4, 1)})
    metrics = {}
    AdaptPenalty(loss).on_optimised(Stub(), batch, metrics)
    assert metrics == {"loss/kl_update": 0.0} and loss.kl_coef == 0.5
    with torch.no_grad():
        actor.module.bias += torch.tensor([3.0, 0.0])
    AdaptPenalty(loss).on_optimised(Stub(), batch, metrics)
    assert metrics["loss/kl_update"] > 0.015 and loss.kl_coef == 1.0


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (ProgressBar(), r"got ProgressBar. Write hooks=\[ProgressBar\(...\)\]"),
        (None, r"got NoneType. Write hooks=\(\) for none"),
        ([print], "instances of Hook, got <built-in function print>"),
        ([Hook], r"instances of Hook, got the class Hook. Write Hook\(...\)"),
    ],
)
def test_what_is_no_list_of_hooks_is_refused(hooks, message):
    with pytest.raises(ConfigError, match=message):
        check_hooks(hooks)


def test_hooks_from_a_generator_are_all_kept():
    bars = [ProgressBar(), ProgressBar()]
    assert check_hooks(bar for bar in bars) == tuple(bars)
