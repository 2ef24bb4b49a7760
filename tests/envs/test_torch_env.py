"""Worlds written in torch: the example of the docs against gymnasium's, the bookkeeping, what is refused."""

import re
from pathlib import Path

import gymnasium
import pytest
import torch
from tensordict import TensorDict

from cases.torch_worlds import Counter
from torchrl.agents import Evaluator
from torchrl.collectors import Collector
from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs import TorchEnv, check_env
from torchrl.errors import ConfigError, EnvError, KeyMissing, SpecError

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "environments.md"


def act(root, *actions):
    return root.set("action", torch.tensor(actions))


def test_endings_restarts_and_statistics():
    env = Counter(max_episode_steps=2)
    root = env.reset(seed=0)
    starts = root["inner", "start"].clone()
    assert root["is_init"].all() and root["count"].tolist() == [[0.0]] * 3

    transition, root = env.step_and_reset(act(root, 0, 1, 0))
    outcome = transition["next"]
    assert outcome["count"].tolist() == [[1.0]] * 3  # the true successor, at the ending too
    assert outcome["reward"].tolist() == [[10.0], [11.0], [10.0]]
    assert outcome["terminated"].tolist() == [[False], [True], [False]] == outcome["done"].tolist()
    assert not outcome["truncated"].any()
    assert root["count"].tolist() == [[1.0], [0.0], [1.0]]
    assert root["is_init"].tolist() == [[False], [True], [False]]
    assert root["episode_return"].tolist() == [[10.0], [0.0], [10.0]]
    assert root["episode_length"].tolist() == [[1], [0], [1]]
    assert (root["inner", "start"] == starts).squeeze(-1).tolist() == [True, False, True]

    transition, root = env.step_and_reset(act(root, 0, 0, 1))
    outcome = transition["next"]
    assert outcome["truncated"].tolist() == [[True], [False], [True]]
    assert outcome["terminated"].tolist() == [[False], [False], [True]]
    assert outcome["episode_return"].tolist() == [[20.0], [10.0], [21.0]]
    assert root["episode_length"].tolist() == [[0], [1], [0]]


def test_seeds_repeat_and_differ():
    one, two = (Counter(max_episode_steps=3).reset(seed=4)["inner", "start"] for _ in range(2))
    assert torch.equal(one, two)
    assert one.unique().numel() == 3
    assert not torch.equal(one, Counter().reset(seed=5)["inner", "start"])


def test_a_state_continues_bit_for_bit():
    env = Counter(max_episode_steps=3)
    collector = Collector(env, frames_per_batch=12, seed=1)
    collector.collect()
    state = collector.state_dict()
    policy_stream = collector.policy.generator.get_state()
    expected = collector.collect()
    other = Collector(Counter(max_episode_steps=3), frames_per_batch=12, seed=2)
    other.collect()
    other.load_state_dict(state)
    other.policy.generator.set_state(policy_stream)
    got = other.collect()
    for key, value in expected.items(include_nested=True, leaves_only=True):
        assert torch.equal(got.get(key), value), key


def test_what_was_handed_out_is_not_written_again():
    env = Counter()
    first = env.reset()
    copy = first.clone()
    env.step_and_reset(act(env.reset(), 0, 0, 0))
    assert (first == copy).all()


def test_ended_rows_must_be_reset_first():
    env = Counter()
    env.step(act(env.reset(), 0, 1, 0))
    with pytest.raises(EnvError, match=r"rows \[\[1\]\] that have ended.*reset\(mask\)"):
        env.step(act(TensorDict({}, [3]), 0, 0, 0))
    root = env.reset(torch.tensor([False, True, False]))
    assert root["is_init"].squeeze(-1).tolist() == [False, True, False]
    env.step(act(root, 0, 0, 0))


