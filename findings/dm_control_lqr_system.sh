#!/bin/sh
# dm_control: the task lqr draws its springs when it is built; seeding its generator afterwards repeats the start, not the episode.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "dm_control==1.0.50" "mujoco==3.17.0" "numpy==2.4.6"
venv/bin/python -I -W ignore - <<'END'
from importlib.metadata import version

import numpy as np
from dm_control import suite

print("dm_control", version("dm_control"))


def play(domain, task):
    env = suite.load(domain, task)
    env.task.random.seed(7)
    places = [env.reset().observation["position"]]
    places += [env.step(np.full(env.action_spec().shape, 0.5)).observation["position"] for _ in range(50)]
    return np.array(places), env


for domain, task in (("cartpole", "swingup"), ("reacher", "easy"), ("lqr", "lqr_2_1")):
    (one, env), (other, _) = play(domain, task), play(domain, task)
    print(domain, task, "- starts alike:", np.array_equal(one[0], other[0]), "- episodes alike:", np.array_equal(one, other))
    assert np.array_equal(one[0], other[0]) and np.array_equal(one, other) == (domain != "lqr")

spec = env.action_spec()  # of a motor without limits, lqr's
action = np.random.RandomState(0).uniform(spec.minimum, spec.maximum)
reward = env.step(action).reward
print("lqr: bounds of an action", spec.minimum, spec.maximum, "- reward of one drawn from them:", reward)
assert spec.maximum.tolist() == [1e10] and reward < -1e15
END
