"""Act by a saved policy, on arrays: no environment, no TensorDict. Writing one is done in ``saving``."""

from __future__ import annotations

import copy
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from torchrl.deploy.form import ACTION, NOISE, OBSERVATION, STATE, Entry, Form, filled
from torchrl.deploy.saving import DESCRIPTION, POLICY
from torchrl.errors import CheckpointError, ConfigError, SpecError, explain, nearest

Arrays = np.ndarray | Mapping[str, "Arrays"]
DRAWS: dict[str, Callable] = {
    "normal": np.random.Generator.standard_normal,
    "gumbel": lambda rng, size, dtype: rng.gumbel(size=size).astype(dtype),
    "logistic": lambda rng, size, dtype: rng.logistic(size=size).astype(dtype),
}


# Operations that add their last argument, or a multiple of it, to the first, of the same shape.
ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.addcmul.default)


class SavedPolicy:
    """Act on observations as the simulator gives them, and return what the simulator takes, as numpy arrays.

    >>> agent.save_policy(folder / "policy.pt2", env=env)
    >>> policy = load_policy(folder / "policy.pt2")
    >>> policy(env.reset(seed=0)["observation"].numpy()[0]).shape, policy.form.action_space["n"]
    ((), 2)

    A policy with memory, or with noise that lasts, keeps it for each row from call to call: call :meth:`reset` where
    episodes begin.

    Args:
        program: of ``torch.export``.
        form: its description.

    Attributes:
        form: inputs, outputs and spaces.
    """

    def __init__(self, program: ExportedProgram, form: Form) -> None:
        self.form = form
        noises = [number for number, entry in enumerate(form.inputs) if entry.kind == NOISE]
        self._sample, self._choose = _lean(program), _lean(program, without=noises)
        self._observed = form.of_kind(OBSERVATION)
        self._states, self._noises = form.of_kind(STATE), form.of_kind(NOISE)
        self._num_actions = sum(entry.kind == ACTION for entry in form.outputs)
        self._rng = np.random.default_rng()
        self._num_zeros, self._zeros = -1, []
        self._kept: list[Tensor] | None = None  # states, ``[N, ...]``
        self._noise: list[np.ndarray] = []  # that lasts
        self._ages = np.zeros(0, np.int64)  # steps of each row since it was reset
        self._keeps = bool(self._states) or any(entry.lasts != 1 for entry in self._noises)
        self._is_plain = len(self._observed) == 1 and not self._keeps and not form.outputs[0].path
        self._shape, self._dtype = self._observed[0].shape, np.dtype(self._observed[0].dtype)

    def __call__(self, observation: Arrays, *, deterministic: bool = True, seed: int | None = None) -> Arrays:
        """Return the actions for one row, ``[F]``, or for N rows, ``[N, F]``.

        Args:
            observation: an array; where there are several observations, a mask of legal actions among them, a dict by
                name, nested as they are.
            deterministic: take the most probable action, or draw one.
            seed: begin the stream of draws anew from it; None goes on with the stream.

        Returns:
            For one row an action without a batch dimension: a number, ``[A]``, or a dict of the parts. For N rows
            ``[N, ...]``.

        Raises:
            SpecError: an observation is missing, or has another shape or dtype; or another number of rows than before
                without a :meth:`reset`.
            ConfigError: the policy can only act deterministically.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        if self._is_plain and deterministic and type(observation) is np.ndarray:  # the common case
            is_row = observation.shape == self._shape
            rows = observation[None] if is_row else observation
            if rows.shape[1:] == self._shape and rows.dtype == self._dtype and rows.flags.carray:
                action = self._choose(torch.from_numpy(rows), *self._no_noise(len(rows)))[0].numpy()
                return action[0] if is_row else action
        values, is_row = self._values(observation)
        num = len(values[0])
        states = self._states_of(num) if self._keeps else ()
        noise = self._no_noise(num) if deterministic else self._draw(num)
        outputs = (self._choose if deterministic else self._sample)(*values, *states, *noise)
        if self._keeps:
            self._kept = list(outputs[self._num_actions :])
            self._ages += 1
        actions = [output.numpy() for output in outputs[: self._num_actions]]
        if is_row:
            actions = [action[0] for action in actions]
        return actions[0] if not self.form.outputs[0].path else self._nested(actions)

    def reset(self, rows: np.ndarray | Sequence[int] | None = None) -> None:
        """Begin episodes in some rows: set their memory to its initial state, and draw noise that lasts anew.

        Args:
            rows: bool ``[N]``, or their numbers; None: all, whose number may then be another.

        Raises:
            SpecError: there is no such row.
        """
        if rows is None or self._kept is None:
            self._kept, self._noise = None, []
            return
        num = len(self._ages)
        chosen = np.zeros(num, bool)
        try:
            chosen[np.asarray(rows)] = True
        except IndexError as error:
            expected = f"bools [{num}], or numbers of {num} rows"
            raise SpecError(explain("SavedPolicy.reset", expected=expected, got=np.asarray(rows).tolist())) from error
        for kept, entry in zip(self._kept, self._states, strict=True):
            kept[torch.from_numpy(chosen)] = torch.from_numpy(filled(entry).copy())
        self._ages[chosen] = 0

    # ---- observations ------------------------------------------------------------------------------------------------

    def _values(self, observation: Arrays) -> tuple[list[Tensor], bool]:
        """Return the observations as tensors ``[N, ...]`` and whether a single row came."""
        entries = self._observed
        found = [self._find(observation, entry) for entry in entries]
        extra = [array.ndim - len(entry.shape) for array, entry in zip(found, entries, strict=True)]
        for array, entry, more in zip(found, entries, extra, strict=True):
            if more not in (0, 1) or array.shape[more:] != entry.shape or more != extra[0]:
                expected = f"{entry.name!r} of shape {list(entry.shape)}, or {['N', *entry.shape]} for N rows"
                raise SpecError(explain("SavedPolicy", expected=expected, got=list(array.shape)))
        is_row = extra[0] == 0
        found = [array[None] if is_row else array for array in found]
        if len({len(array) for array in found}) > 1:
            got = {entry.name: len(array) for entry, array in zip(entries, found, strict=True)}
            raise SpecError(explain("SavedPolicy", expected="as many rows of each observation", got=got))
        return [_tensor(array) for array in found], is_row

    def _find(self, observation: Arrays, entry: Entry) -> np.ndarray:
        value = observation
        if isinstance(value, Mapping):
            for name in entry.path:
                if not isinstance(value, Mapping) or name not in value:
                    raise self._missing(observation, entry)
                value = value[name]
        elif len(self._observed) > 1:
            got = f"one {type(observation).__name__}"
            names = [one.name for one in self._observed]
            raise SpecError(explain("SavedPolicy", expected=f"a dict with {names}", got=got))
        array = np.asarray(value)
        if array.dtype != entry.dtype:
            if not np.can_cast(array.dtype, entry.dtype, "same_kind"):
                hint = "Convert it, if it means the same."
                expected = f"{entry.name!r} of {entry.dtype}"
                raise SpecError(explain("SavedPolicy", expected=expected, got=array.dtype, hint=hint))
            array = array.astype(entry.dtype)
        return array

    def _missing(self, observation: Mapping, entry: Entry) -> SpecError:
        close = nearest(entry.path[-1], map(str, observation))
        hint = f"Did you mean {close!r}?" if close else ""
        got = f"keys {[*observation]}"
        return SpecError(explain("SavedPolicy", expected=f"the observation {entry.name!r}", got=got, hint=hint))

    # ---- noise and state ---------------------------------------------------------------------------------------------

    def _states_of(self, num: int) -> list[Tensor]:
        if self._kept is None:
            fresh = [np.repeat(filled(entry)[None], num, 0) for entry in self._states]
            self._kept = [torch.from_numpy(array) for array in fresh]
            self._ages = np.zeros(num, np.int64)
        elif len(self._ages) != num:
            hint = "Call reset() where all rows begin new episodes."
            raise SpecError(explain("SavedPolicy", expected=f"{len(self._ages)} rows, as before", got=num, hint=hint))
        return self._kept

    def _no_noise(self, num: int) -> list[Tensor]:
        if num != self._num_zeros:
            self._num_zeros = num
            self._zeros = [torch.zeros(num, *one.shape, dtype=getattr(torch, one.dtype)) for one in self._noises]
        return self._zeros

    def _draw(self, num: int) -> list[Tensor]:
        if not self.form.samples:
            hint = "Give its family a from_noise, and save it anew."
            expected = "deterministic=True, since the policy's family has no from_noise"
            raise ConfigError(explain("SavedPolicy", expected=expected, got="deterministic=False", hint=hint))
        drawn = []
        for number, entry in enumerate(self._noises):
            noise = DRAWS[entry.law](self._rng, size=(num, *entry.shape), dtype=np.dtype(entry.dtype))
            drawn.append(noise if entry.lasts == 1 else self._lasting_noise(number, entry, noise))
        return [torch.from_numpy(noise) for noise in drawn]

    def _lasting_noise(self, number: int, entry: Entry, noise: np.ndarray) -> np.ndarray:
        """Return the noise of before, and new noise in rows that begin an episode or have had theirs long enough."""
        if len(self._noise) <= number:
            self._noise.append(noise)
            return noise
        begins = self._ages == 0 if entry.lasts is None else self._ages % entry.lasts == 0
        self._noise[number] = np.where(begins.reshape(-1, *[1] * len(entry.shape)), noise, self._noise[number])
        return self._noise[number]

    def _nested(self, actions: list[np.ndarray]) -> dict:
        nested: dict = {}
        for entry, action in zip(self.form.outputs, actions, strict=False):
            *above, last = entry.path
            level = nested
            for name in above:
                level = level.setdefault(name, {})
            level[last] = action
        return nested


def load_policy(path: str | os.PathLike) -> SavedPolicy:
    """Read what :meth:`Agent.save_policy` or :func:`save_policy` wrote.

    >>> agent.save_policy(folder / "policy.pt2", env=env)
    >>> load_policy(folder / "policy.pt2").form.task
    'CartPole-v1'

    Args:
        path: the file, or its folder.

    Raises:
        CheckpointError: the file is missing, cut short, no policy, or of a version this library does not read.
    """
    program, _, form = read_program(locate(path))
    return SavedPolicy(program, form)


def locate(path: str | os.PathLike) -> Path:
    """Return the file of a policy, given it or its folder."""
    path = Path(path)
    return path / POLICY if path.is_dir() else path


def read_program(path: Path) -> tuple[ExportedProgram, str, Form]:
    """Return the program in a file, and its description as text and as what it says.

    Raises:
        CheckpointError: as :func:`load_policy`.
    """
    if not path.is_file():
        raise CheckpointError(explain("load_policy", expected="a file", got=f"nothing at {str(path)!r}"))
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begins_well = file.read(4) == b"PK\x03\x04"
        got = "one that is cut short" if begins_well else "a file that is no policy"
        raise CheckpointError(explain("load_policy", expected="a whole file", got=f"{got}: {str(path)!r}"))
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith(f"/{DESCRIPTION}")]
        if not inside:
            hint = "Checkpoints of a training are for agent.load." if path.suffix == ".pt" else ""
            got = f"other content: {str(path)!r}"
            raise CheckpointError(explain("load_policy", expected="a file of save_policy", got=got, hint=hint))
        text = archive.read(inside[0]).decode()
    form = Form.of_plain(json.loads(text), str(path))  # before the program, which a later version may have changed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path), text, form
    except Exception as error:
        reason = str(error).partition("\n")[0]
        got = f"the file {str(path)!r}, which does not load: {reason}"
        raise CheckpointError(explain("load_policy", expected="a program of this torch", got=got)) from error


def _lean(program: ExportedProgram, *, without: Sequence[int] = ()) -> Callable[..., Sequence[Tensor]]:
    """Return a program's graph as a plain function of its inputs.

    No checks of inputs, which :class:`SavedPolicy` has made, and operations are called as ``torch.tanh``, not as
    ``torch.ops.aten.tanh.default``: for a small network each of the two takes as long as computing.

    Args:
        program: of ``torch.export``; it stays as it is.
        without: numbers of inputs that are always zero: where they are added, nothing is computed.
    """
    weights = []
    for one in program.graph_signature.input_specs:
        if one.kind is not InputKind.USER_INPUT:
            held = program.state_dict if one.target in program.state_dict else program.constants
            weights.append(held[one.target].detach())
    module = copy.deepcopy(program.graph_module)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"][len(weights) :]
    for number in without:
        for user in list(inputs[number].users):
            if user.target in ADDS and user.args[-1] is inputs[number] and not user.kwargs:
                user.replace_all_uses_with(user.args[0])
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target.__name__.partition(".")[0]
        if name.startswith("_assert"):
            module.graph.erase_node(node)
            continue
        called = (getattr(place, name, None) for place in (torch, torch.nn.functional))
        node.target = next((one for one in called if isinstance(one, BuiltinFunctionType)), node.target)
    module.graph.eliminate_dead_code()
    module.recompile()
    return partial(module.forward, *weights)


def _tensor(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the array's memory where torch can."""
    is_fit = array.flags.writeable and array.flags.c_contiguous
    return torch.from_numpy(array if is_fit else array.copy())
