#!/bin/sh
# gymnasium: a reset of one row wipes the sums of all rows in the vector RecordEpisodeStatistics.
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
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

print("gymnasium", version("gymnasium"))


class Steps(gymnasium.Env):
    """Rewards of 1 for so many steps."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == self.length, False, {}


env = SyncVectorEnv([lambda: Steps(3), lambda: Steps(5)], autoreset_mode=AutoresetMode.DISABLED)
env = RecordEpisodeStatistics(env)
env.reset()
for _ in range(3):
    *_, terminated, _, info = env.step(np.zeros(2, int))
assert terminated.tolist() == [True, False]
env.reset(options={"reset_mask": terminated})  # as gymnasium's documentation of the mode says
for _ in range(2):
    *_, terminated, _, info = env.step(np.zeros(2, int))
assert terminated.tolist() == [False, True]
print("an episode of 5 steps and a return of 5 is reported as", info["episode"]["l"][1], "and", info["episode"]["r"][1])
assert info["episode"]["r"][1] == info["episode"]["l"][1] == 2
END
