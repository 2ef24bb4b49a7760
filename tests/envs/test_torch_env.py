"""Worlds written in torch: the example of the docs against gymnasium's, the bookkeeping, what is refused."""

import re
from functools import partial
from pathlib import Path

import gymnasium
import pytest
import torch
from tensordict import TensorDict

from cases.torch_worlds import Counter
from torchrl.agents import Evaluator
from torchrl.collectors import Collector
from torchrl.data.specs import Categorical, Composite, Unbounded
from torchrl.envs import CartPole, RepeatPrevious, RowRandom, SerialEnv, TorchEnv, check_env
from torchrl.errors import ConfigError, EnvError, KeyMissing, SpecError
from torchrl.seeding import child_seeds

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
    expected = collector.collect()
    other = Collector(Counter(max_episode_steps=3), frames_per_batch=12, seed=2)
    other.collect()
    other.load_state_dict(state)
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

    def start(self, random):
        state = super().start(random)
        if self.mistake == "other dtype" and random.rows is not None:
            state["count"] = state["count"].double()
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
        elif self.mistake == "flat truncation":
            return following, reward, over, over.squeeze(-1)
        elif self.mistake == "number truncation":
            return following, reward, over, over.float()
        return following, reward, over


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        ("dict", EnvError, r"start: expected a TensorDict of batch size \[3\], got dict"),
        ("size", EnvError, r"start: expected a TensorDict of batch size \[3\], got \[2\]"),
        ("flat reward", EnvError, r"reward of shape \[3, 1\], got shape \[3\]\. One column is missing: \.unsqueeze"),
        ("list reward", EnvError, r"reward of shape \[3, 1\], got list"),
        ("number flag", EnvError, r"terminated of dtype torch.bool, got torch.float32"),
        ("flat truncation", EnvError, r"truncated of shape \[3, 1\], got shape \[3\]\. One column is missing"),
        ("number truncation", EnvError, r"truncated of dtype torch.bool, got torch.float32"),
        ("new key", EnvError, r"got \['goal'\] too\. State that is to be kept goes into the observation_spec"),
        ("two values", EnvError, r"dynamics: expected \(state, reward, terminated\) or .*, got 2 values"),
        ("lost key", KeyMissing, r"dynamics: expected the keys \['count', 'inner'\], got none under \['count'\]"),
    ],
)
def test_a_mistake_is_named(mistake, error, message):
    env = Wrong(mistake)
    with pytest.raises(error, match=message):
        env.step(act(env.reset(), 0, 0, 0))


def test_a_start_of_another_dtype_than_dynamics_is_named_where_it_would_be_cast():
    env = Wrong("other dtype")
    with pytest.raises(EnvError, match=r"start: expected the dtypes .* torch.float32 of \[1\] in a row, got torch.f"):
        env.step_and_reset(act(env.reset(), 0, 1, 0))


def test_a_start_for_all_rows_is_refused_where_some_restart():
    class Whole(Counter):
        def start(self, random):
            return super().start(RowRandom(self.batch_size, seed=0))

    env = Whole()
    root = env.reset()
    with pytest.raises(
        EnvError, match=r"batch size \[2\], got \[3\]. Only these rows restart: write random.batch_size"
    ):
        env.step_and_reset(act(root, 1, 0, 1))


def test_a_start_that_takes_a_generator_is_refused_with_what_to_write():
    with pytest.raises(
        ConfigError, match=r"Old: expected start\(self, random\).*write random.rand\(2\) for torch.rand"
    ):

        class Old(Counter):
            def start(self, generator):
                return super().start(generator)


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

    def start(self, random):
        count = random.randint(4, 1).float()
        return TensorDict({"count": count, "is_odd": count % 2}, random.batch_size)

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


