"""Flags about processes: who collects, who steps, who evaluates, and what happens when one dies."""

import os
import signal

import pytest
import torch

from cases.examples import load, settings_of
from torchrl.agents import EvaluationProcess
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.envs import ParallelEnv, SerialEnv, TransformedEnv
from torchrl.errors import ConfigError
from torchrl.recipes import make_evaluator

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def parse(*flags):
    return settings_of("ppo", "--num_envs=4", "--frames_per_batch=40", "--total_frames=80", *flags)


def build(*flags):
    return load("ppo").make_agent(parse(*flags)).collector


def test_workers_share_the_environments_of_one_process():
    alone, shared = build(), build("--num_workers=2", "--collection_devices", "cpu", "cpu", "--max_episode_steps=6")
    try:
        assert type(alone) is Collector and type(shared) is MultiSyncCollector
        assert len(shared.pids) == 2 and shared.num_envs == 4
        batches = list(shared)
        assert [batch.batch_size for batch in batches] == [(4, 10)] * 2
        assert torch.equal(batches[0]["observation"][:, 0], alone.collect()["observation"][:, 0])
        assert batches[0]["next", "truncated"][:, :6].any()  # the flags of the environment reach the workers
    finally:
        alone.shutdown()
        shared.shutdown()


@pytest.mark.parametrize("choice", ["raise", "restart"])
def test_a_worker_that_dies_is_replaced_on_request(choice):
    collector = build("--num_workers=2", f"--on_worker_failure={choice}")
    try:
        collector.collect()
        os.kill(collector.pids[1], signal.SIGKILL)
        if choice == "restart":
            assert collector.collect().batch_size == (4, 10)
            assert (collector.num_restarts, collector.dropped_frames) == (1, 20)
        else:
            with pytest.raises(RuntimeError, match="worker 1.*killed by SIGKILL"):
                collector.collect()
    finally:
        collector.shutdown()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_workers=3"], "--num_workers: expected a number that divides the 4 of --num_envs, got 3"),
        (["--num_workers=2", "--env_workers=2"], "--env_workers: expected 0 with --num_workers"),
        (["--env_workers=5"], "--env_workers: expected at most the 4 of --num_envs, got 5"),
        (["--on_worker_failure=restart"], "--on_worker_failure: expected --num_workers with it"),
        (["--num_workers=4", "--collection_devices", "cpu", "cpu"], "--collection_devices: expected one device, or"),
        (["--num_workers=2", "--collection_devices=cuda:63"], "cuda:63"),
    ],
)
def test_counts_that_do_not_go_together_are_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        build(*flags)


def test_environments_are_stepped_in_processes_on_request_the_same_way():
    settings = parse("--env_workers=2", "--norm_rewards")
    env = settings.make_env(num_envs=4, training=True)
    serial = settings.make_env(num_envs=4, training=False)
    assert isinstance(env, TransformedEnv) and isinstance(env.env, ParallelEnv) and env.env.num_workers == 2
    assert type(serial) is SerialEnv  # evaluations need no processes
    try:
        env.set_seed(3)
        serial.set_seed(3)
        ours, theirs = env.rollout(20), serial.rollout(20)
        assert torch.equal(ours["next", "observation"], theirs["next", "observation"])
    finally:
        env.close()


def test_evaluations_run_beside_training_on_request_the_same_ones():
    flags = ["--record_episodes=3", "--record_interval=77"]
    policy = load("ppo").make_agent(parse(*flags)).policy
    here, beside = make_evaluator(parse(*flags)), make_evaluator(parse(*flags, "--evaluate_beside"))
    try:
        assert isinstance(beside, EvaluationProcess)
        assert (beside.num_episodes, beside.every_frames) == (3, 77)
        assert torch.equal(here(policy).returns, beside(policy).returns)
    finally:
        beside.close()
