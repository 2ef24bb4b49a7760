#!/bin/sh
# gymnasium: where an episode ends while frames are skipped, the last observation is that of the step before.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "ale-py==0.12.1" "opencv-python-headless==5.0.0.93"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import ale_py
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import AtariPreprocessing, MaxAndSkipObservation

print("gymnasium", version("gymnasium"), "ale-py", version("ale-py"))


class SixSteps(gymnasium.Env):
    """Observes how many steps were taken; six an episode."""

    observation_space, action_space = spaces.Box(0, 10, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, self.steps == 6, False, {}


env = MaxAndSkipObservation(SixSteps(), skip=4)
env.reset()
(before, *_), (last, _, terminated, *_) = env.step(0), env.step(0)
print("MaxAndSkipObservation: the world ends at its step 6; the last observation says", last[0], "as the one before it")
assert terminated and before[0] == last[0] == 4

gymnasium.register_envs(ale_py)
env = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0)
env = AtariPreprocessing(env, noop_max=0, frame_skip=4)
rng, num_stale = np.random.default_rng(0), 0
for episode in range(4):
    last, _ = env.reset(seed=episode)
    is_over = False
    while not is_over:
        before = last
        last, _, terminated, truncated, _ = env.step(int(rng.integers(4)))
        is_over = terminated or truncated
    num_stale += np.array_equal(before, last)
print(f"AtariPreprocessing: in {num_stale} of 4 episodes of Breakout the last picture is the one before it")
assert num_stale == 4
END
