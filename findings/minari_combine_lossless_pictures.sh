#!/bin/sh
# Minari: combine_datasets turns pictures that were kept without loss into JPEG.
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
picture = np.zeros((40, 40, 3), np.uint8)
picture[10:20, 10:20] = (255, 0, 0)  # a red player
picture[::2, 30] = (0, 255, 0)  # a dotted green wall
episode = EpisodeBuffer(
    observations=np.stack([picture] * 3),
    actions=np.zeros(2, np.int64),
    rewards=np.ones(2),
    terminations=np.zeros(2, bool),
    truncations=np.array([False, True]),
)
dataset = minari.create_dataset_from_buffers(
    "pictures/raw-v0",
    [episode],
    observation_space=spaces.Box(0, 255, picture.shape, np.uint8),
    action_space=spaces.Discrete(2),
    jpeg_encoding=False,
)
combined = minari.combine_datasets([dataset], "combined-v0")
before, after = dataset[0].observations[0].astype(int), combined[0].observations[0].astype(int)
changed = (before != after).any(-1).mean()
print(f"written with jpeg_encoding=False, combined: {changed:.0%} of the pixels differ, by up to", abs(before - after).max())
assert np.array_equal(before, picture)
assert combined.storage.jpeg_encoding and changed > 0.5 and abs(before - after).max() > 100
END
