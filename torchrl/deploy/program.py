"""Write a policy and the transforms around it as one program of tensors: of observation, state and noise, no more."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.export import ExportedProgram

from torchrl.data.specs import Composite
from torchrl.deploy.form import ACTION, NOISE, OBSERVATION, STATE, Entry, compact, dtype_of
from torchrl.deploy.noise import take_noise_
from torchrl.deploy.rows import Leaves, Rows, leaf_keys
from torchrl.envs import Env
from torchrl.errors import ConfigError, TorchRLError, explain
from torchrl.keys import Key, as_key, as_path
from torchrl.modules import (
    ActorCriticWrapper,
    ActorValueOperator,
    ExplorationType,
    set_exploration_type,
)
from torchrl.modules.exploration import without_exploration
from torchrl.modules.memory import Memory, Stateful

NUM_ROWS = 3  # of the example that the program is traced with; no size that a policy has


class Program(nn.Module):
    """Act on tensors in the order of :attr:`inputs`, return those of :attr:`outputs`.

    Args:
        policy: reads roots of ``env`` and writes ``action``; copied.
        env: whose transforms stand between the policy and the simulators; copied, never stepped.

    Attributes:
        inputs: entries of one row.
        outputs: likewise.
        samples: whether noise gives what the policy would draw.
        rows: the transforms.
    """

    def __init__(self, policy: nn.Module, env: Env) -> None:
        super().__init__()
        policy = without_exploration(policy)
        if isinstance(policy, (ActorCriticWrapper, ActorValueOperator)):
            policy = policy.actor
        self.policy = copy.deepcopy(policy).to("cpu").eval().requires_grad_(False)
        self._aside = {"rows": Rows(env), "noises": take_noise_(self.policy)}  # no modules of the program
        self.inputs: list[Entry] = []
        self._values: list[Tensor] = []  # of one row, for the example and for inputs that nothing reads
        self._is_used: list[bool] = []
        self._list_inputs(env)
        self._list_outputs()

    @property
    def rows(self) -> Rows:
        """The transforms."""
        return self._aside["rows"]

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs of a few rows that are used."""
        return tuple(value.repeat(NUM_ROWS, *[1] * (value.ndim - 1)) for value in self._kept(self._values))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given, num = iter(inputs), inputs[0].shape[0]
        values = [
            (entry, next(given) if used else value.expand(num, *value.shape[1:]))
            for entry, value, used in zip(self.inputs, self._values, self._is_used, strict=True)
        ]
        self._aside["noises"].give([x for entry, x in values if entry.kind == NOISE and not entry.path])
        return tuple(self._run(values, num))

    def drop(self, unused: Iterable[int]) -> None:
        """Leave out the used inputs of these numbers, and the outputs of states among them."""
        at = [index for index, used in enumerate(self._is_used) if used]
        for number in unused:
            self._is_used[at[number]] = False
        gone = {entry.path for entry, used in zip(self.inputs, self._is_used, strict=True) if not used}
        self._kept_states = [entry for entry in self._kept_states if entry.path not in gone]

    def form(self) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        """Return the inputs and the outputs that are used."""
        states = [Entry(f"next/{one.name}", STATE, one.path, one.shape, one.dtype) for one in self._kept_states]
        return tuple(self._kept(self.inputs)), (*self._actions, *states)

    def _kept(self, values: list) -> list:
        return [value for value, used in zip(values, self._is_used, strict=True) if used]

    # ---- what it reads and writes ------------------------------------------------------------------------------------

    def _list_inputs(self, env: Env) -> None:
        base = self.rows.base
        mask = None if base.action_mask_key is None else as_path(base.action_mask_key)
        for key, leaf in base.observation_spec.leaves():
            path = as_path(key)
            is_mask = mask is not None and path[: len(mask)] == mask
            zero = leaf.zero()[0]
            self._add(OBSERVATION, path, torch.ones_like(zero) if is_mask else zero)
        info = env.carried.agent_info
        for key in () if info is None else leaf_keys(info):
            value = info.get(key)
            if as_path(key) in self._read():
                self._add(OBSERVATION, as_path(key), value[(0,) * len(env.batch_size)].cpu())
        for path, value in self._policy_states(env).items():
            self._add(STATE, path, value, initial=compact(value))
        for (number, name), value in self.rows.memory.items():
            self._add(STATE, (str(number), name), value, initial=compact(value), name=f"transform_{number}/{name}")
        if self.rows.memory or "is_init" in self._read_by_leaves():
            self._add(STATE, ("is_init",), torch.ones(1, dtype=torch.bool), initial=True)
        for one in self.rows.gsde:
            shape = (one.num_features, one.num_actions)
            lasts = one.resample_every
            self._add(NOISE, as_path(one.out_key), torch.zeros(shape), law="normal", lasts=lasts)
        self._note_noise()

    def _note_noise(self) -> None:
        """Act once, on one row, to learn what noise the families take, and what the policy writes."""
        values = list(zip(self.inputs, self._values, strict=True))
        with torch.no_grad():
            self._run(values, 1, is_first=True)
        noises = self._aside["noises"]
        self.samples = not noises.without
        several = len(noises.needed) > 1
        for number, (law, shape, dtype) in enumerate(noises.needed):
            name = f"noise_{number}" if several else "noise"
            self._add(NOISE, (), torch.zeros(shape, dtype=dtype), law=law, lasts=1, name=name)

    def _list_outputs(self) -> None:
        spec = self.rows.base.action_spec
        leaves = dict(spec.leaves()) if isinstance(spec, Composite) else {(): spec}
        self._actions = []
        for key, leaf in leaves.items():
            path = as_path(key)
            name = "/".join(("action", *path))
            self._actions.append(Entry(name, ACTION, path, tuple(leaf.shape[1:]), dtype_of(leaf.dtype)))
        self._kept_states = [entry for entry in self.inputs if entry.kind == STATE]

    def _add(self, kind: str, path: tuple[str, ...], value: Tensor, *, name: str = "", **more: object) -> None:
        name = name or "/".join(path)
        while any(name == entry.name for entry in self.inputs):
            name += "_"
        self.inputs.append(Entry(name, kind, path, tuple(value.shape), dtype_of(value.dtype), **more))
        self._values.append(value.detach().clone().unsqueeze(0))
        self._is_used.append(True)

    def _read(self) -> set[tuple[str, ...]]:
        return {as_path(key) for key in getattr(self.policy, "in_keys", ())}

    def _read_by_leaves(self) -> set[Key]:
        """Collect the keys that modules read which have none with keys inside; a memory needs no ``is_init``."""
        keyed = [part for part in self.policy.modules() if hasattr(part, "in_keys") and not isinstance(part, Memory)]
        inner = [
            part for part in keyed if not any(hasattr(one, "in_keys") for one in part.modules() if one is not part)
        ]
        return {key for part in inner for key in part.in_keys}

    def _policy_states(self, env: Env) -> Leaves:
        """Return what one row starts an episode from: what the policy says, or else what the env was primed with."""
        primed, first = env.carried.primed, (0,) * len(env.batch_size)
        states = {} if primed is None else {as_path(key): primed.get(key)[first].cpu() for key in leaf_keys(primed)}
        if isinstance(self.policy, Stateful):
            own = self.policy.initial_state()
            states |= {as_path(key): own.get(key) for key in leaf_keys(own)}
        read = self._read()
        return {path: value for path, value in states.items() if path in read}

    # ---- acting ------------------------------------------------------------------------------------------------------

    def _run(self, values: list[tuple[Entry, Tensor]], num: int, *, is_first: bool = False) -> list[Tensor]:
        rows = self.rows
        by_path = {kind: {e.path: x for e, x in values if e.kind == kind} for kind in (OBSERVATION, STATE)}
        states, noise = by_path[STATE], {e.path: x for e, x in values if e.kind == NOISE and e.path}
        memory = {(number, name): states[str(number), name] for number, name in rows.memory}
        begins = states.get(("is_init",))
        seen, memory = rows.see(by_path[OBSERVATION], memory, None if begins is None else begins.squeeze(-1))
        remembered = {(str(number), name) for number, name in rows.memory}
        others = {path: value for path, value in states.items() if path not in remembered}
        written = self._act(TensorDict(batch_size=[num]), seen | noise | others)
        action = written.get("action", None)
        if action is None:
            got = f"one that writes {sorted(map(str, written.keys()))}"
            raise ConfigError(explain("save_policy", expected="a policy that writes 'action'", got=got))
        is_nested = isinstance(action, TensorDictBase)
        leaves = {as_path(key): action.get(key) for key in leaf_keys(action)} if is_nested else {(): action}
        leaves, memory = rows.act(leaves, memory)
        memory = {(str(number), name): value for (number, name), value in memory.items()}
        if is_first:
            return []
        outputs = [self._cast(leaves, entry) for entry in self._actions]
        return outputs + [self._next(entry, states[entry.path], written, memory) for entry in self._kept_states]

    def _act(self, root: TensorDict, entries: Leaves) -> TensorDictBase:
        for path, value in entries.items():
            root.set(as_key(path), value)
        try:
            with set_exploration_type(ExplorationType.DETERMINISTIC):
                return self.policy(root)
        except TorchRLError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            name = type(self.policy).__name__
            expected = "a policy that is one graph of tensors"
            hint = "It must not branch on values, nor depend on the number of rows."
            got = f"a {name}, which fails: {reason}"
            raise ConfigError(explain("save_policy", expected=expected, got=got, hint=hint)) from error

    @staticmethod
    def _cast(leaves: Leaves, entry: Entry) -> Tensor:
        if entry.path not in leaves:
            got = f"the parts {[*leaves]}"
            raise ConfigError(explain("save_policy", expected=f"an action with {entry.name!r}", got=got))
        value, dtype = leaves[entry.path], getattr(torch, entry.dtype)
        return value if value.dtype == dtype else value.to(dtype)

    @staticmethod
    def _next(entry: Entry, before: Tensor, written: TensorDictBase, memory: dict) -> Tensor:
        if entry.path == ("is_init",):
            return torch.zeros_like(before)
        if entry.path in memory:
            return memory[entry.path]
        value = written.get(("next", *entry.path), None)
        return before.clone() if value is None else value


