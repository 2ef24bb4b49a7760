#!/bin/sh
# gymnasium: a deep copy of a MuJoCo environment stands at its beginning, one of CartPole where the original stands.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "mujoco==3.17.0" "imageio==2.38.1" "packaging==26.4"
venv/bin/python -I - <<'END'
import copy
from importlib.metadata import version

import gymnasium
import numpy as np

print("gymnasium", version("gymnasium"), "mujoco", version("mujoco"))
rng = np.random.default_rng(0)
for name in ("CartPole-v1", "HalfCheetah-v5"):
    env = gymnasium.make(name)
    env.reset(seed=0)
    for _ in range(5):
        action = 0 if name == "CartPole-v1" else rng.uniform(-1, 1, 6).astype(np.float32)
        env.step(action)
    twin = copy.deepcopy(env)
    if name == "CartPole-v1":
        same = np.array_equal(env.unwrapped.state, twin.unwrapped.state)
    else:
        times = env.unwrapped.data.time, twin.unwrapped.data.time
        same = np.array_equal(env.unwrapped.data.qpos, twin.unwrapped.data.qpos)
    print(name, "after 5 steps: does the copy stand where the original stands?", same)
    assert same == (name == "CartPole-v1")
print("time of the simulation, original and copy:", *times)
assert times[0] > 0 == times[1]
END
