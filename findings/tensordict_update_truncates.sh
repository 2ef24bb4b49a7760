#!/bin/sh
# tensordict: update_ and its kin cut 1.9 to 1 where the entry holds integers, without a word.
# Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "torch==2.13.0" "tensordict==0.15.3" "numpy==2.4.6"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import torch
from tensordict import TensorDict

print("tensordict", version("tensordict"), "torch", version("torch"))
new = TensorDict({"x": torch.tensor([1.9, -2.9])}, [2])
ways = {
    "update_": lambda held: held.update_(new),
    "copy_": lambda held: held.copy_(new),
    "set_": lambda held: held.set_("x", new["x"]),
    "held[:] = new": lambda held: held.__setitem__(slice(None), new),
}
for name, write in ways.items():
    held = TensorDict({"x": torch.tensor([0, 0])}, [2])
    write(held)
    print(f"{name:14} 1.9 and -2.9 into integers:", held["x"].tolist())
    assert held["x"].tolist() == [1, -2] and held["x"].dtype is torch.int64
try:
    torch.tensor([0, 0]).add_(new["x"])
except RuntimeError as error:
    print("torch, of the same tensors: add_ says", error)
else:
    raise AssertionError("torch adds floats to integers in place")
END
