"""Write a saved policy as ONNX, which other runtimes and languages execute. Nothing is executed here."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch

from torchrl.deploy.form import Form
from torchrl.deploy.saved import locate, read_program
from torchrl.deploy.saving import DESCRIPTION
from torchrl.envs import Env
from torchrl.errors import CheckpointError, ConfigError, explain
from torchrl.extras import require
from torchrl.files import write_whole


class SavesPolicy(Protocol):
    """Writes its policy to a file, as an agent does."""

    def save_policy(self, path: str | os.PathLike, *, env: Env | None) -> None:
        """Write the policy to a file that ends with ``.pt2``."""


def export_onnx(source: str | os.PathLike | SavesPolicy, path: str | os.PathLike, *, env: Env | None = None) -> Form:
    """Write a policy to an ONNX file, with its description in the model's metadata under ``"policy.json"``.

    Inputs and outputs have the names of the description, and any number N of rows. Where torch's program and the model
    get the same inputs, noise among them, they give the same actions to 1e-5.

    >>> agent.save_policy(folder / "policy.pt2", env=env)
    >>> form = export_onnx(folder / "policy.pt2", folder / "policy.onnx")  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession(folder / "policy.onnx")  # doctest: +SKIP
    >>> rows, noise = np.zeros((5, 4), np.float32), np.zeros((5, 2), np.float32)  # doctest: +SKIP
    >>> session.run(["action"], {"observation": rows, "noise": noise})[0].shape  # doctest: +SKIP
    (5,)

    Args:
        source: a file or folder that :func:`save_policy` wrote, or an agent, whose policy is saved first.
        path: a file that ends with ``.onnx``.
        env: of an agent, see :meth:`Agent.save_policy`.

    Returns:
        the description.

    Raises:
        ConfigError: an operation of the policy has no form in ONNX; or the suffix is another.
        CheckpointError: ``source`` is no policy, or the file cannot be written.
        MissingExtraError: onnx or onnxscript are not installed.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConfigError(explain("export_onnx", expected="a file that ends with .onnx", got=repr(str(path))))
    for module in ("onnx", "onnxscript"):
        require(module, extra="onnx", purpose="export_onnx")
    if not isinstance(source, (str, os.PathLike)):  # an agent
        with tempfile.TemporaryDirectory() as folder:
            source.save_policy(Path(folder) / "policy.pt2", env=env)
            return export_onnx(folder, path)
    program, text, form = read_program(locate(source))
    model = _convert(program, form)
    entry = model.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, text
    try:
        with write_whole(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except OSError as error:
        raise CheckpointError(f"The policy {str(path)!r} cannot be written: {error}.") from error
    return form


def _convert(program: torch.export.ExportedProgram, form: Form) -> Any:
    """Return the model of ONNX, whose free dimension is N."""
    names = {f"{side}_names": [one.name for one in getattr(form, f"{side}s")] for side in ("input", "output")}
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log.setLevel(logging.ERROR)  # it would tell of libraries that are not there
            model = torch.onnx.export(program, (), dynamo=True, verbose=False, **names).model_proto
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        hint = "policy.pt2 itself runs with torch alone."
        raise ConfigError(explain("export_onnx", expected="operations that ONNX has", got=reason, hint=hint)) from error
    finally:
        log.setLevel(level)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = "N"
    return model
