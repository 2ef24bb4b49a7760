#!/bin/sh
# ale-py: a state cloned with its random generator does not hold the action that a sticky console would repeat.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "numpy==2.4.6" "ale-py==0.12.1"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms

print("ale-py", version("ale-py"))
ALEInterface.setLoggerMode(LoggerMode.Error)


def console(sticky):
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("random_seed", 1)
    ale.loadROM(roms.get_rom_path("pong"))
    ale.reset_game()
    return ale


def num_equal(sticky, num_states=40, num_steps=60):
    """Go on from a state in the console that it was taken from, and in another one; count the equal continuations."""
    first, second = console(sticky), console(sticky)
    actions, rng, equal = first.getMinimalActionSet(), np.random.default_rng(0), 0
    for _ in range(num_states):
        for action in rng.integers(len(actions), size=11):
            first.act(actions[action])
        second.restoreState(first.cloneState(include_rng=True))
        same = True
        for action in rng.integers(len(actions), size=num_steps):
            first.act(actions[action]), second.act(actions[action])
            same &= np.array_equal(first.getRAM(), second.getRAM())
        equal += same
    return equal


free, sticky = num_equal(0.0), num_equal(0.25)
print(f"of 40 states, restored in another console, go on alike: {free} without sticky actions, {sticky} with 0.25")
assert free == 40 and sticky < 40
END
