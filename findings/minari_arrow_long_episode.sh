#!/bin/sh
# Minari: an episode of 40,000 steps in the format arrow is read as one of 32,767.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "minari==0.5.4" "gymnasium==1.4.0" "pyarrow==26.0.1" "pillow==13.0.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
import os
import warnings
from importlib.metadata import version

os.environ["MINARI_DATASETS_PATH"] = os.getcwd()
warnings.simplefilter("ignore")  # about authors and the like
import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

print("minari", version("minari"), "pyarrow", version("pyarrow"))


def episode(length, first):
    return EpisodeBuffer(
        observations=np.arange(first, first + length + 1, dtype=np.float32)[:, None],
        actions=np.zeros(length, np.int64),
        rewards=np.ones(length),
        terminations=np.zeros(length, bool),
        truncations=np.arange(length) == length - 1,
    )


dataset = minari.create_dataset_from_buffers(
    "long/arrow-v0",
    [episode(40_000, 0), episode(10, 100_000)],
    observation_space=spaces.Box(0, 1e6, (1,)),
    action_space=spaces.Discrete(2),
    data_format="arrow",
)
episodes = list(dataset)
lengths = [len(each) for each in episodes]
print("written: 40000 and 10 steps; the metadata say", dataset.total_steps)
print("read:   ", lengths, "steps; the second begins with the observation", episodes[1].observations[0, 0])
assert dataset.total_steps == 40_010
assert lengths == [32_767, 7_232], lengths  # the second "episode" is the rest of the first
assert not episodes[0].truncations.any() and episodes[1].observations[0, 0] == 32_768
END
