"""Policies for others to use: one file from the simulator's observation to its action, without the training."""

from torchrl.deploy.form import Entry, Form, space_of
from torchrl.deploy.onnx import export_onnx
from torchrl.deploy.saved import SavedPolicy, load_policy
from torchrl.deploy.saving import save_policy

__all__ = ["Entry", "Form", "SavedPolicy", "export_onnx", "load_policy", "save_policy", "space_of"]
