"""Evaluation in the course of a training, here and beside it: the same results, and no trace in the training."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
from recorder import Recorder
from torch.utils._pytree import tree_flatten

from torchrl.agents import BEST, LAST, Evaluation, Hook, StopAtReturn, load_checkpoint
from torchrl.agents.evaluate_beside import BesideResult, EvaluationProcess
from torchrl.errors import ProcessError


def evaluations(recorder):
    """Return the frames, mean return and version of the weights of every evaluation in a log."""
    names = "eval/return_mean", "eval/policy_version"
    return [(step, *(row[name] for name in names)) for step, row in recorder.rows if names[0] in row]


class Weights(Hook):
    """Keeps the weights after every batch, by frames, and how many evaluations came."""

    def __init__(self):
        self.after, self.means = {}, []

    def on_optimised(self, agent, batch, metrics):
        self.after[agent.frames] = dict(copy.deepcopy(agent.loss.state_dict()))

    def on_evaluated(self, agent, result):
        assert isinstance(result, Evaluation)
        self.means.append(result.mean)


class Scripted(EvaluationProcess):
    """No process: results that are ready when the script says so."""

    def __init__(self, means, every_frames, *, slow=False):
        self.every_frames = every_frames
        self.means, self.slow = list(means), slow
        self.calls, self._done = [], None
        self.discarded = 0

    @property
    def is_pending(self):
        return self._done is not None

    def launch(self, policy, *, learned=None, version=0, frames=0, keep=None):
        assert not self.is_pending
        self.calls.append(("launch", frames))
        evaluation = Evaluation(torch.tensor([self.means.pop(0)]), torch.tensor([1]))
        self._done = BesideResult(evaluation, version, frames, keep)

    def poll(self):
        return None if self.slow else self.take()

    def take(self):
        result, self._done = self._done, None
        self.calls.append(("take", result.frames))
        return result

    def discard(self):
        self.discarded += self.is_pending
        self._done = None

    def close(self):
        pass


def same(one, other):
    (ours, form), (theirs, other_form) = tree_flatten(one), tree_flatten(other)
    return form == other_form and all(map(_equal, ours, theirs))


def _equal(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else np.array_equal(one, other)


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_is_bit_identical_without_evaluation_with_it_here_and_beside(make_agent, tmp_path, num_workers):
    runs = {}
    for kind in ("without", "here", "beside"):
        options = {} if kind == "without" else {"evaluate_every": 128, "beside": kind == "beside"}
        logger, hook = Recorder(), Weights()
        agent = make_agent(**options, num_workers=num_workers, hooks=[hook], logger=logger, folder=tmp_path / kind)
        agent.train()
        if agent.evaluator is not None and kind == "beside":
            agent.evaluator.close()
        state = agent.state_dict()
        agent.collector.shutdown()
        runs[kind] = (state, evaluations(logger), hook, agent.best_return)
    for kind in ("here", "beside"):
        for part in ("networks", "optimizer", "generators", "collector", "torch_rng"):
            assert same(runs[kind][0][part], runs["without"][0][part]), (kind, part)
    assert runs["here"][1] == runs["beside"][1]  # the same frames, returns and versions
    assert [(frames, version) for frames, _, version in runs["beside"][1]] == [(128 * n, n) for n in (1, 2, 3, 4)]
    assert runs["here"][3] == runs["beside"][3] > 0
    best = [load_checkpoint(tmp_path / kind / BEST) for kind in ("here", "beside")]
    assert same(best[0]["networks"]["loss"], best[1]["networks"]["loss"])
    assert best[0]["counters"]["best_return"] == best[1]["counters"]["best_return"]
    assert best[0]["counters"]["frames"] == best[1]["counters"]["frames"]


def test_best_holds_what_was_measured_and_not_what_is_there_when_the_result_comes(make_agent, tmp_path):
    hook, logger = Weights(), Recorder()
    evaluator = Scripted([3.0, 9.0, 5.0], every_frames=256, slow=True)
    agent = make_agent(total_frames=768, evaluator=evaluator, hooks=[hook], logger=logger, folder=tmp_path)
    agent.train()
    expected = [("launch", 256), ("take", 256), ("launch", 512), ("take", 512), ("launch", 768), ("take", 768)]
    assert evaluator.calls == expected  # one that is late is waited for, when the next is due and at the end
    assert evaluations(logger) == [(256, 3.0, 2.0), (512, 9.0, 4.0), (768, 5.0, 6.0)] and hook.means == [3.0, 9.0, 5.0]
    best, last = load_checkpoint(tmp_path / BEST), load_checkpoint(tmp_path / LAST)
    assert same(best["networks"]["loss"], hook.after[512])
    assert best["counters"]["frames"] == 512 and best["counters"]["best_return"] == 9.0 == agent.best_return
    assert same(last["networks"]["loss"], hook.after[768]) and last["counters"]["best_return"] == 9.0


def test_a_result_that_is_there_is_taken_with_the_next_batch(make_agent):
    class Later(Scripted):
        def poll(self):
            is_first_look = ("look", self._done.frames) not in self.calls
            self.calls.append(("look", self._done.frames))
            return None if is_first_look else self.take()

    logger, evaluator = Recorder(), Later([3.0, 4.0], every_frames=256)
    make_agent(total_frames=512, evaluator=evaluator, logger=logger).train()
    assert evaluator.calls[:4] == [("launch", 256), ("look", 256), ("look", 256), ("take", 256)]
    assert [frames for frames, _, _ in evaluations(logger)] == [256, 512]


def test_a_target_that_a_late_result_reaches_ends_the_training_and_the_last_weights_are_measured_too(make_agent):
    evaluator = Scripted([9.0, 1.0], every_frames=128, slow=True)
    agent = make_agent(total_frames=-1, evaluator=evaluator, hooks=[StopAtReturn(9.0)])
    agent.train()
    assert evaluator.calls == [("launch", 128), ("take", 128), ("launch", 256), ("take", 256)]
    assert agent.frames == 256


def test_ctrl_c_drops_the_one_under_way(make_agent, tmp_path, capsys):
    class Press(Hook):
        def on_batch(self, agent, batch):
            if agent.frames == 128:
                signal.raise_signal(signal.SIGINT)

    evaluator = Scripted([9.0, 1.0], every_frames=128, slow=True)
    agent = make_agent(total_frames=-1, evaluator=evaluator, hooks=[Press()], folder=tmp_path)
    agent.train()
    assert agent.frames == 256 and evaluator.calls == [("launch", 128)] and evaluator.discarded == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST]


def test_a_loaded_checkpoint_drops_the_one_under_way(make_agent, tmp_path):
    class Reload(Hook):
        def on_batch(self, agent, batch):
            if agent.frames == 128 and not evaluator.discarded:
                agent.load(tmp_path / "start.pt")

    evaluator = Scripted([9.0, 1.0, 2.0, 3.0, 4.0], every_frames=128, slow=True)
    agent = make_agent(total_frames=384, evaluator=evaluator, hooks=[Reload()])
    agent.save(tmp_path / "start.pt")
    agent.train()
    assert evaluator.discarded == 1
    assert evaluator.calls[:3] == [("launch", 128), ("launch", 128), ("take", 128)]


@pytest.mark.usefixtures("leaves_nothing")
def test_an_evaluation_process_that_cannot_live_ends_the_training_with_the_agent_saved(make_agent, tmp_path):
    class Kill(Hook):
        def on_batch(self, agent, batch):
            if agent.frames == 128:
                os.kill(agent.evaluator.pid, signal.SIGKILL)

        def on_optimised(self, agent, batch, metrics):
            if agent.frames == 256:
                with pytest.warns(UserWarning, match="repeated in another process"):
                    while not agent.evaluator.num_restarts:
                        agent.evaluator.is_ready()
                os.kill(agent.evaluator.pid, signal.SIGKILL)

    agent = make_agent(evaluate_every=128, beside=True, folder=tmp_path, hooks=[Kill()])
    launch = agent.evaluator.launch

    def stopped(*arguments, **options):  # so that it cannot have finished before it is killed
        os.kill(agent.evaluator.pid, signal.SIGSTOP)
        launch(*arguments, **options)

    agent.evaluator.launch = stopped
    with pytest.raises(ProcessError, match="evaluation beside training.*killed by SIGKILL") as caught:
        agent.train()
    assert any(LAST in note for note in caught.value.__notes__)
    assert load_checkpoint(tmp_path / LAST)["counters"]["frames"] == 256
    agent.evaluator.close()


@pytest.mark.usefixtures("leaves_nothing")
def test_an_agent_evaluates_beside_on_request_too(make_agent):
    agent, here = make_agent(evaluate_every=10_000, beside=True), make_agent(evaluate_every=10_000)
    assert torch.equal(agent.evaluate().returns, here.evaluate().returns)
    agent.evaluator.close()
