"""Write a policy as one file that torch alone can run, with a description of its inputs and outputs inside."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from torchrl import __version__
from torchrl.data.specs import TensorSpec
from torchrl.deploy.form import Form, space_of
from torchrl.deploy.program import Program, trace
from torchrl.envs import Env
from torchrl.envs.learned import Learned, frozen
from torchrl.errors import CheckpointError, ConfigError, explain
from torchrl.files import write_whole

POLICY, DESCRIPTION, README = "policy.pt2", "policy.json", "README.txt"
HOW = """A policy for {task}, as a program of torch. With torchrl:

    policy = torchrl.load_policy("policy.pt2")
    action = policy(observation)

With torch alone, for N rows at once:

    program = torch.export.load("policy.pt2").module()
    {outputs} = program({inputs})

Inputs, of N rows each:
{listed}
Zero noise gives the most probable action, noise drawn by its law a sample. States begin as policy.json says.
"""


def save_policy(
    policy: nn.Module,
    path: str | os.PathLike,
    *,
    env: Env,
    learned: Sequence[Learned] | None = None,
    origin: Mapping[str, object] | None = None,
) -> Form:
    """Write what acts, from the simulator's observation to the simulator's action, to one file, and describe it.

    The file holds the network, the env's transforms of observations and actions with their statistics, memory with its
    initial state, and the spaces; nothing of the training. It is a program of ``torch.export`` for batches of any size.

    >>> from torchrl.deploy import load_policy, save_policy
    >>> form = save_policy(actor, folder / "policy.pt2", env=env)
    >>> load_policy(folder / "policy.pt2")(env.reset(seed=0)["observation"].numpy()).shape
    (2,)

    Args:
        policy: reads roots of ``env``; its explorers are left out.
        path: a file that ends with ``.pt2``, or a folder, which also gets the description as ``policy.json`` and a note
            on how to use them.
        env: one whose transforms the policy was trained with, such as that of an evaluation; it is not stepped.
        learned: statistics that the transforms learned elsewhere, ``collector.learned_states()``; None: their own.
        origin: plain settings to keep with it, such as an agent's ``configuration``.

    Returns:
        the description.

    Raises:
        ConfigError: policy or transforms are no functions of tensors; the message names which. Or ``path`` has another
            suffix.
        CheckpointError: the file cannot be written.
    """
    if not isinstance(policy, nn.Module):
        got = getattr(policy, "__name__", type(policy).__name__)
        raise ConfigError(explain("save_policy", expected="a policy that is a torch module", got=got))
    if not isinstance(env, Env):
        hint = "It says what the policy observes, and which transforms stand before it."
        raise ConfigError(explain("save_policy, env", expected="an Env", got=repr(env), hint=hint))
    file, folder = _places(path)
    with frozen(env, learned):
        program = Program(policy, env)
        exported = trace(program)
    form = _describe(program, origin or {})
    text = json.dumps(form.plain(), indent=1)
    try:
        with write_whole(file) as temporary:
            temporary.write_bytes(_archive(exported, text))
        if folder is not None:
            for name, content in ((DESCRIPTION, text), (README, _how(form))):
                with write_whole(folder / name) as temporary:
                    temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"The policy {str(file)!r} cannot be written: {error}.") from error
    return form


def _archive(exported: ExportedProgram, text: str) -> bytes:
    """Return the content of the file; written to a path, it would have the temporary name inside."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported, content, extra_files={DESCRIPTION: text})
    return content.getvalue()


def _places(path: str | os.PathLike) -> tuple[Path, Path | None]:
    """Return the file to write, and the folder if a folder is asked for."""
    path = Path(path)
    if path.is_dir() or not path.suffix:
        return path / POLICY, path
    if path.suffix != ".pt2":
        hint = "export_onnx writes .onnx; agent.save writes checkpoints, .pt."
        expected = "a file that ends with .pt2, or a folder"
        raise ConfigError(explain("save_policy", expected=expected, got=repr(str(path)), hint=hint))
    return path, None


def _describe(program: Program, origin: Mapping[str, object]) -> Form:
    inputs, outputs = program.form()
    base = program.rows.base
    seen, acted = (_of_row(spec) for spec in (base.observation_spec, base.action_spec))
    versions = {"torchrl": __version__, "torch": torch.__version__}
    return Form(inputs, outputs, seen, acted, program.samples, base.task, {**versions, "settings": _plain(origin)})


def _of_row(spec: TensorSpec) -> dict:
    return space_of(spec[0])


def _plain(value: object) -> object:
    """Return settings as JSON can hold them; what is no plain value becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _how(form: Form) -> str:
    listed = [f"    {one.name}: {one.kind}, {one.dtype} {['N', *one.shape]}{_law(one.law)}" for one in form.inputs]
    words = [", ".join(one.name.replace("/", "_") for one in side) for side in (form.outputs, form.inputs)]
    outputs = words[0] if len(form.outputs) > 1 else f"({words[0]},)"
    return HOW.format(task=form.task or "an environment", outputs=outputs, inputs=words[1], listed="\n".join(listed))


def _law(law: str | None) -> str:
    return f" of the law {law!r}" if law else ""