class Recorded(Counter):
    """A counter that notes for which rows it makes starts, and is truncated by itself where the action is 0."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.started = []

    def start(self, random):
        self.started.append(None if random.rows is None else random.rows.tolist())
        return super().start(random)

    def dynamics(self, state, action):
        following, reward, over = super().dynamics(state, action)
        return following, reward, over, (following["count"] == 3) & (action.unsqueeze(-1) == 0)


def test_starts_are_made_for_the_rows_that_restart():
    env = Recorded((2, 2))
    root = env.reset(seed=0)
    _, root = env.step_and_reset(root.set("action", torch.tensor([[0, 1], [1, 0]])))
    _, root = env.step_and_reset(root.set("action", torch.tensor([[0, 0], [0, 0]])))
    env.reset(torch.tensor([[False, False], [True, False]]), seed=[1, 2, 3, 4])
    env.reset(torch.zeros(2, 2, dtype=torch.bool))
    env.reset(torch.ones(2, 2, dtype=torch.bool))
    assert env.started == [None, [1, 2], [2], None]


def test_a_world_may_truncate_by_itself_and_a_limit_still_holds():
    for limit, ends in ((None, [False, False, True, False]), (2, [False, True, False, True])):
        env = Recorded((1,), max_episode_steps=limit)
        root = env.reset()
        for end in ends:
            transition, root = env.step_and_reset(act(root, 0))
            outcome = transition["next"]
            assert outcome["truncated"].item() == outcome["done"].item() == end and not outcome["terminated"].item()
            assert root["is_init"].item() == end
    env = Recorded((2,))
    root = env.reset()
    for _ in range(2):
        _, root = env.step_and_reset(act(root, 0, 0))
    env.freeze_(torch.tensor([True, False]))
    assert env.step(act(root, 0, 0))["next", "truncated"].tolist() == [[False], [True]]


def test_the_starts_of_a_row_depend_on_its_seed_alone():
    def starts(num_envs, ends, **kwargs):
        env = Counter((num_envs,))
        root, seen = env.reset(**kwargs), []
        for step in range(12):
            over = torch.tensor([step % ends(row) == 0 for row in range(num_envs)]).long()
            _, root = env.step_and_reset(root.set("action", over))
            seen.append(root["inner", "start"][2].item() if over[2] else None)
        return seen

    alone = starts(3, lambda row: 2, seed=5)
    assert alone == starts(7, lambda row: 2 if row == 2 else 1 + row, seed=5)  # more rows, which end at other times
    assert len({start for start in alone if start is not None}) == 6
    seeds = child_seeds(5, 3)
    assert alone == starts(4, lambda row: 2, seed=[1, 2, seeds[2], 3])
    assert alone != starts(3, lambda row: 2, seed=6)


def test_single_rows_are_seeded_and_those_of_none_go_on():
    env = Counter((4,))
    first = env.reset(seed=[1, 2, 1, 3])["inner", "start"].flatten()
    assert first[0] == first[2] and len(first.unique()) == 3
    root = env.reset(torch.tensor([True, True, False, False]), seed=[3, None, 9, 9])
    again = root["inner", "start"].flatten()
    assert again[0] == first[3] and again[1] != first[1] and torch.equal(again[2:], first[2:])
    assert env.reset(seed=[2**64 + 1] * 4)["inner", "start"].flatten().tolist() == [first[0].item()] * 4  # 64 bits


@pytest.mark.parametrize("kind", [CartPole, RepeatPrevious])
def test_its_batches_are_those_of_a_serial_env_of_single_rows(kind):
    batches = []
    for env in (kind(3, max_episode_steps=9), SerialEnv(partial(kind, max_episode_steps=9), 3)):
        env.set_seed(4)
        batches.append(env.rollout(25))
    for key in batches[0].keys(True, True):
        torch.testing.assert_close(batches[0][key], batches[1][key], msg=str(key))


def test_an_evaluation_plays_the_same_starts_for_any_number_of_rows():
    results = []
    for num_envs in (1, 3, 3):
        env = Secretive((num_envs,), max_episode_steps=1)
        assert env.seeds_rows
        evaluator = Evaluator(env, num_episodes=30)
        evaluator(lambda root: act(root, *[0] * root.batch_size[0]))
        results.append(evaluator(lambda root: act(root, *[0] * root.batch_size[0])).returns)
    assert torch.equal(results[0], results[1]) and torch.equal(results[1], results[2])
    assert results[0].unique().numel() == 4


class Noisy(TorchEnv):
    """A walk by random steps whose stream lies in the state."""

    def __init__(self):
        spec = Composite({"place": Unbounded((2, 1))}, (2,))
        super().__init__(batch_size=(2,), observation_spec=spec, action_spec=Categorical(2, (2,)), hidden=["key"])

    def start(self, random):
        return TensorDict({"place": random.randn(1), "key": random.key()}, random.batch_size)

    def dynamics(self, state, action):
        random = RowRandom(key=state["key"])
        place = state["place"] + random.randn(1)
        state = TensorDict({"place": place, "key": random.key()}, self.batch_size)
        return state, place, torch.zeros_like(place, dtype=torch.bool)


def test_moves_are_random_by_a_key_in_the_state():
    env = Noisy()
    batch = env.rollout(200)
    moves = (batch["next", "place"] - batch["place"]).flatten()
    assert moves.unique().numel() == 400 and moves.mean().abs() < 0.2 and 0.85 < moves.std() < 1.15
    check_env(Noisy(), num_steps=20)
