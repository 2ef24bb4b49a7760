"""Evaluation in a process of its own: it measures the weights of its launch, and whatever befalls it is said."""

import os
import signal
import time
from functools import partial

import pytest
import torch
from torch import nn

from cases.evaluation import choose_zero, stay_still
from fakes import FOREVER_S, CountingSimulator, FaultySimulator, Gated, PlantedError, wait_until
from torchrl.agents import BesideResult, EvaluationProcess, Evaluator
from torchrl.agents.policy_state import set_state_, state_of
from torchrl.envs import GymEnv, SerialEnv
from torchrl.errors import ConfigError, DeadlineError, EnvError, ProcessError
from torchrl.modules import MLP, Categorical, ExplorationType, ObservationNormalizer, ProbabilisticActor

pytestmark = pytest.mark.usefixtures("leaves_nothing")
CARTPOLE = partial(GymEnv, "CartPole-v1", num_envs=2)
PENDULUM = partial(GymEnv, "Pendulum-v1", num_envs=2)


def make_policy(seed=0, num_cells=16):
    torch.manual_seed(seed)
    module = nn.Sequential(ObservationNormalizer(4), MLP(4, 2, num_cells=(num_cells,)))
    return ProbabilisticActor(module, Categorical, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def change_(policy):
    """Train, so to speak: parameters and statistics."""
    for parameter in policy.parameters():
        parameter.add_(torch.randn_like(parameter))
    policy.module[0].update(torch.randn(50, 4) * 3)


@pytest.fixture
def beside(keep):
    return lambda make_env=CARTPOLE, **options: keep(
        EvaluationProcess(make_env, **{"num_episodes": 3, "seed": 5, **options})
    )


@pytest.mark.parametrize("kind", [ExplorationType.DETERMINISTIC, ExplorationType.RANDOM])
def test_it_measures_the_weights_of_the_launch_and_equals_an_evaluator_here(beside, kind):
    options = {"num_episodes": 3, "seed": 5, "exploration_type": kind}
    here, process, policy = Evaluator(CARTPOLE(), **options), beside(**options), make_policy()
    kept = object()
    for version in range(3):
        expected = here(policy)
        streams = torch.get_rng_state(), policy.generator.get_state()
        process.launch(policy, version=version, frames=10 * version, keep=kept)
        assert torch.equal(torch.get_rng_state(), streams[0])
        assert torch.equal(policy.generator.get_state(), streams[1])
        change_(policy)  # after the launch
        result = process.take()
        assert (result.version, result.frames) == (version, 10 * version) and result.keep is kept
        assert torch.equal(result.evaluation.returns, expected.returns)
        assert torch.equal(result.evaluation.lengths, expected.lengths)


def test_one_asks_whether_it_is_there_and_takes_it_once(beside):
    process = beside()
    assert not process.is_pending and process.poll() is None
    with pytest.raises(ConfigError, match=r"take: expected an evaluation under way, got none. Call launch\(\) first."):
        process.take()
    process.launch(make_policy())
    assert process.is_pending
    with pytest.raises(ConfigError, match=r"launch: expected no evaluation under way.*Call take\(\) first"):
        process.launch(make_policy())
    wait_until(process.is_ready)
    result = process.poll()
    assert isinstance(result, BesideResult) and result.keep is None
    assert not process.is_pending and process.poll() is None


def test_a_launch_returns_at_once(beside):
    process = beside(partial(SerialEnv, partial(CountingSimulator, 10**9)), max_episode_steps=10**9)
    process.launch(stay_still)  # of an episode that has no end
    assert process.is_pending and process.poll() is None


def test_another_policy_is_sent_whole(beside):
    here, process = Evaluator(CARTPOLE(), num_episodes=3, seed=5), beside()
    for policy in (make_policy(1), make_policy(2, num_cells=8)):
        assert torch.equal(process(policy).returns, here(policy).returns)


def test_called_it_waits_and_leaves_one_that_was_launched_to_be_taken(beside):
    process, policy = beside(), make_policy()
    first = process(policy)
    process.launch(policy, version=3)
    change_(policy)
    second = process(policy)
    assert not torch.equal(first.returns, second.returns)
    result = process.take()
    assert result.version == 3 and torch.equal(result.evaluation.returns, first.returns)


def test_what_training_changes_in_a_policy_goes_along():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("hidden", torch.zeros(2), persistent=False)
            self.register_buffer("count", torch.tensor(0))
            self.weight = nn.Parameter(torch.zeros(3))
            self.word = "a"

        def get_extra_state(self):
            return self.word

        def set_extra_state(self, state):
            self.word = state

    trained, other = nn.Sequential(Counting()), nn.Sequential(Counting())
    with torch.no_grad():
        trained[0].weight.add_(1.0)
    trained[0].hidden += 2
    trained[0].count += 3
    trained[0].word = "b"
    state = state_of(trained)
    trained[0].hidden += 2
    trained[0].word = "c"
    set_state_(other, state)
    assert other[0].weight.tolist() == [1, 1, 1] and other[0].hidden.tolist() == [2, 2]
    assert other[0].count.item() == 3 and other[0].word == "b"


@pytest.fixture
def gate(tmp_path):
    """A file; while it exists, the steps of :func:`gated` wait."""
    return tmp_path / "gate"


def gated(gate):
    return GymEnv("Pendulum-v1", num_envs=2, wrappers=[partial(Gated, gate=gate)])


@pytest.mark.parametrize("was_pending", [False, True])
def test_a_process_that_dies_is_replaced_and_the_evaluation_repeated(beside, gate, was_pending):
    process, policy = beside(partial(gated, gate)), stay_still
    expected, first = process(policy), process.pid
    if was_pending:
        gate.touch()
        process.launch(policy, version=4)
        os.kill(first, signal.SIGKILL)
        gate.unlink()
    else:
        os.kill(first, signal.SIGKILL)
        wait_until(partial(process._pool.has_died, 0))
    with pytest.warns(UserWarning, match="killed by SIGKILL.*repeated in another process"):
        if not was_pending:
            process.launch(policy, version=4)
        result = process.take()
    assert result.version == 4 and torch.equal(result.evaluation.returns, expected.returns)
    assert process.num_restarts == 1 and process.pid != first


def test_one_that_dies_twice_is_an_error_and_not_the_end(beside, gate):
    process, policy = beside(partial(gated, gate)), stay_still
    expected = process(policy)
    gate.touch()
    process.launch(policy)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="repeated"):
        while not process.num_restarts:
            process.is_ready()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessError, match="killed by SIGKILL") as caught:
        process.take()
    assert "It was tried twice" in "".join(caught.value.__notes__)
    assert not process.is_pending
    gate.unlink()
    assert torch.equal(process(policy).returns, expected.returns)


