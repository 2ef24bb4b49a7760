#!/bin/sh
# gymnasium: BipedalWalker-v3 plays another episode from the same seed and actions when it has played before.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "Box2D==2.3.10" "pygame-ce==2.5.8"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import gymnasium
import numpy as np

print("gymnasium", version("gymnasium"), "Box2D", version("Box2D"))


def play(env, seed):
    rng = np.random.default_rng(seed)
    seen = [env.reset(seed=seed)[0]]
    is_over = False
    while not is_over and len(seen) <= 300:
        observation, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 4).astype(np.float32))
        seen.append(observation)
        is_over = terminated or truncated
    return np.stack(seen)


used, differing = gymnasium.make("BipedalWalker-v3"), []
for seed in range(12):
    first, again = play(used, seed), play(used, seed)
    fresh, other = play(gymnasium.make("BipedalWalker-v3"), seed), play(gymnasium.make("BipedalWalker-v3"), seed)
    assert np.array_equal(fresh, other)  # new environments do repeat
    if not np.array_equal(first, again):
        differing.append((seed, len(first) - 1, len(again) - 1))
print("seeds of 12 whose episode differs when the same environment plays it twice (seed, steps, steps):", differing)
assert differing
END
