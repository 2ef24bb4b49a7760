#!/bin/sh
# Brax: with auto_reset every episode of an environment begins in the very same state.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "brax==0.14.2" "jax==0.10.2"
venv/bin/python -I - <<'END'
import os
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import numpy as np
from brax import envs

print("brax", version("brax"), "jax", version("jax"))
env = envs.create("inverted_pendulum", episode_length=5, auto_reset=True, batch_size=2)
state = jax.jit(env.reset)(jax.random.PRNGKey(0))
step, starts = jax.jit(env.step), [np.asarray(state.obs)]
for _ in range(20):
    state = step(state, np.zeros((2, env.action_size)))
    if np.asarray(state.done).all():
        starts.append(np.asarray(state.obs))
other = np.asarray(jax.jit(env.reset)(jax.random.PRNGKey(1)).obs)
print("first observations of five episodes of one environment:", *(start[0].round(5).tolist() for start in starts), sep="\n  ")
assert len(starts) == 5 and all(np.array_equal(start, starts[0]) for start in starts)
assert not np.array_equal(other, starts[0])  # a reset by hand draws a state
END
