"""NaN and infinities are named where they first appear."""

import numpy as np
import pytest
from gymnasium import spaces

from cases.transform_steps import act
from torchrl.envs import SerialEnv
from torchrl.envs.simulators import Simulator
from torchrl.envs.transforms import Compose, FiniteCheck, RewardScaling, TransformedEnv
from torchrl.errors import KeyMissing, NonFiniteError


class Planted(Simulator):
    """All zeros, but for one value under one key at one step."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(
        a=spaces.Box(-np.inf, np.inf, (3,)),
        b=spaces.Dict(c=spaces.Box(-np.inf, np.inf, (2, 2))),
        k=spaces.Discrete(3),
    )

    def __init__(self, key=None, value=0.0, at=1):
        self.key, self.value, self.at = key, value, at

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        return self._observe(), self._planted("reward"), False, self.t == 3, {}

    def _planted(self, key):
        return self.value if key == self.key and self.t == self.at else 0.0

    def _observe(self):
        a, c = np.zeros(3, np.float32), np.zeros((2, 2), np.float32)
        a[1], c[1, 0] = self._planted("a"), self._planted("c")
        return {"a": a, "b": {"c": c}, "k": 0}


def batch_of(*planted, check=None):
    makes = [Planted, lambda: Planted(*planted)]
    return TransformedEnv(SerialEnv(makes), FiniteCheck() if check is None else check)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("key", "where"),
    [("a", r"'a' after a step, got .* at \[1\]"), ("c", r"\('b', 'c'\) after a step, got .* at \[1, 0\]")],
)
def test_the_key_the_row_and_the_value_are_named(key, where, value):
    with pytest.raises(NonFiniteError, match=rf"FiniteCheck: expected finite numbers in {where} of row \[1\]") as info:
        batch_of(key, value).rollout(3, act)
    assert f"got {value} at" in str(info.value)


def test_the_reward_is_checked():
    with pytest.raises(NonFiniteError, match=r"'reward' after a step, got nan at \[0\] of row \[1\]"):
        batch_of("reward", np.nan, 2).rollout(3, act)


def test_it_is_raised_at_the_step_and_not_later():
    env = batch_of("a", np.nan, 2)
    root = env.step(act(env.reset()))["next"]
    with pytest.raises(NonFiniteError):
        env.step(act(root))


def test_a_reset_is_checked_too():
    with pytest.raises(NonFiniteError, match=r"'a' after a reset, got inf at \[1\] of row \[1\]"):
        batch_of("a", np.inf, 0).reset()


def test_the_last_observation_of_an_episode_is_checked():
    with pytest.raises(NonFiniteError, match="after a step"):
        batch_of("a", np.nan, 3).rollout(3, act)


def test_one_world_has_no_row_to_name():
    with pytest.raises(NonFiniteError, match=r"got nan at \[1\]\. Look"):
        TransformedEnv(SerialEnv(lambda: Planted("a", np.nan)), FiniteCheck()).rollout(3, act)


def test_numbers_whose_sum_overflows_are_finite():
    class Large(Planted):
        def _observe(self):
            return {"a": np.full(3, 3e38, np.float32), "b": {"c": np.zeros((2, 2), np.float32)}, "k": 0}

    assert TransformedEnv(SerialEnv(Large, 2), FiniteCheck()).rollout(3, act)["a"].isfinite().all()


def test_only_the_keys_named_are_checked():
    batch_of("a", np.nan, check=FiniteCheck([("b", "c"), "reward"])).rollout(3, act)
    batch_of("reward", np.nan, check=FiniteCheck(["a"])).rollout(3, act)
    for key in ("a", "reward"):
        with pytest.raises(NonFiniteError, match=f"'{key}'"):
            batch_of(key, np.nan, check=FiniteCheck([key])).rollout(3, act)


def test_in_a_chain_it_sees_what_those_before_it_made():
    with pytest.raises(NonFiniteError, match="'reward'.*got inf"):
        batch_of("reward", 1e30, check=Compose(RewardScaling(1e30), FiniteCheck())).rollout(3, act)
    batch_of("reward", 1e30, check=Compose(FiniteCheck(), RewardScaling(1e30))).rollout(3, act)


def test_an_unknown_key_is_refused():
    with pytest.raises(KeyMissing, match="FiniteCheck.*'d'"):
        batch_of(check=FiniteCheck(["d"]))
