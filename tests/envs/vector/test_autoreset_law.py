"""The autoreset law: whichever part resets an episode, and when, every back end gives the same transitions.

``next`` is always the true successor, no transition is made of a reset, and what begins an episode stands in the next
root alone. A back end that is not in these tables is not held against the law.
"""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from cases import jax_worlds
from cases.batch_worlds import Gathered
from fakes import CountingEnv, simulator_of
from torchrl.envs import BatchEnv, CartPole, EnvPoolEnv, GymEnv, GymVectorEnv, JaxEnv, ParallelEnv, SerialEnv

LIMIT = 12  # steps of an episode of CartPole; some end before


def serial(factories):
    return SerialEnv([partial(simulator_of, factory) for factory in factories])


def parallel(factories):
    return ParallelEnv([partial(simulator_of, factory) for factory in factories], num_workers=min(2, len(factories)))


def vector(kind, mode, factories):
    return GymVectorEnv(kind(factories, autoreset_mode=mode))


def batch(autoreset, factories, **kwargs):
    return BatchEnv(Gathered(factories, autoreset, **kwargs))


# From factories of gymnasium environments, one for each row, to an environment of ours.
BACK_ENDS = {
    "serial": serial,
    "parallel": parallel,
    "batch": partial(batch, "disabled"),
    "batch in the same step": partial(batch, "same_step"),
    "batch that restarts all": partial(batch, "same_step", restarts_rows=False),
} | {
    f"{kind.__name__} {mode.name}": partial(vector, kind, mode)
    for kind in (SyncVectorEnv, AsyncVectorEnv)
    for mode in AutoresetMode
}


def of_gymnasium(back_end, num_envs):
    return back_end([partial(gymnasium.make, "CartPole-v1", max_episode_steps=LIMIT)] * num_envs)


def of_envpool(num_envs):
    pytest.importorskip("envpool")
    return EnvPoolEnv("CartPole-v1", num_envs, env_kwargs={"max_episode_steps": LIMIT})


# From a number of rows to CartPole-v1 with a time limit of LIMIT steps.
CART_POLES = {name: partial(of_gymnasium, back_end) for name, back_end in BACK_ENDS.items()} | {
    "GymEnv": lambda num_envs: GymEnv("CartPole-v1", num_envs=num_envs, max_episode_steps=LIMIT),
    "EnvPool": of_envpool,
    "native": partial(CartPole, max_episode_steps=LIMIT),
    "jax": lambda num_envs: JaxEnv(jax_worlds.cart_pole(LIMIT), num_envs),
}


LENGTHS, ENDINGS = (3, 1, 2), ("terminated", "truncated", "both")


def counting(slot):
    """A world whose rows are out of step: row k begins with the k-th length and ending."""
    lengths, endings = (values[slot % 3 :] + values[: slot % 3] for values in (LENGTHS, ENDINGS))
    return partial(CountingEnv, lengths, ending=endings)


def by_hand(slot, num_steps):
    """What a row counts: one dict for each step."""
    episode, step = 0, 0
    for _ in range(num_steps):
        ends = step + 1 == LENGTHS[(slot + episode) % 3]
        ending = ENDINGS[(slot + episode) % 3] if ends else None
        yield {
            "observation": step,
            "is_init": step == 0,
            "episode_length": step,
            "episode_return": episode * step,
            "next": {
                "observation": step + 1,  # the last one of the episode, too
                "reward": episode,
                "terminated": ending in ("terminated", "both"),
                "truncated": ending in ("truncated", "both"),
                "done": ends,
                "episode_length": step + 1,
                "episode_return": episode * (step + 1),
            },
        }
        episode, step = (episode + 1, 0) if ends else (episode, step + 1)


@pytest.mark.parametrize("num_envs", [1, 2, 5])
@pytest.mark.parametrize("back_end", BACK_ENDS.values(), ids=BACK_ENDS.keys())
def test_every_transition_is_the_one_written_by_hand(back_end, num_envs, keep):
    env = keep(back_end([counting(slot) for slot in range(num_envs)]))
    env.set_seed(0)
    batch = env.rollout(14)
    for slot in range(num_envs):
        for time, expected in enumerate(by_hand(slot, 14)):
            row = batch[slot, time]
            for key, value in expected.pop("next").items():
                assert row["next", key].item() == value, (slot, time, key)
            for key, value in expected.items():
                assert row[key].item() == value, (slot, time, key)


def left_on_odd_rows(root):
    """Odd rows fall over before the time limit, even ones sway until it."""
    odd = torch.arange(root.batch_size[0]) % 2 == 1
    return root.set("action", torch.where(odd, 0, root["episode_length"].squeeze(-1) % 2))


def run(env, num_steps):
    """Return the transitions and the roots after them, ``[*B, T]`` each."""
    env.set_seed(3)
    root, steps, roots = env.reset(), [], []
    for _ in range(num_steps):
        transition, root = env.step_and_reset(left_on_odd_rows(root))
        steps.append(transition.clone())
        roots.append(root.clone())
    return torch.stack(steps, 1), torch.stack(roots, 1)


@pytest.mark.parametrize("num_envs", [1, 2, 5])
@pytest.mark.parametrize("make", CART_POLES.values(), ids=CART_POLES.keys())
def test_whole_episodes_of_cart_pole(make, num_envs, keep):
    steps, roots = run(keep(make(num_envs)), 40)
    outcome, done = steps["next"], steps["next", "done"].squeeze(-1)
    assert outcome["truncated"][::2].any(), "even rows reach the time limit"
    assert num_envs == 1 or outcome["terminated"][1::2].any(), "odd rows fall over"

    # Every step is one of the physics: none is a reset in disguise.
    reference = gymnasium.make("CartPole-v1").unwrapped
    reference.reset(seed=0)
    for row in range(num_envs):
        length = 0
        for time in range(40):
            before, after = steps[row, time], outcome[row, time]
            length = 1 if before["is_init"].item() else length + 1
            reference.state = before["observation"].double().numpy()
            reference.steps_beyond_terminated = None
            observation, reward, terminated, _, _ = reference.step(before["action"].item())
            np.testing.assert_allclose(after["observation"].numpy(), observation, atol=1e-5, rtol=0)
            assert after["reward"].item() == reward == 1
            assert after["truncated"].item() == (length == LIMIT)
            # EnvPool does not say whether the task was over in the step of the time limit, too.
            assert after["terminated"].item() == terminated or length == LIMIT
            assert after["episode_length"].item() == after["episode_return"].item() == length

    # What follows is carried where an episode goes on, and is the start of another where it ended.
    assert torch.equal(roots[:, :-1]["observation"], steps[:, 1:]["observation"])
    assert torch.equal(roots["is_init"].squeeze(-1), done) and steps["is_init"][:, 0].all()
    assert torch.equal(roots["observation"][~done], outcome["observation"][~done])
    assert roots["observation"][done].abs().max() <= 0.05
    assert (outcome["observation"][done] != roots["observation"][done]).any(-1).all()
    assert not roots["episode_length"][done].any() and not roots["episode_return"][done].any()
