#!/bin/sh
# gymnasium: two Dict spaces that are equal flatten the same observation to different vectors.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "gymnasium==1.4.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import numpy as np
from gymnasium import spaces

print("gymnasium", version("gymnasium"))
speed, height = spaces.Box(-9, 9, (1,)), spaces.Box(-9, 9, (1,))
by_dict = spaces.Dict({"speed": speed, "height": height})
by_keywords = spaces.Dict(speed=speed, height=height)
observation = {"speed": np.float32([2]), "height": np.float32([1])}
vectors = [spaces.flatten(space, observation).tolist() for space in (by_dict, by_keywords)]
print("Dict({...}) == Dict(...):", by_dict == by_keywords, "  the same observation, flattened:", *vectors)
assert by_dict == by_keywords
assert vectors == [[1.0, 2.0], [2.0, 1.0]]  # a dict is sorted, keywords are not
END
