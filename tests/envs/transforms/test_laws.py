"""What holds for every transform, alone and in chains."""

import pytest
import torch

from cases.transform_worlds import Watched, leaves, walker
from cases.transforms import CASES, REGISTRY, chain, stateful_chain
from torchrl.envs import check_env, transforms
from torchrl.envs.transforms import Compose, Transform, TransformedEnv
from torchrl.errors import ConfigError

every_transform = pytest.mark.parametrize(("make_env", "make_transform"), CASES.values(), ids=CASES.keys())
every_batch = pytest.mark.parametrize("num_envs", [None, 1, 3])


def built(make_env, make_transform, num_envs, seed=0):
    below = Watched(make_env(num_envs))
    env = TransformedEnv(below, make_transform())
    env.set_seed(seed)
    return env, below


def chosen(env, root, generator):
    """A random action; a legal one where the environment names a mask."""
    if env.action_mask_key is None:
        return env.action_spec.rand(generator=generator)
    return env.action_spec.rand(generator=generator, mask=root[env.action_mask_key])


def run(env, root, num_steps, generator):
    """Yield ``num_steps`` transitions, and the root that follows each."""
    for _ in range(num_steps):
        transition, root = env.step_and_reset(root.set("action", chosen(env, root, generator)))
        yield transition, root


def assert_sees_its_spec(env, tensordict):
    env.observation_spec.assert_contains(tensordict.select(*env.observation_spec.keys()))
    named = {"action", "next", "reward", "is_init", "terminated", "truncated", "done"}
    named |= {"episode_return", "episode_length"}
    state = () if env.carried.initial is None else env.carried.initial.keys()
    assert set(tensordict.keys()) - named == {*env.observation_spec.keys(), *state}


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
        return
    one, other = dict(leaves(one)), dict(leaves(other))
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_every_public_transform_is_held_against_the_laws():
    bases = {"Transform", "ActionTransform", "EpisodeObservation", "ObservationTransform", "RandomTransform"}
    bases |= {"RewardTransform"}
    public = {name: getattr(transforms, name) for name in transforms.__all__}
    public = {name for name, member in public.items() if isinstance(member, type) and issubclass(member, Transform)}
    public -= set() if torch.cuda.is_available() else {"PinMemory"}
    assert public - bases == REGISTRY.keys() - {"Transform"}


@every_batch
@every_transform
def test_a_run_keeps_to_its_specs_above_and_below_and_edits_nothing_of_others(make_env, make_transform, num_envs):
    env, below = built(make_env, make_transform, num_envs)
    generator = torch.Generator().manual_seed(1)
    root = env.reset()
    assert_sees_its_spec(env, root)
    num_endings = 0
    for _ in range(40):
        action = chosen(env, root, generator)
        copy = action.clone()
        transition, root = env.step_and_reset(root.set("action", action))
        assert transition["action"] is action  # the policy's own, whatever goes down
        assert_equal(action, copy)
        below.action_spec.assert_contains(below.received[-1])
        below.assert_untouched()
        assert_sees_its_spec(env, transition)
        assert_sees_its_spec(env, transition["next"])  # at endings this is the true final observation
        assert_sees_its_spec(env, root)
        env.reward_spec.assert_contains(transition["next", "reward"])
        num_endings += int(transition["next", "done"].sum())
    assert num_endings > 3
    env.reset()
    below.assert_untouched()


@every_transform
def test_a_partial_reset_transforms_all_rows_and_changes_its_own_alone(make_env, make_transform):
    env, _ = built(make_env, make_transform, 3)
    generator = torch.Generator().manual_seed(1)
    for number, (_, root) in enumerate(run(env, env.reset(), 30, generator)):
        if number > 3 and not bool(root["is_init"].all()):
            break
    before = root.clone()
    chosen = (~before["is_init"].squeeze(-1)).nonzero()[0]
    mask = torch.zeros(3, dtype=torch.bool).index_fill(0, chosen, True)
    after = env.reset(mask, root=None if env.carried.initial is None else before)
    assert_sees_its_spec(env, after)
    assert_equal(after[~mask], before[~mask])
    assert bool(after["is_init"][mask])


