#!/bin/sh
# SuperSuit: with black_death, a time limit comes one step late, as a termination too, with an observation of zeros.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "supersuit==3.11.0" "pettingzoo==1.27.0" "gymnasium==1.4.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")
import numpy as np
import supersuit
from gymnasium import spaces
from pettingzoo import ParallelEnv

print("supersuit", version("supersuit"), "pettingzoo", version("pettingzoo"))


class FourSteps(ParallelEnv):
    """Two agents that observe the number of the step; truncated after four."""

    metadata = {"name": "four_steps", "render_modes": []}
    possible_agents = ["a", "b"]
    render_mode = None

    def observation_space(self, agent):
        return spaces.Box(0, 10, (1,))

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(self.possible_agents), 0
        return {agent: np.zeros(1, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        self.steps += 1
        agents, is_over = list(self.agents), self.steps == 4
        self.agents = [] if is_over else agents
        observations = {agent: np.full(1, self.steps, np.float32) for agent in agents}
        flags = {agent: False for agent in agents}, {agent: is_over for agent in agents}
        return observations, {agent: 1.0 for agent in agents}, *flags, {agent: {} for agent in agents}


def ending(env):
    """Step, flags of the first agent, and its last observation."""
    vector = supersuit.pettingzoo_env_to_vec_env_v1(env)
    vector.reset()
    for step in range(1, 9):
        _, rewards, terminated, truncated, infos = vector.step(np.zeros(2, int))
        if terminated.any() or truncated.any():
            return step, bool(terminated[0]), bool(truncated[0]), float(infos[0]["terminal_observation"][0]), float(rewards[0])


plain, wrapped = ending(FourSteps()), ending(supersuit.black_death_v3(FourSteps()))
print("step, terminated, truncated, last observation, reward")
print("as it is:        ", *plain)
print("black_death_v3:  ", *wrapped)
assert plain == (4, False, True, 4.0, 1.0)
assert wrapped == (5, True, True, 0.0, 0.0)
END
