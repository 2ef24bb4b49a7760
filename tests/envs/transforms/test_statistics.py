"""Running statistics of observations, by hand and against a float64 reference; shared, frozen, saved."""

import multiprocessing

import numpy as np
import pytest
import torch
from gymnasium import spaces

from cases.transform_steps import act
from cases.transform_worlds import camera, walker
from fakes import CountingSimulator
from torchrl.envs import SerialEnv
from torchrl.envs.simulators import Simulator
from torchrl.envs.transforms import ObservationStatistics, TransformedEnv, VecNorm
from torchrl.errors import ConfigError, KeyMissing, NonFiniteError, SpecError


class Listed(Simulator):
    """Shows the given numbers one after the other; an episode has ``length`` steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, numbers, length):
        self.numbers, self.length = [np.atleast_1d(np.float32(number)) for number in numbers], length
        self.observation_space = spaces.Box(-np.inf, np.inf, self.numbers[0].shape)
        self.at, self.num_steps = -1, 0

    def _next(self):
        self.at += 1
        return self.numbers[self.at]

    def reset(self, *, seed=None, options=None):
        self.num_steps = 0
        return self._next(), {}

    def step(self, action):
        self.num_steps += 1
        return self._next(), 0.0, False, self.num_steps == self.length, {}


def listed(*columns, length=9):
    return SerialEnv([lambda column=column: Listed(column, length) for column in columns])


def moments(norm, key="observation"):
    """Count, and mean and variance of each element."""
    count, mean, var = norm.statistics.moments(key) if isinstance(norm, VecNorm) else norm.moments(key)
    return count.item(), mean.flatten().tolist(), var.flatten().tolist()


def moments_of(seen, weights):
    """Weighted mean and variance of ``seen``, float64 [N, F], weights [N]."""
    mean = np.average(seen, axis=0, weights=weights)
    return mean, np.average((seen - mean) ** 2, axis=0, weights=weights)


def test_by_hand():
    env = TransformedEnv(listed([1.0, 2.0], [3.0, 8.0]), VecNorm(decay=1.0, eps=1e-12))
    root = env.reset()  # of 1, 3: mean 2, deviation 1
    assert root["observation"].tolist() == [[-1.0], [1.0]]
    transition, root = env.step_and_reset(act(root))  # of 1, 3, 2, 8: mean 3.5, squares 6.25 + 0.25 + 2.25 + 20.25 = 29
    due = (torch.tensor([[2.0], [8.0]]) - 3.5) / (29 / 4) ** 0.5
    torch.testing.assert_close(transition["next", "observation"], due)
    assert torch.equal(root["observation"], transition["next", "observation"])
    assert moments(env.transform) == (4.0, [3.5], [29 / 4])


def test_the_weight_of_older_rows_by_hand():
    env = TransformedEnv(listed([1.0, 2.0, 6.0]), VecNorm(decay=0.5, eps=1e-12))
    env.rollout(2, act)
    count, (mean,), (var,) = moments(env.transform)
    assert count == 0.25 + 0.5 + 1
    assert mean == pytest.approx((0.25 * 1 + 0.5 * 2 + 6) / 1.75, rel=1e-15)
    squares = 0.25 * (1 - mean) ** 2 + 0.5 * (2 - mean) ** 2 + (6 - mean) ** 2
    assert var == pytest.approx(squares / 1.75, rel=1e-14)


@pytest.mark.parametrize(("num_envs", "decay", "far"), [(1, 0.9, 0.0), (4, 0.99, 0.0), (4, 1.0, 0.0), (3, 0.97, 1e6)])
def test_it_equals_a_float64_reference_where_rows_end(num_envs, decay, far):
    """Each row once: successors with their vector step, fresh ones after it, before its weight is taken down."""
    numbers = (far + np.random.default_rng(0).normal(0, 3, (num_envs, 60, 2))).astype(np.float32)
    env = TransformedEnv(listed(*numbers, length=4), VecNorm(decay=decay, eps=1e-8))
    batch = env.rollout(40, act)
    seen, weights = [], np.zeros(0)

    def normalised(rows):
        nonlocal weights
        seen.extend(rows)
        weights = np.append(weights, np.ones(len(rows)))
        mean, var = moments_of(np.array(seen, dtype=np.float64), weights)
        return (rows - mean) / np.sqrt(var + 1e-8)

    at = 0
    root = normalised(numbers[:, at].astype(np.float64))
    for step in range(40):
        np.testing.assert_allclose(batch["observation"][:, step], root, rtol=1e-6, atol=1e-6)
        weights = weights * decay
        at += 1
        root = normalised(numbers[:, at].astype(np.float64))
        np.testing.assert_allclose(batch["next", "observation"][:, step], root, rtol=1e-6, atol=1e-6)
        if step % 4 == 3:
            at += 1
            root = normalised(numbers[:, at].astype(np.float64))


def test_rows_that_end_see_one_statistic_with_the_others_and_rows_that_go_on_keep_their_value():
    numbers = np.random.default_rng(0).normal(0, 1, (2, 40)).astype(np.float32)
    simulators = [lambda: Listed(numbers[0], 2), lambda: Listed(numbers[1], 5)]
    env = TransformedEnv(SerialEnv(simulators), VecNorm())
    root = env.reset()
    for _ in range(20):
        transition, root = env.step_and_reset(act(root))
        outcome, goes_on = transition["next"], ~transition["next", "done"].squeeze(-1)
        assert torch.equal(root["observation"][goes_on], outcome["observation"][goes_on])


def test_a_first_row_alone_is_zero_and_what_never_moved_too():
    env = TransformedEnv(listed([7.0, 7.0, 7.0, 8.0]), VecNorm(decay=1.0))
    assert env.rollout(2, act)["next", "observation"].flatten().tolist() == [0.0, 0.0]


def test_nothing_is_learned_in_eval_mode():
    env = TransformedEnv(walker(3), VecNorm(["position", ("body", "left")]))
    env.set_seed(0)
    env.rollout(5)
    env.transform.eval()
    before = moments(env.transform, ("body", "left"))
    env.rollout(30)
    assert moments(env.transform, ("body", "left")) == before
    env.transform.train()
    env.rollout(1)
    assert moments(env.transform, ("body", "left"))[0] > before[0]


def test_before_anything_was_seen_eval_mode_shows_the_raw_value():
    env = TransformedEnv(listed([5.0, 6.0]), VecNorm())
    env.transform.eval()
    assert env.rollout(1, act)["next", "observation"].item() == 6.0


def test_the_same_observation_is_normalised_alike_in_train_eval_reloaded_and_shared():
    numbers = np.random.default_rng(0).normal(4, 3, (3, 40)).astype(np.float32)
    env = TransformedEnv(listed(*numbers), VecNorm())
    trained = env.rollout(8, act)["next", "observation"][:, -1]  # what the last update normalised with
    raw = torch.from_numpy(numbers[:, 8:9])
    state = {name: value.clone() for name, value in env.transform.state_dict().items()}

    def seen_in(norm):
        other = TransformedEnv(listed(*raw), norm)
        norm.eval()
        return other, other.reset()["observation"]

    _, shared = seen_in(VecNorm(statistics=env.transform.statistics))
    assert torch.equal(shared, trained)
    reloaded = VecNorm()
    TransformedEnv(listed(*raw), reloaded)
    reloaded.load_state_dict(state)
    reloaded.eval()
    assert torch.equal(reloaded.statistics.normalise("observation", raw, reloaded.eps).float(), trained)
    env.transform.eval()
    assert torch.equal(env.transform.statistics.normalise("observation", raw, 1e-8).float(), trained)


def test_two_environments_learn_together():
    first = VecNorm(decay=1.0)
    one = TransformedEnv(listed([0.0, 2.0]), first)
    other = TransformedEnv(listed([4.0, 6.0]), second := VecNorm(decay=1.0, statistics=first.statistics))
    one.rollout(1, act)
    other.rollout(1, act)
    assert first.statistics is second.statistics
    assert moments(first) == (4.0, [3.0], [(9.0 + 1.0 + 1.0 + 9.0) / 4])


def learn(statistics):
    torch.set_num_threads(1)
    statistics.update_("x", torch.tensor([[3.0], [5.0]]))


def test_processes_learn_together():
    statistics = ObservationStatistics({"x": (1,)}).share_memory()
    statistics.update_("x", torch.tensor([[1.0]]))
    process = multiprocessing.get_context("fork").Process(target=learn, args=(statistics,))
    process.start()
    process.join()
    assert process.exitcode == 0
    count, mean, var = moments(statistics, "x")
    assert (count, mean) == (3.0, [3.0]) and var == [pytest.approx(8 / 3)]
    statistics.update_("x", torch.tensor([[3.0]]))
    assert all(moment.is_shared() for moment in statistics.moments("x")) and moments(statistics, "x")[0] == 4.0


def test_a_reset_of_some_rows_counts_those_alone():
    env = TransformedEnv(listed([1.0, 2.0, 9.0], [3.0, 8.0]), VecNorm(decay=1.0))
    _, root = env.step_and_reset(act(env.reset()))
    before = root["observation"].clone()
    after = env.reset(torch.tensor([True, False]))["observation"]
    assert moments(env.transform)[0] == 5
    assert torch.equal(after[1], before[1]) and not torch.equal(after[0], before[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_would_spoil_the_statistics_is_refused(bad):
    env = TransformedEnv(listed([1.0, bad], [3.0, 8.0]), VecNorm())
    root = act(env.reset())
    before = moments(env.transform)
    with pytest.raises(NonFiniteError, match="VecNorm, key 'observation': expected finite observations"):
        env.step(root)
    assert moments(env.transform) == before


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": 1.1}, {"eps": 0.0}, {"eps": float("inf")}])
def test_numbers_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="VecNorm: expected a decay above 0"):
        VecNorm(**options)


def test_what_cannot_be_normalised_is_refused():
    with pytest.raises(SpecError, match="VecNorm: expected numbers in 'flags'"):
        TransformedEnv(camera(2), VecNorm(["flags"]))
    with pytest.raises(KeyMissing, match="one of the keys.*'x'.*got 'position'"):
        TransformedEnv(walker(2), VecNorm(["position"], statistics=ObservationStatistics({"x": (3,)})))
    with pytest.raises(SpecError, match=r"statistics of 'position' of shape \[3\] on cpu, got \[2\]"):
        TransformedEnv(walker(2), VecNorm(["position"], statistics=ObservationStatistics({"position": (2,)})))


def test_an_episode_at_its_end_is_counted_once_and_its_start_too():
    env = TransformedEnv(SerialEnv(lambda: CountingSimulator(length=2)), VecNorm(decay=1.0))
    env.rollout(4, act)  # 0, 1, 2 | 0, 1, 2 | 0
    count, (mean,), _ = moments(env.transform)
    assert count == 7 and mean == pytest.approx(6 / 7)
