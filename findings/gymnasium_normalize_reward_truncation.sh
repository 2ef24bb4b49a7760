#!/bin/sh
# gymnasium: NormalizeReward sums returns on over time limits and resets; only a termination begins anew.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import gymnasium
import numpy as np
from gymnasium import spaces

print("gymnasium", version("gymnasium"))


class FiveSteps(gymnasium.Env):
    """Rewards of 1, five steps an episode."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def __init__(self, ending):
        self.ending = ending

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        is_over = self.steps == 5
        flags = is_over and self.ending == "terminated", is_over and self.ending == "truncated"
        return np.zeros(1, np.float32), 1.0, *flags, {}


def returns(ending):
    env = gymnasium.wrappers.NormalizeReward(FiveSteps(ending), gamma=1.0)
    seen = []
    for _ in range(3):
        env.reset()
        for _ in range(5):
            env.step(0)
            seen.append(float(np.ravel(env.discounted_reward)[0]))
    return seen


for ending in ("terminated", "truncated"):
    print(f"sums of rewards whose spread divides them, episodes of five steps that are {ending}:", returns(ending))
print("guessed for both: 1, 2, 3, 4, 5 in each episode")
assert returns("truncated") == [float(step) for step in range(1, 16)]  # the returns of one endless episode
# A termination drops the sum one step early: the last reward of an episode counts as the first of the next.
assert returns("terminated") == [1, 2, 3, 4] + [1, 2, 3, 4, 5] * 2 + [1]
END
