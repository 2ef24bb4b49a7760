#!/bin/sh
# ale-py: in autoreset mode SAME_STEP with life_loss_info=True, info["final_obs"] at a lost life is no observation of that step.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "ale-py==0.12.1"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import numpy as np
from ale_py.vector_env import AtariVectorEnv

print("gymnasium", version("gymnasium"), "ale-py", version("ale-py"))
env = AtariVectorEnv("breakout", 1, noop_max=0, autoreset_mode="SameStep", life_loss_info=True)
before, _ = env.reset(seed=np.array([0]))
rng, at_life, at_end = np.random.default_rng(0), [], []
while len(at_end) < 2:
    after, _, terminated, _, info = env.step(rng.integers(4, size=1))
    if terminated[0]:
        # The last observation of an episode is the stack of the step before, moved on by one frame.
        moved_on = np.array_equal(info["final_obs"][0, :3], before[0, 1:])
        is_over = info["lives"][0] == 5  # a new game has begun
        (at_end if is_over else at_life).append(moved_on)
    before = after
print("final_obs goes on from the observation before it, at the end of a game:", at_end)
print("final_obs goes on from the observation before it, at a lost life:      ", at_life)
assert all(at_end) and not any(at_life)
END
