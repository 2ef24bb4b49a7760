#!/bin/sh
# ale-py: the vector environment of a class repeats no action by chance, that of the same game's id a quarter of them.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6" "ale-py==0.12.1"
venv/bin/python -I - <<'END'
import inspect
from importlib.metadata import version

import ale_py
import gymnasium
import numpy as np
from ale_py.vector_env import AtariVectorEnv

print("gymnasium", version("gymnasium"), "ale-py", version("ale-py"))
gymnasium.register_envs(ale_py)
by_class = inspect.signature(AtariVectorEnv.__init__).parameters["repeat_action_probability"].default
env = gymnasium.make_vec("ALE/Pong-v5", num_envs=1)
by_id = env.spec.kwargs["repeat_action_probability"]
assert isinstance(env.unwrapped, AtariVectorEnv)
print(f'repeat_action_probability: AtariVectorEnv("pong") {by_class}, make_vec("ALE/Pong-v5") {by_id}')
assert (by_class, by_id) == (0.0, 0.25)


def picture(env):
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        observation, reward, *_ = env.step(rng.integers(6, size=1))
    return observation, reward


(one, reward), (other, _) = picture(AtariVectorEnv("pong", 1, noop_max=0)), picture(gymnasium.make_vec("ALE/Pong-v5", num_envs=1, noop_max=0))
print("same seed and actions, same pictures after 60 steps?", np.array_equal(one, other), " rewards are", reward.dtype)
assert not np.array_equal(one, other) and reward.dtype == np.int32
END
