"""A policy's state: put there by the primer, written by the policy, carried by the environment. The policy counts."""

import pytest
import torch

from cases.transform_steps import counting, counting_rows
from cases.transform_worlds import walker
from torchrl.agents import Evaluator
from torchrl.collectors import Collector, WarmUp
from torchrl.data.specs import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import check_env
from torchrl.envs.transforms import CatTensors, Compose, StepCounter, TensorDictPrimer, TransformedEnv
from torchrl.errors import ConfigError, KeyMissing, SpecError

START = torch.tensor([10.0, 20.0])


def primer(**options):
    return TensorDictPrimer({"hidden": Unbounded((2,))}, defaults={"hidden": START}, **options)


def count(root):
    """A recurrent policy: its state counts its own calls since the start of the episode."""
    root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
    return root.set(("next", "hidden"), root["hidden"] + 1)


def counts(batch, key="hidden"):
    """First entry of the state less its start."""
    return (batch[key][..., 0] - 10).tolist()


def test_one_world_by_hand():
    batch = TransformedEnv(counting(length=3), primer()).rollout(7, count)
    assert counts(batch) == [0, 1, 2, 0, 1, 2, 0]
    assert counts(batch, ("next", "hidden")) == [1, 2, 3, 1, 2, 3, 1]  # the last one of an episode is its own
    assert (batch["hidden"][:, 1] - batch["hidden"][:, 0]).tolist() == [10] * 7


def test_rows_that_end_apart():
    batch = TransformedEnv(counting_rows(2, 3), primer()).rollout(5, count)
    assert counts(batch) == [[0, 1, 0, 1, 0], [0, 1, 2, 0, 1]]
    assert counts(batch, ("next", "hidden")) == [[1, 2, 1, 2, 1], [1, 2, 3, 1, 2]]


def test_zeros_are_the_default_and_numbers_broadcast():
    env = TransformedEnv(
        counting_rows(2, 3), TensorDictPrimer({"a": Unbounded((2,)), "b": Categorical(5)}, defaults={"b": 3})
    )
    root = env.reset()
    assert root["a"].tolist() == [[0, 0], [0, 0]] and root["b"].tolist() == [3, 3]
    assert root["b"].dtype == torch.int64


def test_a_start_for_each_row():
    start = torch.tensor([[1.0], [2.0]])
    env = TransformedEnv(counting_rows(2, 3), TensorDictPrimer({"h": Unbounded((1,))}, defaults={"h": start}))
    assert env.reset()["h"].tolist() == [[1.0], [2.0]]


def test_a_start_that_its_spec_allows():
    env = TransformedEnv(counting(length=2), TensorDictPrimer({"h": Bounded(1.0, 2.0, ())}))
    assert env.reset()["h"].item() == 1.0


def count_nested(root):
    root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
    root.set(("next", "lstm", "h"), root["lstm", "h"] + 1)
    return root.set(("next", "lstm", "c"), root["lstm", "c"] + 2)


def test_nested_state():
    specs = Composite({"lstm": {"h": Unbounded((1,)), "c": Unbounded((), torch.int64)}})
    env = TransformedEnv(counting_rows(2, 3), TensorDictPrimer(specs, defaults={("lstm", "h"): 5.0}))
    batch = env.rollout(4, count_nested)
    assert batch["lstm", "h"].squeeze(-1).tolist() == [[5, 6, 5, 6], [5, 6, 7, 5]]
    assert batch["lstm", "c"].tolist() == [[0, 2, 0, 2], [0, 2, 4, 0]]
    assert batch["next", "lstm", "c"].tolist() == [[2, 4, 2, 4], [2, 4, 6, 2]]


def test_state_that_is_not_written_stays():
    env = TransformedEnv(counting_rows(2, 3), primer())
    root = env.reset()
    _, root = env.step_and_reset(count(root))
    _, root = env.step_and_reset(root.set("action", torch.zeros(2, dtype=torch.int64)))
    assert counts(root) == [0, 1]  # the first one ended
    check_env(env, num_steps=20)