def test_each_evaluation_is_repeated_once_whatever_the_one_before_raised(beside):
    def raises(root):
        raise PlantedError("a policy")

    process = beside()
    for policy in (raises, choose_zero):
        os.kill(process.pid, signal.SIGKILL)
        wait_until(partial(process._pool.has_died, 0))
        with pytest.warns(UserWarning, match="repeated"):
            if policy is raises:
                with pytest.raises(PlantedError):
                    process(policy)
            else:
                assert len(process(policy).returns) == 3
    assert process.num_restarts == 2


def test_one_that_takes_too_long_is_stopped(beside):
    process = beside(partial(SerialEnv, partial(CountingSimulator, 10**9)), max_episode_steps=10**9, timeout_s=1.5)
    process.launch(choose_zero)
    pid = process.pid
    with pytest.raises(DeadlineError, match=r"evaluation beside training.*within 1.5 s.*Raise timeout_s"):
        process.take()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not process.is_pending


def test_what_the_environment_raises_is_raised_here_and_the_process_lives_on(beside):
    process = beside(partial(SerialEnv, partial(FaultySimulator, "raises_in_step", from_step=2)))
    pid = process.pid
    for _ in range(2):
        process.launch(choose_zero)
        with pytest.raises(PlantedError) as caught:
            process.take()
        assert f"evaluation beside training, process {pid}" in "".join(caught.value.__notes__)
    assert process.pid == pid


def test_what_was_launched_can_be_discarded(beside):
    process, policy = beside(PENDULUM, num_episodes=200), stay_still
    process.launch(policy)
    process.discard()
    assert not process.is_pending and process.poll() is None
    process.launch(policy, version=2)
    process.discard()
    process.discard()


def test_ctrl_c_in_a_wait_leaves_no_answer_to_be_mistaken(beside, gate):
    process, policy = beside(partial(gated, gate)), stay_still
    expected = process(policy)
    gate.touch()
    process.launch(policy)
    before = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            process.take()  # it cannot end
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not process.is_pending
    gate.unlink()
    assert torch.equal(process(policy).returns, expected.returns)


def test_mistakes_are_refused_at_construction(beside):
    with pytest.raises(ConfigError, match="a callable that makes an Env"):
        EvaluationProcess(CARTPOLE())
    with pytest.raises(ConfigError, match="a callable that makes an Env"):
        EvaluationProcess(dict)
    for name in ("timeout_s", "start_timeout_s"):
        with pytest.raises(ConfigError, match=f"EvaluationProcess, {name}"):
            EvaluationProcess(CARTPOLE, **{name: 0})
    with pytest.raises(DeadlineError, match="expected a start .* within 0.5 s.*Raise start_timeout_s"):
        EvaluationProcess(partial(time.sleep, FOREVER_S), start_timeout_s=0.5)
    with pytest.raises(ConfigError, match="num_episodes: expected at least 1"):
        EvaluationProcess(CARTPOLE, num_episodes=0)
    with pytest.raises(EnvError, match="CartPole-v1"):
        EvaluationProcess(partial(GymEnv, "CartPol-v1"))
    with pytest.raises(ConfigError, match="initialised parameters"):
        beside().launch(nn.LazyLinear(2))


def test_a_closed_one_says_so_and_closes_again_in_time(beside):
    process = beside(partial(SerialEnv, partial(CountingSimulator, 10**9)), max_episode_steps=10**9)
    process.launch(stay_still)  # of an episode that has no end
    process.close()
    process.close()
    with pytest.raises(ProcessError, match="one that was closed"):
        process.launch(stay_still)
