"""Symbols of some steps ago by hand, and what policies with and without memory return."""

import pytest
import torch

from torchrl.envs import RepeatPrevious
from torchrl.errors import ConfigError


def played(env, answer):
    """Return the reward of every step ``[B, T]``, given what a policy answers to all that it has seen."""
    env.set_seed(0)
    root, seen, rewards = env.reset(), [], []
    for _ in range(env.max_episode_steps):
        seen.append(root["observation"].argmax(-1))
        assert (root["observation"].sum(-1) == 1).all()
        transition, root = env.step_and_reset(root.set("action", answer(seen)))
        rewards.append(transition["next", "reward"].squeeze(-1))
    assert transition["next", "truncated"].all() and not transition["next", "terminated"].any()
    assert torch.equal(transition["next", "episode_return"].squeeze(-1), torch.stack(rewards).sum(0))
    return torch.stack(rewards, -1)


def test_answers_are_paid_by_hand():
    env = RepeatPrevious(1, delay=2, num_symbols=3, max_episode_steps=5)
    env.reset()
    state = env.state_dict()
    state["root"] |= {"symbols": torch.tensor([[2, 0, 1, 1, 0, 2]]), "observation": torch.tensor([[0.0, 0.0, 1.0]])}
    root = env.load_state_dict(state)
    shown, paid = [], []
    for answer in (2, 2, 2, 1, 1):  # asked for: nothing, nothing, 2, 0, 1
        shown.append(root["observation"].argmax(-1).item())
        transition, root = env.step_and_reset(root.set("action", torch.tensor([answer])))
        paid.append(transition["next", "reward"].item())
    assert shown == [2, 0, 1, 1, 0] and paid == [0, 0, 1, 0, 1]
    assert transition["next", "observation"].argmax(-1).item() == 2  # the true successor


@pytest.mark.parametrize(("delay", "num_symbols", "steps"), [(1, 2, 5), (4, 4, 32), (9, 3, 40)])
def test_a_policy_that_remembers_returns_the_best_and_one_that_does_not_its_share(delay, num_symbols, steps):
    env = RepeatPrevious(500, delay=delay, num_symbols=num_symbols, max_episode_steps=steps)
    best = played(env, lambda seen: seen[max(len(seen) - 1 - delay, 0)])
    assert (best.sum(-1) == env.best_return).all() and env.best_return == steps - delay
    assert (best[:, :delay] == 0).all()
    for answer in (lambda seen: seen[-1], lambda seen: torch.ones_like(seen[0])):
        mean = played(env, answer).sum(-1).mean().item()
        assert mean == pytest.approx(env.best_return_without_memory, rel=0.1)
    assert env.best_return_without_memory == (steps - delay) / num_symbols


def test_rows_that_wait_behind_their_end_do_not_stop_the_others():
    env = RepeatPrevious(2, delay=1, max_episode_steps=2)
    root = env.reset()
    for _ in range(2):
        root = env.step(env.act_at_random(root))["next"].select("observation")
    env.freeze_(torch.tensor([True, True]))
    assert (env.step(env.act_at_random(root))["next", "reward"] == 0).all()


def test_symbols_are_drawn_evenly():
    shown = RepeatPrevious(4000, num_symbols=5, max_episode_steps=8).rollout(8)["observation"].mean((0, 1))
    torch.testing.assert_close(shown, torch.full((5,), 0.2), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delay": 0}, "delay of at least 1, got 0"),
        ({"num_symbols": 1}, "num_symbols of at least 2, got 1"),
        ({"delay": 4, "max_episode_steps": 4}, "max_episode_steps above the delay of 4, got 4"),
        ({"max_episode_steps": None}, "max_episode_steps above the delay of 4, got None"),
    ],
)
def test_tasks_without_an_answer_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"RepeatPrevious: expected {message}"):
        RepeatPrevious(**arguments)