def test_part_of_the_state_may_be_written():
    specs = {("lstm", "h"): Unbounded((1,)), ("lstm", "c"): Unbounded((1,)), "other": Unbounded(())}
    env = TransformedEnv(counting_rows(2, 9), TensorDictPrimer(specs, defaults={"other": 4.0}))

    def policy(root):
        root.set("action", torch.zeros(2, dtype=torch.int64))
        return root.set(("next", "lstm", "h"), root["lstm", "h"] + 1)

    batch = env.rollout(3, policy)
    assert batch["next", "lstm", "h"].squeeze(-1).tolist() == [[1, 2, 1], [1, 2, 3]]
    assert batch["next", "lstm", "c"].flatten().tolist() == [0] * 6 and batch["other"].tolist() == [[4] * 3] * 2


def test_a_partial_reset_with_the_root():
    env = TransformedEnv(counting_rows(9, 9, 9), primer())
    root = env.reset()
    for _ in range(4):
        _, root = env.step_and_reset(count(root))
    after = env.reset(torch.tensor([False, True, False]), root=root)
    assert counts(after) == [4, 0, 4] and after["observation"].squeeze(-1).tolist() == [4, 0, 4]
    assert counts(root) == [4, 4, 4]
    _, root = env.step_and_reset(count(after))
    assert counts(root) == [5, 1, 5]


def test_a_partial_reset_without_the_root_is_refused():
    env = TransformedEnv(counting_rows(9, 9), primer())
    root = env.reset()
    with pytest.raises(ConfigError, match=r"the root that holds the state.*reset\(mask, root=root\)"):
        env.reset(torch.tensor([True, False]))
    with pytest.raises(ConfigError, match="expected a root to act on, got a transition"):
        env.reset(torch.tensor([True, False]), root=env.step(count(root)))


def test_a_root_that_lost_the_state_is_refused():
    env = TransformedEnv(counting(length=2), primer())
    root = env.reset().exclude("hidden").set("action", torch.tensor(0))
    with pytest.raises(KeyMissing, match=r"step: expected a root with 'hidden', which reset\(\) puts there"):
        env.step(root)


def test_state_of_another_form_is_refused():
    env = TransformedEnv(counting_rows(2, 2), primer())
    for wrong in (torch.zeros(2, 1), torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, 1)):
        root = env.reset().set("action", torch.zeros(2, dtype=torch.int64))
        with pytest.raises(
            SpecError, match=r"state 'hidden': expected shape \[2, 2\] and torch.float32, as its initial"
        ):
            env.step(root.set(("next", "hidden"), wrong))


def test_a_collector_goes_on_over_the_edges_of_batches():
    env = TransformedEnv(counting_rows(3, 4), primer())
    collector = Collector(env, count, frames_per_batch=10, total_frames=40)
    batch = torch.cat(list(collector), 1)
    assert counts(batch) == [(list(range(3)) * 7)[:20], (list(range(4)) * 5)[:20]]
    assert counts(batch, ("next", "hidden")) == [[n + 1 for n in row] for row in counts(batch)]


def test_a_collector_that_was_saved_goes_on_with_the_state():
    def make():
        return Collector(TransformedEnv(counting_rows(3, 4), primer()), count, frames_per_batch=10)

    collector, other = make(), make()
    collector.collect()
    other.collect()
    other.collect()
    state = collector.state_dict()
    due = collector.collect()
    other.load_state_dict(state)
    batch = other.collect()
    assert counts(batch) == counts(due)
    assert counts(batch)[0][0] == 2  # in mid-episode


