"""Fragments: they follow each other, tell the value behind them without acting, and feed the plain training loop."""

import gymnasium
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import nn

from cases.collecting import Impatient, counting, info
from cases.devices import needs_cuda
from fakes import CountingEnv, CountingSimulator, FaultySimulator, PlantedError, Together
from torchrl.collectors import Collector, Fragment, FragmentSource, PlacedPolicy, WarmUp, rollout
from torchrl.data import lengths_of, stitch, unpad
from torchrl.data.specs import Unbounded
from torchrl.envs import GymEnv, GymVectorEnv, SerialEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, EnvError, SpecError
from torchrl.modules import MLP, Categorical, ExplorationType, ProbabilisticActor, exploration_type
from torchrl.modules.randomness import generators_of

MASK, TRAJ_IDS = ("collector", "mask"), ("collector", "traj_ids")
VERSION = ("collector", "policy_version")


def act(root):
    """Act 0, and value a state by its observation."""
    root["action"] = torch.zeros(root.batch_size, dtype=torch.int64)
    root["state_value"] = root["observation"] * 10
    return root


def recurrent(root):
    root["next", "count"] = root["count"] + 1
    return act(root)


def take(stream, number):
    return [next(stream) for _ in range(number)]


def numbers(tensor):
    return tensor.squeeze(-1).tolist()


def test_fragments_follow_each_other_and_tell_where_the_next_begins():
    first, second = take(rollout(counting(3, 9), act, n_steps=4), 2)
    assert isinstance(first, Fragment) and first.batch.batch_size == (2, 4) and first.last.batch_size == (2,)
    assert numbers(first.batch["observation"]) == [[0, 1, 2, 0], [0, 1, 2, 3]]
    assert numbers(first.batch["next", "observation"]) == [[1, 2, 3, 1], [1, 2, 3, 4]]
    assert numbers(second.batch["observation"]) == [[1, 2, 0, 1], [4, 5, 6, 7]]
    assert numbers(first.last["observation"]) == [1, 4] and numbers(first.last["state_value"]) == [10, 40]
    assert first.batch[TRAJ_IDS].tolist() == [[0, 0, 0, 1], [2, 2, 2, 2]]
    assert second.batch[TRAJ_IDS].tolist() == [[1, 1, 3, 3], [2, 2, 2, 2]]


def test_fragments_are_the_receivers_own():
    stream = rollout(counting(3, 9), act, n_steps=4)
    kept = take(stream, 3)
    copies = [(batch.clone(), last.clone()) for batch, last in kept]
    next(stream)
    for (batch, last), (batch_copy, last_copy) in zip(kept, copies, strict=True):
        assert (batch == batch_copy).all() and (last == last_copy).all()


def test_state_goes_in_and_out_and_is_not_advanced_by_the_question():
    env = TransformedEnv(counting(3, 9), TensorDictPrimer({"count": Unbounded((1,))}, defaults={"count": 5.0}))
    first, second = take(rollout(env, recurrent, n_steps=4), 2)
    assert numbers(first.batch["count"]) == [[5, 6, 7, 5], [5, 6, 7, 8]]
    assert numbers(first.last["count"]) == [6, 9] and "next" not in first.last.keys()
    assert numbers(second.batch["count"]) == [[6, 7, 5, 6], [9, 10, 11, 12]]


@pytest.mark.parametrize("has_generator", [True, False])
def test_the_question_takes_nothing_from_the_random_streams(has_generator):
    """The collector asks nothing, and acts alike; and what was asked is what is then done."""

    def make():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1) if has_generator else None
        return GymEnv("CartPole-v1", num_envs=3), ProbabilisticActor(MLP(4, 2), Categorical, generator=generator)

    env, policy = make()
    fragments = take(rollout(env, policy, n_steps=5, seed=4), 6)
    streams = [torch.get_rng_state(), *(g.get_state() for g in generators_of(policy).values())]
    env, policy = make()
    collector = Collector(env, policy, frames_per_batch=15, seed=4)
    batches = [collector.collect() for _ in range(6)]
    for number, ((batch, _), expected) in enumerate(zip(fragments, batches, strict=True)):
        assert batch["collector", "policy_version"].unique().tolist() == [number]  # every fragment updates it
        assert (batch.exclude(VERSION) == expected.exclude(VERSION)).all()
    for (_, last), (batch, _) in zip(fragments, fragments[1:], strict=False):
        for key in ("observation", "action", "logits"):
            assert torch.equal(last[key], batch[key][:, 0])
    after = [torch.get_rng_state(), *(g.get_state() for g in generators_of(policy).values())]
    assert all(torch.equal(one, two) for one, two in zip(streams, after, strict=True))


