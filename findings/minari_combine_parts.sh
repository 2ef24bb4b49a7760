#!/bin/sh
# Minari: combine_datasets of filtered or split datasets takes all episodes, also those that were filtered out.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "minari==0.5.4" "gymnasium==1.4.0" "h5py==3.16.0" "pillow==13.0.0" "numpy==2.4.6"
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

print("minari", version("minari"))


def episode(length):
    return EpisodeBuffer(
        observations=np.zeros((length + 1, 1), np.float32),
        actions=np.zeros(length, np.int64),
        rewards=np.ones(length),
        terminations=np.zeros(length, bool),
        truncations=np.arange(length) == length - 1,
    )


dataset = minari.create_dataset_from_buffers(
    "parts/all-v0",
    [episode(length) for length in (2, 3, 4)],
    observation_space=spaces.Box(-1, 1, (1,)),
    action_space=spaces.Discrete(2),
)
good = dataset.filter_episodes(lambda each: len(each) == 4)
combined = minari.combine_datasets([good], "combined-v0")
print("filtered:", [len(each) for each in good], "combined:", [len(each) for each in combined])
train, test = minari.split_dataset(dataset, [2, 1], seed=0)
both = minari.combine_datasets([train, test], "combined-v1")
print("split into", len(train), "and", len(test), "episodes, combined again:", len(both))
assert [len(each) for each in good] == [4]
assert [len(each) for each in combined] == [2, 3, 4]
assert len(train) + len(test) == 3 and len(both) == 6
END
