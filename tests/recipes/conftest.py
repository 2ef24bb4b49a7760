"""Agents and environments of the examples, closed after the test."""

from contextlib import ExitStack, closing

import pytest

from cases.examples import load, settings_of


@pytest.fixture
def make_agent(tmp_path, monkeypatch):
    """Build the agent of an example from flags."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def make(algorithm, *flags):
            agent = stack.enter_context(closing(load(algorithm).make_agent(settings_of(algorithm, *flags))))
            if hasattr(agent.optimise, "buffer"):
                stack.enter_context(closing(agent.optimise.buffer))
            return agent

        yield make


@pytest.fixture
def make_env():
    """Build an environment of the PPO example from flags."""
    with ExitStack() as stack:

        def make(*flags, num_envs=2, training=True):
            env = settings_of("ppo", *flags).make_env(num_envs=num_envs, training=training)
            return stack.enter_context(closing(env))

        yield make
