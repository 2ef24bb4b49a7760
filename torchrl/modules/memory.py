"""The base of modules that remember: one step ``[*B]``, or a sequence ``[*B, T]``. No cell; it calls no environment.

What a module remembers is its *state*, an entry of the root. A step reads it and writes the next one under ``"next"``;
the environment carries it to the next root, and starts episodes from :meth:`Stateful.initial_state`. A sequence reads
the state of its first step alone, and resets it where ``is_init`` says that an episode begins::

    acting    root[memory] ──> step ──> root[hidden], root[next, memory]          one step at a time, no gradient
    learning  batch[memory][:, 0] ──> step ──> step ──> ... ──> batch[hidden]     gradient through time
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.counts import is_count
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key, as_path, key_list, key_name
from torchrl.misspelling import Extensible
from torchrl.modules.operator import accept_tensors, read, write
from torchrl.unchecked import peek

PRIMER_LINE = "Write TransformedEnv(env, TensorDictPrimer(policy.initial_state()))."

INSIDE_LINE = "A module that holds it, such as nn.Sequential or an actor, hands on no state. Write "
INSIDE_LINE += "Sequence({who}(...), head), where the head reads what it writes, in_keys=['hidden']; or pass memory=..."


class Stateful:
    """Mixin of modules that carry state from step to step, or hold modules that do."""

    def own_state(self) -> Mapping[Key, Tensor]:
        """Return the state that one row starts an episode from, by key of the root, without that of modules inside."""
        return {}

    def initial_state(self) -> TensorDict:
        """Return what one row starts an episode from, by key of the root, batch size ``[]``: for ``TensorDictPrimer``.

        Raises:
            ConfigError: two modules keep their states under one key.
        """
        initial = TensorDict()
        for part in self.modules():
            for key, value in part.own_state().items() if isinstance(part, Stateful) else ():
                if initial.get(key, None) is not None:
                    hint = "Give one of them another state_key."
                    got = f"two modules that write {key_name(key)!r}"
                    raise ConfigError(explain(type(self).__name__, expected="a state for each", got=got, hint=hint))
                initial.set(key, value.detach().clone())
        return initial


class Memory(Stateful, Extensible, TensorDictModuleBase):
    """Base of modules that remember: a subclass writes :meth:`step`, and perhaps a faster :meth:`unroll`.

    >>> class Sum(Memory):  # of what was seen in the episode so far
    ...     def step(self, x, state):
    ...         return state + x, state + x
    >>> total = Sum((1,), in_keys=["x"])
    >>> sequence = TensorDict({"x": torch.ones(1, 3, 1), "memory": torch.zeros(1, 3, 1)}, [1, 3])
    >>> total(sequence.set("is_init", torch.tensor([[[False], [False], [True]]])))["hidden"].flatten().tolist()
    [1.0, 2.0, 1.0]

    The input is the entries ``in_keys``, joined along their last dimension: ``[*B, F]`` is one step, ``[*B, T, F]`` a
    sequence. A step writes the features and the next state; a sequence writes the features alone. Both start anew where
    ``is_init`` is true; a step without that entry goes on.

    Args:
        state_shape: of one row's state, S.
        in_keys: vectors to read.
        out_key: where the features go, ``[*B, H]`` or ``[*B, T, H]``.
        state_key: where the state is, ``[*B, *S]``; of a sequence, ``[*B, T, *S]``, only the first step is read.
        learn_initial_state: let episodes start from a parameter, zero at first, instead of zero.
        batch_dims: number of the dimensions ``*B`` of the environment; one of batch size ``[]`` counts as 1.
        in_features: F, which a call then compares with its input's; None compares nothing.

    Raises:
        ConfigError: a key or a number that cannot be.
        KeyMissing: from a call, an input, ``is_init`` of a sequence or the state is not there.
        SpecError: from a call, an input has another size or too many dimensions, or the state has another shape.
    """

    def __init__(
        self,
        state_shape: Iterable[int],
        *,
        in_keys: Iterable[Key] = ("observation",),
        out_key: Key = "hidden",
        state_key: Key = "memory",
        learn_initial_state: bool = False,
        batch_dims: int = 1,
        in_features: int | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if not is_count(batch_dims + 1):
            raise ConfigError(explain(f"{who}(batch_dims=...)", expected="at least 0", got=batch_dims))
        self.input_keys = key_list(f"{who}(in_keys=...)", in_keys)
        self.out_key = out_key
        self.state_key = state_key
        self.state_shape = torch.Size(state_shape)
        self.batch_dims = batch_dims
        self.in_features = in_features
        self.initial = nn.Parameter(torch.zeros(self.state_shape)) if learn_initial_state else None
        if state_key in self.input_keys or state_key == out_key:
            expected = "a state_key other than the keys of inputs and features"
            raise ConfigError(explain(who, expected=expected, got=repr(state_key)))
        self.in_keys = [*self.input_keys, state_key, "is_init"]
        self._per_row = (-1, *(1,) * len(self.state_shape))
        self._next_key = ("next", *as_path(state_key))
        self.out_keys = [out_key, self._next_key]

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features ``[N, H]`` of N rows and the next state ``[N, *S]``.

        Args:
            x: input, ``[N, F]``.
            state: ``[N, *S]``.
        """

    def unroll(self, x: Tensor, state: Tensor, is_init: Tensor) -> Tensor:
        """Return the features ``[N, T, H]`` of sequences of N rows; by default step by step.

        Args:
            x: inputs, ``[N, T, F]``.
            state: at the first step, ``[N, *S]``.
            is_init: bool ``[N, T]``, true where an episode begins: there the state is the initial one.
        """
        return self.unroll_stepwise(x, state, is_init)

    def unroll_stepwise(self, x: Tensor, state: Tensor, is_init: Tensor) -> Tensor:
        """Return what :meth:`unroll` does by calling :meth:`step` T times: slow, and the reference for faster ways."""
        features = []
        for inputs, begins in zip(x.unbind(1), is_init.unbind(1), strict=True):
            feature, state = self.step(inputs, self.restart(state, begins))
            features.append(feature)
        return torch.stack(features, 1)

    def restart(self, state: Tensor, is_init: Tensor) -> Tensor:
        """Return the state ``[N, *S]`` with the initial one in the rows where ``is_init``, bool ``[N, 1]``, is true."""
        begins = is_init.view(self._per_row)  # each dimension more has size 1: a view, whatever the strides
        return state.masked_fill(begins, 0) if self.initial is None else torch.where(begins, self.initial, state)

    def own_state(self) -> Mapping[Key, Tensor]:
        """Return the initial state, ``[*S]``, under its key."""
        like = next((x for x in self.parameters() if x.is_floating_point()), torch.zeros(()))
        return {self.state_key: like.new_zeros(self.state_shape) if self.initial is None else self.initial}

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        who = type(self).__name__
        x = self._joined(tensordict, who)
        key = self.state_key
        state = peek(tensordict, key) if type(key) is str else tensordict.get(key, None)
        if state is None:
            expected = f"the state under {key_name(self.state_key)!r}"
            got = f"keys {sorted(map(str, tensordict.keys()))}"
            # only tensors, called with by hand or by another module, make a TensorDict without batch dimensions of rows
            hint = INSIDE_LINE.format(who=who) if x.ndim > 1 and not tensordict.batch_dims else PRIMER_LINE
            raise KeyMissing(explain(who, expected=expected, got=got, hint=hint))
        size, num_dims = x.shape[:-1], x.ndim - 1
        if x.shape[-1] != self.in_features is not None:
            hint = f"Write {who}({x.shape[-1]}, ...), or other in_keys."
            got = f"{x.shape[-1]} from {self.input_keys}"
            raise SpecError(explain(who, expected=f"{self.in_features} input features", got=got, hint=hint))
        if state.shape != size + self.state_shape:
            due = [*size, *self.state_shape]
            hint = "A sequence has a state at each step; the first counts."
            hint = PRIMER_LINE if num_dims <= self.batch_dims else hint
            raise SpecError(explain(f"{who}, state", expected=f"shape {due}", got=list(state.shape), hint=hint))
        if num_dims <= self.batch_dims:
            begins = peek(tensordict, "is_init")
            if num_dims != 1:
                x = x.reshape(-1, x.shape[-1])
                state = state.reshape(x.shape[0], *self.state_shape)  # of a state without numbers -1 would not be known
                begins = None if begins is None else begins.reshape(-1, 1)
            if begins is not None:  # an initial state that is learned has changed since the environment put it there
                state = self.restart(state, begins)
            try:
                features, state = self.step(x, state)
            except RuntimeError as error:
                self._require_dtype(x, state, error)
                raise
            if num_dims != 1:
                features, state = features.view(*size, features.shape[-1]), state.view(*size, *self.state_shape)
            write(tensordict, self.out_key, features)
            write(tensordict, self._next_key, state)
            return tensordict
        if num_dims > self.batch_dims + 1:
            num = num_dims - 1
            hint = f"Build the module with batch_dims={num} for an environment with {num} batch dimensions."
            expected = f"at most {self.batch_dims} dimensions of rows and one of time"
            raise SpecError(explain(who, expected=expected, got=f"an input {list(x.shape)}", hint=hint))
        (is_init,) = read(tensordict, ("is_init",), who)
        x = x.reshape(-1, *x.shape[-2:])
        starts = state.select(num_dims - 1, 0).reshape(x.shape[0], *self.state_shape)
        features = self.unroll(x, starts, is_init.reshape(x.shape[:-1]))
        write(tensordict, self.out_key, features.view(*size, features.shape[-1]))
        return tensordict

    def _require_dtype(self, x: Tensor, state: Tensor, error: RuntimeError) -> None:
        """Say so where inputs, state and weights have different dtypes, which is what torch has refused."""
        due = next(iter(self.own_state().values())).dtype
        if x.dtype == due and state.dtype == due:
            return
        expected = f"inputs and state in {due}, as the weights are"
        hint = "After policy.to(dtype) make the primer anew, TensorDictPrimer(policy.initial_state()); "
        hint += "observations need the dtype, too."
        got = f"inputs in {x.dtype} and {key_name(self.state_key)!r} in {state.dtype}"
        raise SpecError(explain(type(self).__name__, expected=expected, got=got, hint=hint)) from error

    def _joined(self, tensordict: TensorDictBase, who: str) -> Tensor:
        inputs = read(tensordict, self.input_keys, who)
        return inputs[0] if len(inputs) == 1 else torch.cat(inputs, -1)


def has_memory(module: nn.Module) -> bool:
    """Answer whether a module is a :class:`Memory` or holds one."""
    return any(isinstance(part, Memory) for part in module.modules())


def state_keys(module: nn.Module) -> list[Key]:
    """List the keys of the states of every :class:`Memory` in a module."""
    return [part.state_key for part in module.modules() if isinstance(part, Memory)]