def test_the_question_counts_for_nothing():
    env = GymEnv("CartPole-v1", num_envs=2)
    policy = WarmUp(
        nn.Sequential(ProbabilisticActor(MLP(4, 2), Categorical), nn.BatchNorm1d(2))[0], env.action_spec, 99
    )
    take(rollout(env, policy, n_steps=3), 2)
    assert policy.frames_acted == 12


def test_actions_are_sampled_without_gradient():
    seen = set()

    def policy(root):
        seen.add((exploration_type(), torch.is_grad_enabled()))
        return act(root)

    take(rollout(counting(3), policy, n_steps=2), 1)
    assert seen == {(ExplorationType.RANDOM, False)}


# ---- sticky ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SerialEnv, Impatient])
def test_a_row_waits_from_the_end_of_its_episode_to_the_next_fragment(kind):
    """Of length 2, 4 and 9 in fragments of 4: the second ends with the fragment and goes on at once."""
    stream = rollout(counting(2, 4, 9, kind=kind), act, n_steps=4, sticky=True)
    (first, last), (second, _), (third, _) = take(stream, 3)
    assert first[MASK].int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert lengths_of(first).tolist() == [2, 4, 4]
    assert [numbers(row["observation"]) for row in unpad(first)] == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert [numbers(row["next", "done"]) for row in unpad(first)] == [[0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert numbers(last["observation"]) == [0, 0, 4] and numbers(last["is_init"]) == [True, True, False]
    assert [numbers(row["observation"]) for row in unpad(second)] == [[0, 1], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert [numbers(row["observation"]) for row in unpad(third)] == [[0, 1], [0, 1, 2, 3], [8]]
    ids = [[row[TRAJ_IDS].tolist() for row in unpad(batch)] for batch in (first, second, third)]
    assert ids == [[[0] * 2, [1] * 4, [2] * 4], [[3] * 2, [4] * 4, [2] * 4], [[5] * 2, [6] * 4, [2]]]


@pytest.mark.parametrize("kind", [SerialEnv, Impatient])
def test_state_begins_anew_with_the_next_fragment(kind):
    env = TransformedEnv(counting(2, 9, kind=kind), TensorDictPrimer({"count": Unbounded((1,))}))
    fragments = take(rollout(env, recurrent, n_steps=4, sticky=True), 3)
    for batch, _ in fragments:
        assert numbers(unpad(batch)[0]["count"]) == [0, 1]
    assert numbers(fragments[0].last["count"]) == [0, 4] and numbers(fragments[1].batch["count"][1]) == [4, 5, 6, 7]


def test_while_it_waits_nothing_happens():
    batch, _ = next(rollout(counting(2), act, n_steps=5, sticky=True))
    assert numbers(batch["observation"]) == [[0, 1, 0, 0, 0]]
    assert numbers(batch["next", "reward"])[0][2:] == [0, 0, 0] and not batch["next", "done"][:, 2:].any()


def test_it_waits_after_a_time_limit_too():
    batch, _ = next(rollout([CountingSimulator(2, ending="truncated")], act, n_steps=5, sticky=True))
    assert lengths_of(batch).tolist() == [2]


def test_sticky_fragments_are_stitched_to_whole_episodes():
    fragments = take(rollout(counting([2, 5, 3], [4, 1]), act, n_steps=3, sticky=True), 6)
    rows, is_complete = stitch([batch for batch, _ in fragments])
    for row, complete in zip(unpad(rows), is_complete.tolist(), strict=True):
        assert numbers(row["observation"]) == list(range(len(row)))
        assert complete == bool(row["next", "done"][-1])
    assert is_complete.sum() >= 7


# ---- what is given ---------------------------------------------------------------------------------------------------


def test_a_list_of_gymnasium_environments_stays_the_givers():
    envs = [CountingEnv(3), CountingEnv(4)]
    stream = rollout(envs, act, n_steps=4)
    assert numbers(next(stream).batch["observation"]) == [[0, 1, 2, 0], [0, 1, 2, 3]]
    stream.close()
    assert not any(env.is_closed for env in envs)


def test_what_callables_built_is_closed_with_the_generator():
    built, given = [], CountingEnv(3)

    def make():
        built.append(CountingEnv(3))
        return built[-1]

    stream = rollout([make, given, make], act, n_steps=2)
    assert next(stream).batch.batch_size == (3, 2)
    stream.close()
    assert [env.is_closed for env in built] == [True, True] and not given.is_closed


def test_a_generator_that_was_never_begun_closes_what_it_built():
    built = []
    stream = rollout(lambda: built.append(CountingEnv(3)) or built[0], act, n_steps=2)
    stream.close()
    assert built[0].is_closed


def test_simulators_are_taken_as_they_are():
    given, built = CountingSimulator(3), []
    source = FragmentSource([given, lambda: built.append(CountingSimulator(4)) or built[0]], act, n_steps=4)
    assert numbers(source.collect()["batch", "observation"]) == [[0, 1, 2, 0], [0, 1, 2, 3]]
    assert source.env.simulators == [given, built[0]]
    source.close()
    source.close()
    assert built[0].is_closed and not given.is_closed


def test_one_callable_makes_a_batch_of_one():
    assert next(rollout(lambda: CountingSimulator(3), act, n_steps=2)).batch.batch_size == (1, 2)


def test_an_environment_without_a_batch_dimension():
    batch, last = next(rollout(SerialEnv(lambda: CountingSimulator(3)), act, n_steps=5, sticky=True))
    assert batch[MASK].tolist() == [True] * 3 + [False] * 2 and last.batch_size == ()


def test_without_a_policy_it_acts_at_random_and_a_seed_repeats_it():
    def actions():
        envs = [gymnasium.make("CartPole-v1") for _ in range(2)]
        return next(rollout(envs, n_steps=20, seed=3)).batch

    first = actions()
    assert (first == actions()).all() and first["action"].unique().numel() == 2


def test_what_cannot_be_stepped_is_refused():
    for envs in ("CartPole-v1", ["CartPole-v1"] * 2, [], 3):
        with pytest.raises(ConfigError, match="rollout: expected an Env, a list of gymnasium environments"):
            rollout(envs, act, n_steps=2)
    env = CountingEnv(3)
    with pytest.raises(ConfigError, match="of its own for every row, got the same one at 0 and 1"):
        rollout([env, env], act, n_steps=2)
    for n_steps in (0, 1.5):
        with pytest.raises(ConfigError, match="n_steps: expected a whole number"):
            rollout(counting(3), act, n_steps=n_steps)
    with pytest.raises(ConfigError, match="a policy that can be called"):
        rollout(counting(3), 7, n_steps=2)
    with pytest.raises(SpecError, match="policy: expected a TensorDict, got NoneType"):
        next(rollout(counting(3), lambda root: None, n_steps=2))


@pytest.mark.parametrize("sticky", [False, True])
def test_after_an_exception_new_episodes_start(sticky):
    env = SerialEnv(lambda: FaultySimulator("raises_in_step", from_step=4, length=9))
    source = FragmentSource(env, act, n_steps=3, sticky=sticky)
    source.collect()
    with pytest.raises(PlantedError):
        source.collect()
    env.simulators[0].fault = None
    batch = source.collect()["batch"]
    assert numbers(batch["observation"]) == [0, 1, 2] and batch[TRAJ_IDS].tolist() == [1, 1, 1]
    source.reset()
    assert numbers(source.collect()["batch"]["observation"]) == [0, 1, 2]


def test_a_copy_on_another_device_acts_with_the_present_weights():
    policy = ProbabilisticActor(MLP(4, 2), Categorical)
    source = FragmentSource(GymEnv("CartPole-v1", num_envs=2), policy, n_steps=2, device="cpu")
    source._act = PlacedPolicy(policy, torch.device("cpu"))
    assert source.collect()["last", "logits"].max() < 5
    with torch.no_grad():
        policy.module.layers[-1].bias.fill_(9.0)
    both = source.collect()
    assert both["batch", "logits"].min() > 5 and both["last", "logits"].min() > 5


@needs_cuda
@pytest.mark.parametrize("sticky", [False, True])
def test_fragments_are_handed_out_on_the_device(sticky):
    policy = ProbabilisticActor(MLP(4, 2), Categorical).cuda()
    env = GymEnv("CartPole-v1", num_envs=2)
    for batch, last in take(rollout(env, policy, n_steps=40, device="cuda", sticky=sticky), 2):
        assert {leaf.device.type for td in (batch, last) for leaf in td.values(True, True)} == {"cuda"}


def test_the_parameters_of_the_rows_change_between_fragments_and_are_recorded():
    source = FragmentSource(counting(9, 3), act, n_steps=2)
    for skills in ([0, 1], [2, 3]):
        source.set_info(agent_info=info(skill=skills), env_info=info(skill=skills))
        both = source.collect()
    assert both["batch", "skill"].tolist() == [[2, 2], [3, 3]] and both["last", "skill"].tolist() == [2, 3]
    assert both["batch", "env_info", "skill"].tolist() == [[0, 0], [1, 3]]


def test_sticky_rows_that_only_restart_together_are_refused_at_once():
    env = GymVectorEnv(Together(AutoresetMode.SAME_STEP))
    with pytest.raises(EnvError, match="rollout, sticky: expected .* whose rows can be restarted one by one"):
        rollout(env, act, n_steps=3, sticky=True)
    batch, _ = next(rollout(env, act, n_steps=3))
    assert batch["next", "done"].squeeze(-1).tolist() == [[False, True, False], [False, False, True]]
