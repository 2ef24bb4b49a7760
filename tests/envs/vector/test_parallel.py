"""The parallel back end: equal to the serial one, and whatever happens to its processes is an error that names them."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch

from cases.interrupt import assert_ctrl_c_leaves_nothing
from cases.same import assert_same
from fakes import (
    FOREVER_S,
    ActionEchoSimulator,
    CountingEnv,
    CountingSimulator,
    EchoEnv,
    FaultySimulator,
    PlantedError,
    SlowSimulator,
    with_more_time,
)
from torchrl.collectors import Collector
from torchrl.envs import ParallelEnv, SerialEnv, TransformedEnv, check_env
from torchrl.envs.simulators import GymSimulator
from torchrl.envs.transforms import StepCounter
from torchrl.envs.vector.building import shares_of
from torchrl.errors import ConfigError, DeadlineError, EnvError, ProcessError
from torchrl.modules import MLP, Categorical, ProbabilisticActor
from torchrl.processes.children import START_METHODS

pytestmark = pytest.mark.usefixtures("leaves_nothing")
CARTPOLE = partial(GymSimulator, "CartPole-v1")
COUNTING = partial(CountingSimulator, [2, 3, 5], ending=["terminated", "truncated", "both"])


@pytest.fixture
def make(keep):
    return lambda *arguments, **options: keep(ParallelEnv(*arguments, **options))


def act(root):
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def scripted(env, num_steps, seed=3):
    """Return so many transitions by actions that are the same in every back end, ``[*B, T]``."""
    generator = torch.Generator().manual_seed(0)
    root = env.reset(seed=seed)
    steps = []
    for _ in range(num_steps):
        transition, root = env.step_and_reset(root.set("action", env.action_spec.rand(generator=generator)))
        steps.append(transition.clone())
    return torch.stack(steps, dim=len(env.batch_size))


# ---- equal to the serial one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_a_thousand_transitions_are_those_of_a_serial_env(make, num_workers):
    ours = scripted(make(CARTPOLE, 4, num_workers=num_workers), 250)
    assert_same(ours, scripted(SerialEnv(CARTPOLE, 4), 250))
    assert ours["next", "done"].sum() > 20
    first = ours["observation"][:, 0]
    assert len(torch.unique(first, dim=0)) == 4  # different rows differ


def test_a_collector_with_a_policy_sees_the_same_batches(make):
    torch.manual_seed(0)
    actor = ProbabilisticActor(MLP(4, 2), Categorical, generator=torch.Generator())

    def batches(env):
        actor.generator.manual_seed(5)
        collector = Collector(env, actor, frames_per_batch=400, seed=1)
        return torch.stack([collector.collect() for _ in range(3)])

    assert_same(batches(make(CARTPOLE, 4, num_workers=2)), batches(SerialEnv(CARTPOLE, 4)))


@pytest.mark.parametrize("method", START_METHODS)
def test_every_start_method_keeps_the_contract(make, method):
    env = make(COUNTING, 3, num_workers=2, start_method=method)
    check_env(env, num_steps=20)


def test_one_world_has_no_batch_dimension(make):
    env = make(COUNTING)
    assert env.batch_size == () and env.num_workers == 1
    assert_same(scripted(env, 12), scripted(SerialEnv(COUNTING), 12))


def test_nested_actions_and_observations_reach_their_row(make):
    env = make(EchoEnv, 5, num_workers=2)
    action = env.action_spec.rand(generator=torch.Generator().manual_seed(1))
    outcome = env.step(env.reset().set("action", action))["next"]
    for key in ("turn", ("pedals", "0"), ("pedals", "1"), "one"):
        assert torch.equal(outcome[key], action[key]), key


def test_rows_may_be_made_by_factories_of_their_own_with_arguments_of_their_own(make):
    make([partial(CountingSimulator, 9), CountingSimulator, CountingSimulator], num_workers=2)
    env = make(CountingSimulator, 3, num_workers=2, env_kwargs=[{"length": 1}, {"length": 2}, {"length": 3}])
    outcome = scripted(env, 6)["next", "episode_length"].squeeze(-1)
    assert outcome.tolist() == [[1, 1, 1, 1, 1, 1], [1, 2, 1, 2, 1, 2], [1, 2, 3, 1, 2, 3]]
    env = make(CountingSimulator, 2, env_kwargs={"length": 1})
    assert scripted(env, 2)["next", "done"].all()


def test_a_state_goes_on_in_either_back_end(make):
    def going(env):
        root = env.reset(seed=1)
        for _ in range(7):
            _, root = env.step_and_reset(act(root))
        return env

    parallel, serial = going(make(COUNTING, 5, num_workers=2)), going(SerialEnv(COUNTING, 5))
    for state in (parallel.state_dict(), serial.state_dict()):
        runs = []
        for env in (make(COUNTING, 5, num_workers=3), SerialEnv(COUNTING, 5)):
            root, run = env.load_state_dict(state), []
            for _ in range(9):
                transition, root = env.step_and_reset(act(root))
                run.append(transition.clone())
            runs.append(torch.stack(run))
        assert_same(*runs)


def test_pictures_come_in_the_order_of_the_rows(make):
    env = make(partial(CountingEnv, 9), 3, num_workers=2)
    root = env.reset()
    env.step(act(root))
    env.reset(torch.tensor([False, True, False]))
    assert env.render()[:, 0, 0, 0].tolist() == [1, 0, 1]


def test_transforms_take_it_as_any_env(make):
    check_env(TransformedEnv(make(COUNTING, 3, num_workers=2), StepCounter(max_steps=4)), num_steps=20)


def test_the_rows_are_shared_out_as_equally_as_can_be():
    assert shares_of(8, 2) == [range(4), range(4, 8)]
    assert shares_of(5, 3) == [range(2), range(2, 4), range(4, 5)]
    assert shares_of(3, 3) == [range(1), range(1, 2), range(2, 3)]


# ---- when it starts and ends -----------------------------------------------------------------------------------------


SCRIPT = """
import torch
import numpy as np
from gymnasium import spaces
import os, sys
from torchrl.envs import ParallelEnv
from torchrl.envs.simulators import Simulator

