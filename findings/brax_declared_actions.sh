#!/bin/sh
# Brax: its dm_env wrapper declares actions from -3 to 3, of which all beyond 1 do the same as 1.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "brax==0.14.2" "jax==0.10.2" "dm-env==1.6"
venv/bin/python -I - <<'END'
import os
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import numpy as np
from brax import envs
from brax.envs.wrappers.dm_env import DmEnvWrapper

print("brax", version("brax"), "jax", version("jax"))
env = envs.get_environment("inverted_pendulum")
spec = DmEnvWrapper(env).action_spec()
print("declared:", spec.minimum, "to", spec.maximum)
state, step = jax.jit(env.reset)(jax.random.PRNGKey(0)), jax.jit(env.step)
after = {action: np.asarray(step(state, np.array([action], np.float32)).obs) for action in (0.5, 1.0, 2.0, 3.0)}
for action, observation in after.items():
    print("after", action, observation.round(5).tolist())
# The step scales actions from [-1, 1] to the range of the motor, which the wrapper declares as that of the actions.
assert spec.minimum.tolist() == [-3.0] and spec.maximum.tolist() == [3.0]
assert np.array_equal(after[1.0], after[2.0]) and np.array_equal(after[1.0], after[3.0])
assert not np.array_equal(after[0.5], after[1.0])
END