def test_random_actions_keep_the_layout():
    env = TransformedEnv(counting_rows(3, 4), primer())
    batch = Collector(env, None, frames_per_batch=10).collect()
    assert counts(batch) == counts(batch, ("next", "hidden")) == [[0] * 5] * 2
    warm_up = WarmUp(count, env.action_spec, 4, generator=torch.Generator().manual_seed(0))
    assert counts(Collector(env, warm_up, frames_per_batch=10).collect())[1] == [0, 1, 2, 3, 0]


class Recorder(torch.nn.Module):
    """The counting policy, that remembers the states it was given."""

    def __init__(self):
        super().__init__()
        self.states = []

    def forward(self, root):
        self.states.append(counts(root))
        return count(root)


def test_evaluation_starts_every_episode_from_the_initial_state():
    policy = Recorder()
    evaluator = Evaluator(TransformedEnv(counting_rows(2, 3), primer()), num_episodes=4, seed=0)
    evaluator(policy)
    rows = list(zip(*policy.states, strict=True))
    assert rows[0] == (0, 1, 0, 1, 0, 1)[: len(rows[0])] and rows[1] == (0, 1, 2, 0, 1, 2)[: len(rows[1])]


def test_two_primers_and_other_transforms_share_an_env():
    one = TensorDictPrimer({("lstm", "h"): Unbounded(())})
    two = TensorDictPrimer({("lstm", "c"): Unbounded(())}, defaults={("lstm", "c"): 1.0})
    for env in (
        TransformedEnv(walker(2), Compose(one, StepCounter(max_steps=3), CatTensors(["position", "speed"]), two)),
        TransformedEnv(
            TransformedEnv(walker(2), TensorDictPrimer({("lstm", "h"): Unbounded(())})),
            TensorDictPrimer({("lstm", "c"): Unbounded(())}, defaults={("lstm", "c"): 1.0}),
        ),
    ):
        root = env.reset(seed=0)
        assert root["lstm", "h"].tolist() == [0, 0] and root["lstm", "c"].tolist() == [1, 1]
        check_env(env, num_steps=20)


def test_the_state_is_no_observation():
    env = TransformedEnv(counting(length=2), primer())
    assert "hidden" not in env.observation_spec
    assert env.observation_spec == env.env.observation_spec


def test_what_the_primer_holds_is_not_written_to():
    env = TransformedEnv(counting_rows(2, 3), primer())
    env.reset()["hidden"].zero_()
    assert counts(env.reset()) == [0, 0]


def test_keys_that_are_taken_are_refused():
    for taken in ("observation", ("observation", "h"), "is_init", "action"):
        with pytest.raises(ConfigError, match="a policy's state beside the observations"):
            TransformedEnv(counting(length=2), TensorDictPrimer({taken: Unbounded(())}))
    with pytest.raises(ConfigError, match="a policy's state beside the observations"):
        TransformedEnv(counting(length=2), Compose(primer(), StepCounter("hidden")))
    with pytest.raises(ConfigError, match="initial state: expected every key once"):
        Compose(primer(), primer()).read_specs(counting(length=2))
    with pytest.raises(ConfigError, match="initial state: expected every key once"):
        TransformedEnv(TransformedEnv(counting(length=2), primer()), primer())


def test_defaults_that_do_not_fit_are_refused():
    with pytest.raises(KeyMissing, match="TensorDictPrimer: expected defaults for.*'hidden'.*got some for.*'hiden'"):
        TensorDictPrimer({"hidden": Unbounded((2,))}, defaults={"hiden": 0.0})
    with pytest.raises(SpecError, match=r"broadcasts to \[2, 2\]"):
        TransformedEnv(counting_rows(2, 2), TensorDictPrimer({"h": Unbounded((2,))}, defaults={"h": torch.zeros(3)}))
    with pytest.raises(SpecError, match="TensorDictPrimer, default of"):
        TransformedEnv(counting(length=2), TensorDictPrimer({"h": Categorical(3)}, defaults={"h": 3}))
    for none in ({}, Composite(shape=(2,))):
        with pytest.raises(ConfigError, match="at least one spec"):
            TensorDictPrimer(none)
