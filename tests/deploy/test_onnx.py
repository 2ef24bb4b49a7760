"""A policy in ONNX acts as the program of torch does, by onnxruntime and numpy alone."""

import json

import numpy as np
import pytest
import torch

from cases.deployed import KINDS
from torchrl.deploy import export_onnx, save_policy
from torchrl.deploy.form import filled
from torchrl.errors import ConfigError

onnxruntime = pytest.importorskip("onnxruntime")
SHOWN = ("tanh-normal by dimension", "dueling from pictures", "LSTM")  # an export takes seconds; the others by hand


def inputs_of(form, num_rows):
    """Draw inputs of a program: observations and noise at random, states as episodes begin."""
    rng = np.random.default_rng(num_rows)
    for entry in form.inputs:
        shape = (num_rows, *entry.shape)
        if entry.kind == "state":
            yield np.repeat(filled(entry)[None], num_rows, 0)
        else:
            drawn = rng.normal(size=shape) if entry.dtype == "float32" else rng.integers(256, size=shape)
            yield drawn.astype(entry.dtype)


@pytest.mark.parametrize("name", SHOWN)
def test_onnx_gives_the_same_as_torch(name, tmp_path):
    make_policy, make_env = KINDS[name]
    torch.manual_seed(0)
    save_policy(make_policy(), tmp_path, env=make_env(2))
    form = export_onnx(tmp_path, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    program = torch.export.load(tmp_path / "policy.pt2").module()
    assert json.loads(session.get_modelmeta().custom_metadata_map["policy.json"])["format"] == "torchrl policy"
    assert session.get_inputs()[0].shape == ["N", *form.inputs[0].shape]
    for num_rows in (1, 8, 5):
        given = list(inputs_of(form, num_rows))
        names = [entry.name for entry in form.inputs]
        came = session.run([entry.name for entry in form.outputs], dict(zip(names, given, strict=True)))
        due = program(*map(torch.from_numpy, given))
        for one, other in zip(came, due, strict=True):
            assert one.dtype == other.numpy().dtype
            is_picture = one.dtype == np.uint8  # onnxruntime rounds once where torch's Resize rounds twice
            np.testing.assert_allclose(one * 1.0, other.numpy() * 1.0, rtol=1e-5, atol=1 if is_picture else 1e-5)


def test_the_suffix_says_what_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"a file that ends with \.onnx"):
        export_onnx(tmp_path, tmp_path / "policy.pt2")
