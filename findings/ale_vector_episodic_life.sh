#!/bin/sh
# ale-py: with episodic_life=True its vector environment begins a new game at every lost life, so that none plays its second life.
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


def lives_at_endings(**options):
    """Play a game of five lives to six endings; list the lives left at each, and after the step that begins the next."""
    env = AtariVectorEnv("breakout", 1, noop_max=0, **options)
    env.reset(seed=np.array([0]))
    rng, seen = np.random.default_rng(0), []
    while len(seen) < 6:
        *_, terminated, _, info = env.step(rng.integers(4, size=1))
        if terminated[0]:
            *_, after = env.step(np.array([0]))
            seen.append((int(info["lives"][0]), int(after["lives"][0])))
    return seen


anew, goes_on = lives_at_endings(episodic_life=True), lives_at_endings(life_loss_info=True)
print("lives at an ending and in the step after it, episodic_life=True: ", anew)
print("lives at an ending and in the step after it, life_loss_info=True:", goes_on)
assert anew == [(4, 5)] * 6
assert goes_on == [(4, 4), (3, 3), (2, 2), (1, 1), (0, 5), (4, 4)]
END