@pytest.mark.parametrize("num_envs", [None, 3])
@every_transform
def test_a_state_dict_continues_bit_for_bit_in_another_env(make_env, make_transform, num_envs):
    env, _ = built(make_env, make_transform, num_envs)
    generator = torch.Generator().manual_seed(1)
    for _, root in run(env, env.reset(), 7, generator):
        before = root.clone()
    state = env.state_dict()
    actions = generator.get_state()
    expected = [transition.clone() for transition, _ in run(env, root, 10, generator)]

    other, _ = built(make_env, make_transform, num_envs, seed=5)
    for _ in run(other, other.reset(), 3, generator):
        pass
    root = other.load_state_dict(state)
    if env.carried.initial is not None:  # a policy's state is in the root, not in the environment
        root.update(before.select(*env.carried.initial.keys()))
    assert_equal(root, before)
    generator.set_state(actions)
    for (transition, _), due in zip(run(other, root, 10, generator), expected, strict=True):
        assert_equal(transition, due)


@every_transform
def test_seeds_and_reported_returns_are_those_of_the_bare_env(make_env, make_transform):
    env, below = built(make_env, make_transform, 3, seed=7)
    transitions = [t.clone() for t, _ in run(env, env.reset(), 20, torch.Generator().manual_seed(1))]
    bare = make_env(3)
    bare.set_seed(7)
    root = bare.reset()
    for transition, received, outcome in zip(transitions, below.received, below.outcomes, strict=True):
        expected, root = bare.step_and_reset(root.set("action", received))
        assert_equal(outcome, expected["next"])
        assert_equal(transition.select("is_init"), expected.select("is_init"))
        for key in ("episode_return", "episode_length", "terminated"):
            assert torch.equal(transition["next", key], expected["next", key])
        done = transition["next", "done"]
        assert torch.equal(done, transition["next", "terminated"] | transition["next", "truncated"])
        assert bool((done >= expected["next", "done"]).all())
        ended_here = (done & ~expected["next", "done"]).squeeze(-1)
        assert env.transform.ends_episodes or not bool(ended_here.any())
        if bool(ended_here.any()):
            root = bare.reset(ended_here)


@pytest.mark.parametrize("num_envs", [None, 3])
@every_transform
def test_a_seed_repeats_the_run_here_and_in_another_env(make_env, make_transform, num_envs):
    env, other = (built(make_env, make_transform, num_envs)[0] for _ in range(2))
    runs = []
    for each in (env, env, other):
        each.transform.eval()  # statistics that go on running would tell the runs apart
        root = each.reset(seed=3)
        runs.append([t.clone() for t, _ in run(each, root, 20, torch.Generator().manual_seed(1))])
    for first, again, elsewhere in zip(*runs, strict=True):
        assert_equal(first, again)
        assert_equal(first, elsewhere)


@every_transform
def test_it_passes_check_env(make_env, make_transform):
    env, _ = built(make_env, make_transform, 2)
    env.rollout(5)
    env.transform.eval()  # statistics that go on running would tell the second run from the first
    check_env(env, num_steps=30)


@every_transform
def test_it_belongs_to_one_env(make_env, make_transform):
    transform = make_transform()
    TransformedEnv(make_env(2), transform)
    with pytest.raises(ConfigError, match=f"{type(transform).__name__}: expected a new transform"):
        TransformedEnv(make_env(2), transform)


@pytest.mark.parametrize(
    ("make_chain", "split"),
    [(make, split) for make in (chain, stateful_chain) for split in range(len(make()) + 1)],
)
def test_a_chain_is_the_same_as_nesting(make_chain, split):
    one = TransformedEnv(walker(3), Compose(*make_chain()))
    two = TransformedEnv(TransformedEnv(walker(3), Compose(*make_chain()[:split])), Compose(*make_chain()[split:]))
    assert one.observation_spec == two.observation_spec
    assert one.action_spec == two.action_spec
    assert one.reward_spec == two.reward_spec
    one.set_seed(2)
    two.set_seed(2)
    assert_equal(one.rollout(20), two.rollout(20))
