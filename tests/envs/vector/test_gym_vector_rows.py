"""Vector environments whose infos are observed, whose rows wait, and whose state is saved, in every autoreset mode."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

from cases.same import assert_same
from fakes import CountingEnv, Together
from torchrl.collectors import Collector
from torchrl.envs import GymVectorEnv, SerialEnv
from torchrl.envs.simulators import GymSimulator, InfoKeys
from torchrl.errors import ConfigError, EnvError

MODES = list(AutoresetMode)
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


class Telling(CountingEnv):
    """Tells its steps in several forms; the last are missing at a reset."""

    def _info(self, **more):
        facts = {"pair": np.full(2, self.num_steps, np.float64), "nested": {"episode": 3 + self.episode % 4}}
        return {"half": self.num_steps / 2, "bits": np.array([self.num_steps % 2, 1]), **facts, **more}

    def reset(self, **options):
        return super().reset(**options)[0], self._info()

    def step(self, action):
        return *super().step(action)[:4], self._info(late=self.num_steps + 1, words=[self.num_steps, 1])


KEYS = {
    "half": spaces.Box(0, 9, (), np.float32),
    "bits": spaces.MultiBinary(2),
    "pair": spaces.Box(0, 9, (2,), np.float64),
    "nested": spaces.Dict({"episode": spaces.Discrete(4, start=3)}),
    "late": spaces.Discrete(30),
    "words": spaces.Box(0, 9, (2,), np.float32),
}
DEFAULTS = {"late": 7, "words": [9, 9]}
LENGTHS = ([2, 1, 3], [3, 1, 3], [4, 1, 3])


def telling(form="box"):
    return [partial(Telling, lengths, ending=["terminated", "truncated"], form=form) for lengths in LENGTHS]


def serial(factories, **infos):
    def make(factory):
        simulator = GymSimulator(factory())
        return InfoKeys(simulator, KEYS, defaults=DEFAULTS) if infos else simulator

    return SerialEnv([partial(make, factory) for factory in factories])


def played(env, num_steps=14, reset=True):
    """Yield every transition and the root after it."""
    generator = torch.Generator().manual_seed(0)
    root = env.reset(seed=3) if reset is True else reset
    for _ in range(num_steps):
        transition, root = env.step_and_reset(root.set("action", env.action_spec.rand(generator=generator)))
        yield transition.clone(), root.clone()


def assert_alike(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        for mine, its in zip(one, other, strict=True):
            assert_same(mine, its)


@pytest.mark.parametrize("form", ["box", "dict"])
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@every_mode
def test_infos_are_observed_as_in_a_serial_env(mode, kind, form, keep):
    vector_env = kind(telling(form), autoreset_mode=mode)
    env = keep(GymVectorEnv(vector_env, info_keys=KEYS, info_defaults=DEFAULTS))
    reference = serial(telling(form), infos=True)
    assert env.observation_spec == reference.observation_spec
    assert_alike(played(env), played(reference))
    mask = torch.tensor([False, True, False])
    assert_same(env.reset(mask), reference.reset(mask))


def test_infos_without_a_mask_are_those_of_all_rows():
    class Knowing(Together):
        def step(self, actions):
            *outcome, info = super().step(actions)
            return *outcome, {**info, "count": np.array([1, 2], np.int16), "final_info": {"count": np.array([3, 4])}}

    env = GymVectorEnv(Knowing("SameStep"), info_keys={"count": spaces.Discrete(9)}, info_defaults={"count": 5})
    batch = env.rollout(3)
    assert batch["count"].tolist() == [[5, 1, 1], [5, 2, 2]]
    assert batch["next", "count"].tolist() == [[1, 3, 1], [2, 2, 4]]


MISTAKES = {
    "a name that is taken": ({"observation": spaces.Discrete(2)}, None, r"names other than \['observation'\]"),
    "a default of nothing": ({"late": spaces.Discrete(30)}, {"lat": 0}, r"info_defaults for \['late'\], got 'lat'"),
    "a default outside": ({"late": spaces.Discrete(30)}, {"late": 30}, "default of 'late': expected a value in"),
    "defaults alone": (None, {"late": 1}, "expected info_keys with info_defaults"),
}


@pytest.mark.parametrize(("keys", "defaults", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistaken_infos_are_refused_when_it_is_built(keys, defaults, message):
    with pytest.raises(ConfigError, match=message):
        GymVectorEnv(SyncVectorEnv(telling()), info_keys=keys, info_defaults=defaults)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"late": spaces.Discrete(30)}, r"an info with 'late', got the keys .* in row 0. Say what is observed"),
        ({"pair": spaces.Discrete(30)}, r"values of Discrete\(30\), got 'pair' of shape \[2\]"),
        ({"half": spaces.Discrete(30)}, r"values of Discrete\(30\), got 'half' of shape \[\] and dtype float64"),
    ],
)
def test_infos_that_lack_or_do_not_fit_are_named(keys, message):
    with pytest.raises(EnvError, match=message):
        GymVectorEnv(SyncVectorEnv(telling()), info_keys=keys).reset()


def test_infos_in_lists_are_refused():
    with pytest.raises(EnvError, match="info_keys: expected infos in arrays, got lists"):
        GymVectorEnv(wrappers.DictInfoToList(SyncVectorEnv(telling())), info_keys=KEYS)


# ---- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@every_mode
def test_rows_that_wait_show_what_they_show_in_a_serial_env(mode, kind, keep):
    """Row 0 waits after its end, row 1 in the middle of an episode; row 2 plays on."""

    def steps(env):
        root, seen = env.reset(seed=3), []
        waiting = torch.tensor([False] * 3)
        for time in range(11):
            root.set("action", torch.zeros(3, dtype=torch.int64))
            transition = env.step(root)
            seen.append(transition.select("observation", "action", "next").clone())
            ended = transition["next", "done"].squeeze(-1)
            if time == 1:
                assert ended.tolist() == [True, False, False]
                env.freeze_(torch.tensor([True, True, False]))
                waiting = torch.tensor([True, True, False])
                ended = ended & ~waiting
            elif time == 8:
                ended, waiting = ended | waiting, ~waiting
            root = env.reset(ended) if ended.any() else transition["next"].select(*env.observation_spec.keys())
        return torch.stack(seen, 1)

    env = keep(GymVectorEnv(kind(telling(), autoreset_mode=mode)))
    assert env.can_freeze
    ours, theirs = steps(env), steps(serial(telling()))
    # Which episode follows the wait is another: unseen ones went by. What these rows show until then is the same.
    assert_same(ours[:, :9], theirs[:, :9])
    assert_same(ours[2], theirs[2])
    assert ours[:2, 9]["observation"].flatten().tolist() == [0, 0]
    assert ours[:2, 9]["next", "episode_length"].flatten().tolist() == [1, 1]


def test_what_restarts_all_rows_cannot_let_one_wait():
    env = GymVectorEnv(Together("SameStep"))
    env.reset()
    assert not env.can_freeze
    with pytest.raises(EnvError, match="GymVectorEnv: expected simulators that can wait one by one"):
        env.freeze_(torch.tensor([True, False]))


# ---- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCarContinuous-v0"])
@every_mode
def test_a_state_continues_bit_for_bit_in_another_env(mode, name):
    def make():
        build = partial(gymnasium.make, name, max_episode_steps=9)
        return GymVectorEnv(SyncVectorEnv([build] * 2, autoreset_mode=mode))

    env, other = make(), make()
    root = [root for _, root in played(env, 8)][-1]
    state = env.state_dict()
    ahead = list(played(env, 25, reset=root))
    other.rollout(3)
    assert_alike(played(other, 25, reset=other.load_state_dict(state)), ahead)
    assert sum(int(transition["next", "done"].sum()) for transition, _ in ahead) >= 4


@every_mode
def test_a_state_between_an_end_and_its_restart(mode):
    def make():
        return GymVectorEnv(SyncVectorEnv([partial(CountingEnv, length) for length in (2, 5)], autoreset_mode=mode))

    env = make()
    root = env.reset(seed=1)
    for _ in range(2):
        root = env.step(root.set("action", torch.zeros(2, dtype=torch.int64)))["next"].select("observation")
    other = make()
    other.load_state_dict(env.state_dict())
    with pytest.raises(EnvError, match=r"rows \[0\]"):
        other.step(root.set("action", torch.zeros(2, dtype=torch.int64)))
    mask = torch.tensor([True, False])
    assert_same(env.reset(mask), other.reset(mask))


def test_a_run_is_resumed_where_it_stood():
    def make():
        env = GymVectorEnv(SyncVectorEnv(telling()))
        return Collector(env, lambda root: root.set("action", torch.zeros(3, dtype=torch.int64)), frames_per_batch=12)

    one, other = make(), make()
    one.collect()
    other.load_state_dict(one.state_dict())
    assert_same(one.collect(), other.collect())


@pytest.mark.parametrize("hides", [AsyncVectorEnv, lambda made: wrappers.RecordEpisodeStatistics(SyncVectorEnv(made))])
def test_hidden_simulators_have_no_state(hides, keep):
    env = keep(GymVectorEnv(hides(telling())))
    env.reset()
    with pytest.raises(EnvError, match="GymVectorEnv: expected a state to save"):
        env.state_dict()


def test_rows_that_wait_have_no_state():
    env = GymVectorEnv(SyncVectorEnv(telling()))
    env.reset()
    env.freeze_(torch.tensor([True, False, False]))
    with pytest.raises(EnvError, match="GymVectorEnv, state: expected rows that play, got some that wait"):
        env.state_dict()
