"""The agent's four steps, on CartPole: what happens in which order, what is logged, and how it ends."""

import copy
import math
import signal
import threading

import pytest
import torch
from recorder import Recorder
from tensordict import TensorDict

from cases.same import assert_same_state
from torchrl.agents import BEST, LAST, Hook, ProgressBar, StopAtReturn, episode_statistics, load_checkpoint
from torchrl.errors import CheckpointError, ConfigError, NonFiniteError


class Diary(Hook):
    """Writes down when it is called."""

    def __init__(self):
        self.calls = []

    def on_train_start(self, agent):
        self.calls.append(("start", agent.frames))

    def on_batch(self, agent, batch):
        assert ("next", "reward") in batch.keys(True) and "advantage" not in batch.keys()
        self.calls.append(("batch", agent.frames))

    def on_optimised(self, agent, batch, metrics):
        assert "advantage" in batch.keys()
        metrics["diary/pages"] = 1.0
        self.calls.append(("optimised", agent.frames))

    def on_evaluated(self, agent, result):
        assert result.returns.shape == (3,)
        self.calls.append(("evaluated", agent.frames))

    def on_batch_end(self, agent, report):
        self.calls.append(("batch end", report.frames))
        assert report.num_frames == 128 and report.metrics["diary/pages"] == 1.0
        assert len(report.results) == (agent.evaluator is not None)
        assert agent.logger is None or agent.logger.rows[-1][0] == report.frames  # it was logged before

    def on_complete(self, agent):
        self.calls.append(("complete", agent.frames))

    def on_error(self, agent, error):
        self.calls.append(("error", type(error)))

    def on_train_end(self, agent):
        self.calls.append(("end", agent.frames))


def test_hooks_are_told_in_the_documented_order_and_metrics_are_logged_over_frames(make_agent):
    diary, recorder = Diary(), Recorder()
    agent = make_agent(total_frames=256, evaluate_every=100, hooks=[diary], logger=recorder)
    agent.train()
    assert diary.calls == [
        ("start", 0),
        ("batch", 0),
        ("optimised", 128),
        ("evaluated", 128),
        ("batch end", 128),
        ("batch", 128),
        ("optimised", 256),
        ("evaluated", 256),
        ("batch end", 256),
        ("complete", 256),
        ("end", 256),
    ]
    assert [step for step, _ in recorder.rows] == [128, 256]
    names = {"train/episode_return", "train/episode_length"}
    names |= {"eval/return_mean", "eval/return_std", "eval/policy_version", "diary/pages"}
    names |= {"time/collect_s", "time/optimise_s", "time/evaluate_s", "time/seconds", "time/fps", "time/hours_left"}
    names |= {"collect/policy_lag"}
    losses = {"loss_objective", "loss_critic", "loss_entropy", "approx_kl", "clip_fraction", "entropy", "grad_norm"}
    names |= {f"loss/{name}" for name in (*losses, "explained_variance")}
    for _, metrics in recorder.rows:
        assert metrics.keys() == names
        assert all(math.isfinite(value) for value in metrics.values())
    for phase in ("collect", "optimise", "evaluate"):
        logged = sum(metrics[f"time/{phase}_s"] for _, metrics in recorder.rows)
        assert 0 < logged <= agent.seconds[phase]


def test_every_batch_is_stored_before_it_is_trained_on_and_the_policy_version_counts_them(make_agent):
    kept = []
    agent = make_agent(total_frames=256, store=lambda batch: kept.append((batch.clone(), "advantage" in batch.keys())))
    agent.train()
    assert [has_advantage for _, has_advantage in kept] == [False, False]
    assert [batch["collector", "policy_version"].unique().tolist() for batch, _ in kept] == [[0], [1]]


