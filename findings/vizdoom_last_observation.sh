#!/bin/sh
# ViZDoom: at the time limit both flags are true, and the last observation is black.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "vizdoom==1.3.2"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import gymnasium
import vizdoom.gymnasium_wrapper  # registers its ids

print("vizdoom", version("vizdoom"))
env = gymnasium.make("VizdoomBasic-v1")
observation, _ = env.reset(seed=0)
steps, is_over = 0, False
while not is_over:
    before = observation
    observation, _, terminated, truncated, _ = env.step(0)  # stand and wait
    steps += 1
    is_over = terminated or truncated
print(f"over after {steps} steps that did nothing: terminated {terminated}, truncated {truncated}")
print("brightest pixel of the observation before the last and of the last:", before["screen"].max(), observation["screen"].max())
assert terminated and truncated
assert before["screen"].max() > 0 and observation["screen"].max() == 0
END
