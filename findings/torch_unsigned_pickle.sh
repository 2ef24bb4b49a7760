#!/bin/sh
# torch: a tensor of uint16, uint32 or uint64 can be pickled, and the bytes cannot be unpickled, though torch.save and
# deepcopy return it. Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "torch==2.13.0" "numpy==2.4.6"
venv/bin/python -I - <<'END'
import copy
import io
import pickle

import torch

print("torch", torch.__version__)


def saved(tensor):
    file = io.BytesIO()
    torch.save(tensor, file)
    file.seek(0)
    return torch.load(file)


for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int32):
    tensor = torch.tensor([1, 2, 3]).to(dtype)
    assert torch.equal(saved(tensor), tensor) and torch.equal(copy.deepcopy(tensor), tensor)
    data = pickle.dumps(tensor)
    try:
        came = "the tensor" if torch.equal(pickle.loads(data), tensor) else "another tensor"
    except AttributeError as error:
        came = f"AttributeError: {error}"
    print(f"{dtype}: torch.load and deepcopy give the tensor, pickle.loads gives {came}")
    expected = dtype in (torch.uint8, torch.int32)
    assert (came == "the tensor") is expected, (dtype, came)
END