class Wrong(Counter):
    """A counter with one planted mistake."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake = mistake

    def start(self, generator):
        state = super().start(generator)
        return {"dict": dict(state), "size": state[:2]}.get(self.mistake, state)

    def dynamics(self, state, action):
        following, reward, over = super().dynamics(state, action)
        if self.mistake == "flat reward":
            reward = reward.squeeze(-1)
        elif self.mistake == "list reward":
            reward = reward.tolist()
        elif self.mistake == "number flag":
            over = over.float()
        elif self.mistake == "lost key":
            del following["count"]
        elif self.mistake == "new key":
            following["goal"] = following["count"]
        elif self.mistake == "two values":
            return following, reward
        return following, reward, over


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        ("dict", EnvError, r"start: expected a TensorDict of batch size \[3\], got dict"),
        ("size", EnvError, r"start: expected a TensorDict of batch size \[3\], got \[2\]"),
        ("flat reward", EnvError, r"reward of shape \[3, 1\], got shape \[3\]\. One column is missing: \.unsqueeze"),
        ("list reward", EnvError, r"reward of shape \[3, 1\], got list"),
        ("number flag", EnvError, r"terminated of dtype torch.bool, got torch.float32"),
        ("new key", EnvError, r"got \['goal'\] too\. State that is to be kept goes into the observation_spec"),
        ("two values", EnvError, r"dynamics: expected \(state, reward, terminated\), got 2 values"),
        ("lost key", KeyMissing, r"dynamics: expected the keys \['count', 'inner'\], got none under \['count'\]"),
    ],
)
def test_a_mistake_is_named(mistake, error, message):
    env = Wrong(mistake)
    with pytest.raises(error, match=message):
        env.step(act(env.reset(), 0, 0, 0))


def test_observations_under_names_of_the_environment_are_refused():
    class Named(Counter):
        def __init__(self):
            spec = Composite({"is_init": Unbounded((3, 1))}, (3,))
            TorchEnv.__init__(self, batch_size=(3,), observation_spec=spec, action_spec=Categorical(2, (3,)))

    with pytest.raises(EnvError, match=r"Named: expected entries of the state under names .*, got \['is_init'\]"):
        Named()


def test_calls_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="max_episode_steps of at least 1"):
        Counter(max_episode_steps=0)
    with pytest.raises(EnvError, match="a first reset of all rows"):
        Counter().reset(torch.tensor([True, False, False]))
    env = Counter()
    root = env.reset()
    with pytest.raises(KeyMissing, match="'action'"):
        env.step(root)
    with pytest.raises(SpecError, match=r"an action of shape \[3\], got \[3, 1\]"):
        env.step(root.set("action", torch.zeros(3, 1, dtype=torch.int64)))
    with pytest.raises(SpecError, match=r"an action of dtype torch.int64, got torch.float32"):
        env.step(root.set("action", torch.zeros(3)))
    with pytest.raises(ConfigError, match=r"a seed of the first row.*got \[None, 1, 2\]"):
        env.reset(seed=[None, 1, 2])
    with pytest.raises(EnvError, match="before any reset"):
        Counter().load_state_dict(Counter().state_dict())


def test_the_pendulum_of_the_docs_is_gymnasiums():
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), namespace)
    env = namespace["Pendulum"](num_envs=1)
    other = gymnasium.make("Pendulum-v1").unwrapped
    other.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    root = env.reset(seed=0)
    other.state = root["observation"][0].double().numpy()
    for _ in range(100):
        action = env.action_spec.rand(generator=generator)
        transition, root = env.step_and_reset(root.set("action", action))
        observation, reward, *_ = other.step(action[0].numpy())
        angle, speed = transition["next", "observation"][0].tolist()
        expected = torch.as_tensor(observation)
        torch.testing.assert_close(torch.tensor([angle]).cos()[0], expected[0], atol=2e-4, rtol=0)
        torch.testing.assert_close(torch.tensor(speed), expected[2], atol=2e-3, rtol=0)
        torch.testing.assert_close(transition["next", "reward"].item(), float(reward), atol=2e-3, rtol=0)


def test_frozen_rows_wait_until_they_are_reset():
    env = Counter(max_episode_steps=2)
    root = env.reset(seed=0)
    _, root = env.step_and_reset(act(root, 0, 0, 0))
    env.freeze_(torch.tensor([False, True, True]))
    for _ in range(2):
        transition, root = env.step_and_reset(act(root, 0, 1, 0))
        outcome = transition["next"]
        assert outcome["count"].tolist()[1:] == [[1.0], [1.0]] == root["count"].tolist()[1:]
        assert outcome["reward"].tolist()[1:] == [[0.0], [0.0]] and not outcome["done"][1:].any()
        assert outcome["episode_return"].tolist()[1:] == [[10.0], [10.0]]
        assert outcome["episode_length"].tolist()[1:] == [[1], [1]]
    assert root["count"].tolist()[0] == [1.0]  # it was truncated, restarted and stepped
    root = env.reset(torch.tensor([False, True, False]))
    transition, _ = env.step_and_reset(act(root, 0, 0, 0))
    assert transition["next", "count"].tolist() == [[2.0], [1.0], [1.0]]
    assert transition["next", "truncated"].tolist() == [[True], [False], [False]]


def test_a_frozen_row_that_had_ended_waits_for_no_reset_and_a_state_keeps_it():
    env = Counter()
    with pytest.raises(EnvError, match="a first reset"):
        env.freeze_(torch.tensor([True, False, False]))
    transition = env.step(act(env.reset(), 1, 0, 0))
    env.freeze_(transition["next", "terminated"])
    other = Counter()
    root = other.load_state_dict(env.state_dict())
    outcome = other.step(act(root, 1, 0, 0))["next"]
    assert outcome["count"].tolist() == [[1.0], [2.0], [2.0]] and not outcome["done"].any()
    assert other.reset()["count"].tolist() == [[0.0]] * 3
    assert other.step(act(other.reset(), 1, 0, 0))["next", "terminated"].tolist() == [[True], [False], [False]]


class Secretive(Counter):
    """A counter that shows its count modulo 2 alone."""

    def __init__(self, batch_size=(3,), hidden=("count",), **kwargs):
        spec = Composite({"is_odd": Unbounded((*batch_size, 1))}, batch_size)
        action = Categorical(2, batch_size)
        TorchEnv.__init__(
            self, batch_size=batch_size, observation_spec=spec, action_spec=action, hidden=hidden, **kwargs
        )

    def start(self, generator):
        count = torch.randint(4, (*self.batch_size, 1), generator=generator).float()
        return TensorDict({"count": count, "is_odd": count % 2}, self.batch_size)

    def dynamics(self, state, action):
        count = state["count"] + 1
        over = action.unsqueeze(-1) == 1
        return TensorDict({"count": count, "is_odd": count % 2}, self.batch_size), count, over


def test_hidden_entries_of_the_state_go_on_and_are_shown_to_nobody():
    env = Secretive(max_episode_steps=3)
    root = env.reset(seed=1)
    start = env.state_dict()["root"]["count"]
    for step in range(1, 3):
        transition, root = env.step_and_reset(act(root, 0, 0, 0))
        assert torch.equal(transition["next", "reward"], start + step)
        for container in (transition, transition["next"], root, env.load_state_dict(env.state_dict())):
            assert "is_odd" in container.keys() and "count" not in container.keys()
    env.freeze_(torch.tensor([True, False, False]))
    env.step_and_reset(act(root, 0, 0, 0))
    assert torch.equal(env.state_dict()["root"]["count"][0], start[0] + 2)
    check_env(Secretive((2, 2), max_episode_steps=3), num_steps=40)


def test_a_saved_state_holds_what_is_hidden():
    env, other = (Secretive(max_episode_steps=50) for _ in range(2))
    env.reset(seed=3)
    root = other.load_state_dict(env.state_dict())
    rewards = [env_.step(act(root.clone(), 0, 0, 0))["next", "reward"] for env_ in (env, other)]
    assert torch.equal(*rewards) and rewards[0].unique().numel() > 1


def test_names_of_hidden_entries_are_their_own():
    for hidden in (["is_odd", "count"], ["done", "count"]):
        with pytest.raises(EnvError, match=rf"Secretive: expected entries .*got \['{hidden[0]}'\]. Rename them"):
            Secretive(hidden=hidden)
    with pytest.raises(EnvError, match=r"got \['count'\] too. State .*, or, unseen by policies, into hidden="):
        Secretive(hidden=[]).reset()


def test_rows_draw_their_starts_from_one_generator_so_an_evaluation_goes_on_with_it():
    env = Secretive(max_episode_steps=1)
    assert not env.seeds_rows
    evaluator = Evaluator(env, num_episodes=30)
    first, again = (evaluator(lambda root: act(root, 0, 0, 0)).returns for _ in range(2))
    assert torch.equal(first, again) and first.unique().numel() == 4