def test_the_first_ratio_of_every_batch_is_one_although_the_normalizer_learns(make_agent):
    ratios = []

    class Ratio(Hook):
        def on_batch(self, agent, batch):
            with torch.no_grad():
                log_prob = agent.policy.build(batch).log_prob(batch["action"])
            ratios.append((log_prob - batch["action_log_prob"]).exp())

    agent = make_agent(hooks=[Ratio()])
    agent.train()
    assert len(ratios) == 4
    for ratio in ratios:  # a matrix product on 128 rows differs in the last bits from one on 4
        torch.testing.assert_close(ratio, torch.ones(4, 32), atol=1e-6, rtol=0)
    assert agent.policy.module[0].count == 512


def test_training_with_and_without_evaluation_is_bit_identical(make_agent):
    alone, measured = make_agent(), make_agent(evaluate_every=128)
    alone.train()
    measured.train()
    assert measured.best_return > 0
    measured.best_return = alone.best_return
    assert_same_state(alone.state_dict(), measured.state_dict())


def test_a_resumed_run_is_bit_identical_to_one_that_was_not_interrupted(make_agent, tmp_path):
    whole = make_agent(total_frames=768)
    whole.train()
    half = make_agent(total_frames=384)
    half.configuration = {"lr": 1e-3, "cells": [16]}
    half.train()
    half.save(tmp_path / "half.pt")
    torch.manual_seed(12345)
    resumed = make_agent(total_frames=768, seed=7)
    resumed.load(tmp_path / "half.pt")
    assert resumed.frames == 384 and resumed.configuration == {"lr": 1e-3, "cells": [16]}
    resumed.train()
    resumed.configuration = {}
    assert resumed.frames == 768
    assert_same_state(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(make_agent, tmp_path):
    small, large = make_agent(width=8), make_agent(width=16)
    small.save(tmp_path / "small.pt")
    before = copy.deepcopy(large.state_dict())
    with pytest.raises(CheckpointError, match=r"actor.*weight has shape \[8, 4\] instead of \[16, 4\]"):
        large.load(tmp_path / "small.pt")
    assert_same_state(before, large.state_dict())


def test_the_state_of_an_optimizer_of_another_kind_is_refused_and_changes_nothing(make_agent, tmp_path):
    trained, other = make_agent(total_frames=128), make_agent(seed=1)
    trained.train()
    trained.save(tmp_path / "a.pt")
    other.optimise.optimizer = torch.optim.RMSprop(other.loss.trainable_parameters())
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(
        CheckpointError, match="optimizer: expected the state of a RMSprop, with alpha.*got one with.*beta"
    ):
        other.load(tmp_path / "a.pt")
    assert_same_state(before, other.state_dict())


def test_only_the_networks_may_be_loaded(make_agent, tmp_path):
    trained, fresh = make_agent(total_frames=128), make_agent(seed=1)
    trained.train()
    trained.save(tmp_path / "a.pt")
    fresh.load_networks(tmp_path / "a.pt")
    assert_same_state(fresh.loss.state_dict(), trained.loss.state_dict())
    assert fresh.frames == 0 and fresh.optimizer.state_dict()["state"] == {} and fresh.collector.frames == 0
    with pytest.raises(CheckpointError, match="instead of"):
        make_agent(width=8).load_networks(tmp_path / "a.pt")


def test_other_environments_are_refused(make_agent, tmp_path):
    trained = make_agent(total_frames=128)
    trained.train()
    trained.save(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="collector.*environments"):
        make_agent(num_envs=2).load(tmp_path / "a.pt")


def test_best_and_last_are_written_and_best_is_the_best(make_agent, tmp_path):
    results = []

    class Keep(Hook):
        def on_evaluated(self, agent, result):
            state = {name: value.clone() for name, value in agent.loss.state_dict().items()}
            results.append((result.mean, agent.frames, state))
            if agent.frames > 128:  # what a run that dies here would be resumed from
                counters = load_checkpoint(tmp_path / "run" / LAST)["counters"]
                assert counters["best_return"] == max(mean for mean, _, _ in results[:-1])

    agent = make_agent(total_frames=640, evaluate_every=128, hooks=[Keep()], folder=tmp_path / "run")
    agent.train()
    assert len(results) == 5
    mean, frames, state = max(results, key=lambda result: result[0])
    best = load_checkpoint(tmp_path / "run" / BEST)
    assert best["counters"]["frames"] == frames and best["counters"]["best_return"] == mean == agent.best_return
    assert_same_state(best["networks"]["loss"], state)
    last = load_checkpoint(tmp_path / "run" / LAST)
    assert last["counters"]["frames"] == 640 and last["counters"]["best_return"] == mean
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [BEST, LAST]


def test_training_stops_at_the_target_return(make_agent, tmp_path):
    agent = make_agent(total_frames=-1, evaluate_every=256, hooks=[StopAtReturn(1.0)], folder=tmp_path)
    agent.train()
    assert agent.frames == 256 and load_checkpoint(tmp_path / LAST)["counters"]["frames"] == 256
    agent = make_agent(total_frames=384, evaluate_every=128, hooks=[StopAtReturn(501.0)])
    agent.train()
    assert agent.frames == 384


def test_a_non_finite_loss_saves_the_agent_as_it_was_before_the_batch(make_agent, tmp_path):
    class Poison(Hook):
        def on_batch(self, agent, batch):
            if agent.frames == 256:
                batch["next", "reward"][0, 3] = torch.nan

    diary = Diary()
    agent = make_agent(hooks=[Poison(), diary], folder=tmp_path)
    twin = make_agent(total_frames=256)
    twin.train()
    with pytest.raises(NonFiniteError, match="loss_critic") as caught:
        agent.train()
    assert any(LAST in note for note in caught.value.__notes__)
    assert diary.calls[-2:] == [("error", NonFiniteError), ("end", 256)]
    saved, expected = load_checkpoint(tmp_path / LAST), twin.state_dict()
    for part in ("networks", "optimizer"):
        assert_same_state(saved[part], expected[part])
    resumed = make_agent(total_frames=512)
    with pytest.warns(UserWarning, match="New episodes start"):
        resumed.load(tmp_path / LAST)
    resumed.train()
    assert resumed.frames == 384  # the batch that failed was collected, and not trained on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_batch_and_saves_and_sigterm_ends_the_process(make_agent, tmp_path, capsys, number):
    class Press(Diary):
        def on_batch(self, agent, batch):
            if agent.frames == 128:
                signal.raise_signal(number)

    before, hook = signal.getsignal(number), Press()
    agent = make_agent(total_frames=-1, hooks=[hook], folder=tmp_path)
    if number == signal.SIGINT:
        agent.train()
        assert "Stopping" in capsys.readouterr().err
    else:
        with pytest.raises(SystemExit) as ended:
            agent.train()
        assert ended.value.code == 143
    assert agent.frames == 256 and hook.calls[-1] == ("end", 256)
    assert load_checkpoint(tmp_path / LAST)["counters"]["frames"] == 256
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("saves_compiled", [True, False])
def test_a_checkpoint_of_compiled_networks_fits_plain_ones_and_the_reverse(make_agent, tmp_path, saves_compiled):
    def agent(is_compiled, seed):
        agent = make_agent(seed=seed, total_frames=128)
        for part in (agent.loss.actor, agent.loss.critic) if is_compiled else ():
            part.module = torch.compile(part.module, backend="eager")
        return agent

    saved, other = agent(saves_compiled, 0), agent(not saves_compiled, 1)
    saved.save(tmp_path / "a")
    assert not any("_orig_mod" in name for name in load_checkpoint(tmp_path / "a")["networks"]["loss"])
    other.load(tmp_path / "a")
    for mine, its in zip(other.loss.parameters(), saved.loss.parameters(), strict=True):
        assert torch.equal(mine, its)
    other.load_networks(tmp_path / "a")


def test_a_folder_that_cannot_be_written_to_is_found_before_the_first_frame(make_agent, tmp_path):
    (tmp_path / "file").touch()
    hook = Diary()
    agent = make_agent(folder=tmp_path / "file" / "run", hooks=[hook])
    with pytest.raises(ConfigError, match="Agent, folder: expected a folder that can be written to, got .*Not a dir"):
        agent.train()
    assert agent.collector.frames == 0 and hook.calls == []
    make_agent(folder=tmp_path / "new" / "run").train()
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == [LAST]


def test_progress_is_shown_on_request_once(make_agent, capsys):
    agent = make_agent(total_frames=128)
    agent.train(progress=True)
    assert capsys.readouterr().err.startswith("128 of 128 frames, ")
    agent = make_agent(total_frames=128, hooks=[ProgressBar()])
    agent.train(progress=True)
    assert capsys.readouterr().err.count("128 of 128 frames") == 1


def test_minibatches_larger_than_a_batch_are_refused(make_agent):
    with pytest.raises(ConfigError, match="minibatch_size of at most the collector's frames_per_batch=128, got 129"):
        make_agent(minibatch_size=129)
    make_agent(minibatch_size=128)


def test_a_second_training_without_frames_is_refused_and_goes_on_with_more(make_agent):
    agent = make_agent(total_frames=256)
    agent.train()
    with pytest.raises(ConfigError, match=r"Agent.train: expected frames to collect.*collector.total_frames \+="):
        agent.train()
    agent.collector.total_frames += 128
    agent.train()
    assert agent.frames == 384


def test_a_second_ctrl_c_raises_at_once_and_the_hooks_are_told(make_agent, tmp_path):
    class PressTwice(Diary):
        def on_batch(self, agent, batch):
            super().on_batch(agent, batch)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    hook = PressTwice()
    with pytest.raises(KeyboardInterrupt):
        make_agent(hooks=[hook], folder=tmp_path).train()
    assert hook.calls == [("start", 0), ("batch", 0), ("end", 0)]
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_outside_the_main_thread(make_agent):
    agent = make_agent(total_frames=128)
    thread = threading.Thread(target=agent.train)
    thread.start()
    thread.join()
    assert agent.frames == 128


def test_evaluate_needs_an_evaluator(make_agent):
    with pytest.raises(ConfigError, match="evaluator"):
        make_agent().evaluate()


def test_only_hooks_are_taken_as_hooks(make_agent):
    with pytest.raises(ConfigError, match="Hook"):
        make_agent(hooks=[print])


def test_episode_statistics_average_the_endings_of_valid_rows():
    batch = TensorDict(
        {
            ("next", "done"): torch.tensor([[[0], [1], [1]], [[1], [0], [1]]], dtype=torch.bool),
            ("next", "episode_return"): torch.tensor([[[1.0], [2.0], [torch.nan]], [[6.0], [1.0], [7.0]]]),
            ("next", "episode_length"): torch.tensor([[[1], [2], [9]], [[3], [1], [4]]]),
        },
        batch_size=[2, 3],
    )
    batch["collector", "mask"] = torch.tensor([[True, True, False], [True, True, True]])
    assert episode_statistics(batch) == {"train/episode_return": 5.0, "train/episode_length": 3.0}
    batch["next", "done"].fill_(False)
    assert episode_statistics(batch) == {}


def test_rows_that_an_estimator_leaves_out_were_collected_all_the_same(make_agent):
    agent = make_agent(total_frames=256)
    estimate = agent.advantage

    def leave_out_half(batch):
        batch = estimate(batch)
        mask = torch.ones(batch.batch_size, dtype=torch.bool)
        mask[:, ::2] = False
        return batch.set(("collector", "mask"), mask)

    agent.advantage = leave_out_half
    agent.train()
    assert agent.frames == agent.collector.frames == 256
