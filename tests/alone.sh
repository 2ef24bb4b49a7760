#!/bin/sh
# A saved policy acts where there is torch and numpy alone, and as ONNX where there is onnxruntime and numpy alone; the actions are equal.
# Not part of the test suite: makes two new environments of pip in a temporary folder, some minutes and 1 GB.
#
#   sh tests/alone.sh                 PYTHON=.venv/bin/python, TORCH_INDEX=https://download.pytorch.org/whl/cpu
set -eu
python=${PYTHON:-.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
constraints=$PWD/constraints.txt
"$python" - "$folder" <<'END'
import sys

import numpy as np
import torch
from torch import nn

from torchrl.deploy import export_onnx, save_policy
from torchrl.envs import Compose, GymEnv, TransformedEnv
from torchrl.envs.transforms import ActionScaling, FrameStack
from torchrl.modules import MLP, NormalHead, ProbabilisticActor, TanhNormal

torch.manual_seed(0)
env = TransformedEnv(GymEnv("Pendulum-v1", num_envs=2), Compose(FrameStack(2), ActionScaling()))
actor = ProbabilisticActor(nn.Sequential(MLP(6, 1), NormalHead(1)), TanhNormal)
form = save_policy(actor, sys.argv[1], env=env)
export_onnx(sys.argv[1], f"{sys.argv[1]}/policy.onnx")
rng = np.random.default_rng(0)
shapes = {one.name: (7, *one.shape) for one in form.inputs}
inputs = {one.name: rng.normal(size=shapes[one.name]).astype(one.dtype) for one in form.inputs if one.dtype != "bool"}
np.savez(f"{sys.argv[1]}/inputs.npz", **inputs, is_init=np.arange(7)[:, None] % 2 == 0)
END
for name in torch onnxruntime; do
    "$python" -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet --quiet --disable-pip-version-check -c "$constraints" \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$name" numpy
done
cd "$folder"
torch/bin/python -I - <<'END'
import json
import zipfile

import numpy as np
import torch

with zipfile.ZipFile("policy.pt2") as file:
    form = json.loads(file.read(next(name for name in file.namelist() if name.endswith("policy.json"))))
inputs = np.load("inputs.npz")
program = torch.export.load("policy.pt2").module()
np.save("by_torch.npy", program(*[torch.from_numpy(inputs[one["name"]]) for one in form["inputs"]])[0].numpy())
END
onnxruntime/bin/python -I - <<'END'
import importlib.util

import numpy as np
import onnxruntime

assert importlib.util.find_spec("torch") is None
session, inputs = onnxruntime.InferenceSession("policy.onnx"), np.load("inputs.npz")
(action,) = session.run(["action"], {one.name: inputs[one.name] for one in session.get_inputs()})
due = np.load("by_torch.npy")
np.testing.assert_allclose(action, due, rtol=1e-5, atol=1e-5)
print(f"{len(action)} actions are equal to {np.abs(action - due).max():.1e}")
END