def trace(program: Program) -> ExportedProgram:
    """Return the graph of a program, for batches of any size; inputs that nothing reads are dropped from the program.

    Raises:
        ConfigError: it is no function of its inputs, but looks at values in Python or draws numbers.
    """
    while True:
        exported = _export(program)
        names = exported.graph_signature.user_inputs
        used = {node.name: bool(node.users) for node in exported.graph.nodes if node.op == "placeholder"}
        unused = [index for index, name in enumerate(names) if not used[name]]
        if not unused or len(unused) == len(names):
            return exported
        program.drop(unused)


def _export(program: Program) -> ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    example = program.example()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(program, example, dynamic_shapes=(tuple({0: batch} for _ in example),))
    except TorchRLError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        hint = "Its modules and transforms must not branch on values, nor depend on the number of rows."
        raise ConfigError(explain("save_policy", expected="one graph of tensors", got=reason, hint=hint)) from error
    exported.graph.eliminate_dead_code()
    exported.graph_module.recompile()
    _require_no_draws(exported)
    return exported


def _require_no_draws(exported: ExportedProgram) -> None:
    for node in exported.graph.nodes:
        draws = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if draws and "attention" not in node.name:  # which draws where it drops out, in training alone
            expected = "a policy whose actors draw by a family with from_noise"
            hint = "Give it a mode under the exploration type DETERMINISTIC."
            raise ConfigError(explain("save_policy", expected=expected, got=f"one that calls {node.target}", hint=hint))
