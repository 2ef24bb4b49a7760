#!/bin/sh
# minigrid: in MemoryS7 and MemoryS9 one observation shows the object to remember and the two to choose from.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "minigrid==3.2.0" "gymnasium==1.4.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import gymnasium
import minigrid  # registers its ids

LEFT, RIGHT, FORWARD = 0, 1, 2
WALL, KEY, BALL = 2, 5, 6
EPISODES = 100


def play(env, seed):
    """Walk to the fork, turn round, and choose by that one observation; return the reward, or None if it shows less."""
    observation, _ = env.reset(seed=seed)
    while observation["image"][3, 5, 0] != WALL:  # until a wall is in front: the fork
        observation, *_ = env.step(FORWARD)
    for _ in range(2):  # look back
        observation, *_ = env.step(LEFT)
    kinds = observation["image"][..., 0]
    seen = [(i, j) for i, j in zip(*(kinds >= KEY).nonzero(), strict=True)]
    if len(seen) < 3:
        return None
    (first,) = [kinds[at] for at in seen if at[1] != 6]  # the two to choose from are in the agent's own row
    observation, reward, over, *_ = env.step(LEFT if kinds[1, 6] == first else RIGHT)
    assert not over
    _, reward, over, *_ = env.step(FORWARD)
    assert over
    return reward


print("minigrid", version("minigrid"))
for size in (7, 9, 11, 13):
    env = gymnasium.make(f"MiniGrid-MemoryS{size}-v0")
    rewards = [play(env, seed) for seed in range(EPISODES)]
    if None in rewards:
        print(f"MemoryS{size}: the first object is out of sight at the fork in {rewards.count(None)} of {EPISODES} episodes")
    else:
        print(f"MemoryS{size}: chosen by one observation, right in {sum(r > 0 for r in rewards)} of {EPISODES} episodes")
    assert all(reward is None for reward in rewards) if size > 9 else all(reward > 0 for reward in rewards)
END
