#!/bin/sh
# Level-Based Foraging and RWARE: the time limit is reported as a termination, never as a truncation.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "lbforaging==2.0.0" "rware==2.0.0"
venv/bin/python -I - <<'END'
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")
import gymnasium
import lbforaging  # registers its ids
import rware  # likewise

print("lbforaging", version("lbforaging"), "rware", version("rware"))
for name in ("Foraging-5x5-2p-1f-v3", "rware-tiny-2ag-v2"):
    env = gymnasium.make(name)
    env.reset(seed=0)
    steps, is_over = 0, False
    while not is_over:
        _, rewards, terminated, truncated, _ = env.step((0, 0))  # nobody moves: nothing can be achieved or lost
        steps += 1
        is_over = terminated or truncated
    print(f"{name}: two agents that wait, over after {steps} steps, terminated {terminated}, truncated {truncated}")
    assert terminated and not truncated and sum(rewards) == 0
END