class Teller(Simulator):
    def __init__(self):
        self.observation_space = spaces.Box(0, np.inf, (2,), np.float64)
        self.action_space = spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return np.array([os.getpid(), "torch" in sys.modules], np.float64), {}
    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}

opened = []
for method in METHODS:
    env = ParallelEnv(Teller, 4, num_workers=2, start_method=method)  # no `if __name__ == "__main__"`
    pids, has_torch = env.reset()["observation"].unbind(-1)
    assert len(set(pids.tolist())) == 2 and os.getpid() not in pids.tolist()
    assert method == "fork" or not has_torch.any()
    print(method)
    opened.append(env)
"""


def test_a_script_needs_no_main_guard_and_its_workers_no_torch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("METHODS", repr(START_METHODS)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout.split() == list(START_METHODS), done.stderr


def test_it_is_an_environment_from_its_constructor_on(make):
    env = make(COUNTING, 2)
    assert len(env.pids) == env.num_workers == min(2, len(os.sched_getaffinity(0)))
    assert env.batch_size == (2,) and env.observation_spec["observation"].shape == (2, 1) and "num_workers" in repr(env)
    env.close()
    for name in ("_repr_html_", "shape", "obsevation_spec"):
        with pytest.raises(AttributeError, match=name):
            getattr(env, name)
    assert env.action_spec.shape == (2,) and not env.pids  # a look starts nothing


def test_it_may_be_used_again_after_a_close(make):
    env = make(COUNTING, 4, num_workers=2)
    before = scripted(env, 10)
    env.close()
    env.close()
    with pytest.raises(EnvError, match="processes that are not running"):
        env.step(act(before[:, 0].exclude("next")))
    with pytest.raises(EnvError, match="for all rows first"):
        env.reset(torch.tensor([True, False, False, False]))
    assert_same(scripted(env, 10), before)


def test_fifty_rounds_leave_nothing(make):
    scripted(make(COUNTING, 2, num_workers=2), 1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        env = ParallelEnv(COUNTING, 2, num_workers=2)
        env.reset()
        env.close()
        del env
    assert len(os.listdir("/proc/self/fd")) <= before


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_an_exception_in_a_constructor_keeps_its_type_and_names_worker_and_row(make):
    factories = [FaultySimulator, FaultySimulator, partial(FaultySimulator, "raises_in_init"), FaultySimulator]
    with pytest.raises(PlantedError, match="planted in __init__") as caught:
        make(factories, num_workers=2)
    notes = "\n".join(caught.value.__notes__)
    assert "row 2" in notes and "worker 1 (rows 2 to 3)" in notes and "Traceback" in notes


@pytest.mark.parametrize("fault", ["raises_in_reset", "raises_in_step"])
def test_an_exception_of_a_simulator_keeps_its_type_and_names_worker_and_row(make, fault):
    env = make([FaultySimulator, FaultySimulator, FaultySimulator, partial(FaultySimulator, fault)], num_workers=2)
    with pytest.raises(PlantedError, match=f"planted in {fault.removeprefix('raises_in_')}") as caught:
        env.step(act(env.reset()))
    notes = "\n".join(caught.value.__notes__)
    assert "row 3" in notes and "worker 1 (rows 2 to 3)" in notes


def test_after_a_failed_step_all_rows_must_be_reset_and_go_on(make):
    env = make([partial(FaultySimulator, "raises_in_step", from_step=3), FaultySimulator], num_workers=2)
    root = env.reset()
    with pytest.raises(PlantedError):
        for _ in range(3):
            _, root = env.step_and_reset(act(root))
    with pytest.raises(EnvError, match=r"in between.*reset\(\)"):
        env.step_and_reset(act(root))
    root = env.reset()
    assert root["observation"].tolist() == [[0], [0]]
    _, root = env.step_and_reset(act(root))
    assert root["observation"].tolist() == [[1], [1]]


@pytest.mark.parametrize("fault", ["observation_shape", "reward_list"])
def test_what_a_serial_env_refuses_is_refused_with_the_row(make, fault):
    env = make([FaultySimulator, partial(FaultySimulator, fault)], num_workers=2)
    with pytest.raises((ValueError, RuntimeError), match="row 1"):
        env.step(act(env.reset()))


def test_factories_of_something_else_and_unlike_spaces_are_refused(make):
    with pytest.raises(EnvError, match="ParallelEnv.*a simulator"):
        make(dict, 2)
    with pytest.raises(EnvError, match=r"the same \w+ in every row.* in row 1"):
        make([CountingSimulator, ActionEchoSimulator], num_workers=2)
    with pytest.raises(EnvError, match=r"the same \w+ in every row.* in row 1"):
        make([CountingSimulator, ActionEchoSimulator], num_workers=1)


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_named_at_once(make, when, victim):
    seconds = FOREVER_S if when == "during" else 0.0
    env = make(partial(SlowSimulator, seconds), 4, num_workers=2, timeout_s=FOREVER_S)
    root = env.reset()
    if when == "after":
        _, root = env.step_and_reset(act(root))
    kill = partial(os.kill, env.pids[victim], signal.SIGKILL)
    if when == "during":
        threading.Timer(0.3, kill).start()
    else:
        kill()
    with pytest.raises(ProcessError, match=rf"worker {victim} \(rows .*killed by SIGKILL"):
        env.step_and_reset(act(root))
    assert env.reset()["observation"].tolist() == [[0]] * 4  # others take its place


def test_a_worker_that_is_killed_in_the_middle_of_a_batch_ends_the_batch(make):
    env = make(partial(SlowSimulator, 0.002), 4, num_workers=2)
    collector = Collector(env, frames_per_batch=4000)
    threading.Timer(0.5, lambda: os.kill(env.pids[1], signal.SIGKILL)).start()
    with pytest.raises(ProcessError, match="worker 1"):
        collector.collect()
    env._worker._arguments["factories"][:] = [CountingSimulator] * 4
    batch = collector.collect()  # new processes, new episodes
    assert batch["is_init"][:, 0].all()


def test_a_simulator_that_blocks_for_ever_is_ended(make):
    def attempt(seconds):
        env = make([partial(SlowSimulator, 0), partial(SlowSimulator, FOREVER_S)], num_workers=2, timeout_s=seconds)
        root = env.reset()
        with pytest.raises(DeadlineError, match=rf"worker 1 \(row 1\).*an answer within {seconds:g} s"):
            env.step_and_reset(act(root))

    with_more_time(attempt)


def test_a_constructor_that_blocks_for_ever_is_ended(make):
    makers = [CountingSimulator, partial(time.sleep, FOREVER_S)]
    with pytest.raises(DeadlineError, match=r"worker \d .*expected a start .* within 0.5 s.*Raise start_timeout_s"):
        make(makers, num_workers=2, timeout_s=FOREVER_S, start_timeout_s=0.5)


INTERRUPTED = """
from functools import partial
import torch
from fakes import SlowSimulator
from torchrl.envs import ParallelEnv
env = ParallelEnv(partial(SlowSimulator, 0.01), 2, num_workers=2)
root = env.reset()
print(*env.pids, flush=True)
while True:
    _, root = env.step_and_reset(root.set("action", torch.zeros(2, dtype=torch.int64)))
"""


def test_ctrl_c_in_the_middle_leaves_nothing():
    assert_ctrl_c_leaves_nothing(INTERRUPTED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 2, "num_workers": 3}, "num_workers from 1 to the 2 rows"),
        ({"num_envs": 0}, "num_envs of at least 1"),
        ({"num_envs": 2, "env_kwargs": [{}]}, "one for each of the 2 rows"),
        ({"num_envs": 2, "timeout_s": 0}, "timeout_s: expected a positive number of seconds"),
        ({"num_envs": 2, "start_timeout_s": 0}, "start_timeout_s: expected a positive number of seconds"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ParallelEnv(CountingSimulator, **arguments)


def test_no_such_start_method_is_refused(make):
    with pytest.raises(ConfigError, match="start_method"):
        make(CountingSimulator, 2, start_method="thread")
