"""The transforms of an env as functions of tensors: what the policy sees of simulators, and what simulators get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.envs import Env, Transform, TransformedEnv
from torchrl.envs.transforms import DeviceCast, EnvSpecs, GSDENoise, PinMemory
from torchrl.envs.transforms.base import specs_above
from torchrl.errors import ConfigError, TorchRLError, explain
from torchrl.keys import Key, as_key, as_path
from torchrl.shapes import expand_right

Leaves = dict[tuple[str, ...], Tensor]
Memory = dict[tuple[int, str], Tensor]  # by number of the transform and name of its buffer
CPU = torch.device("cpu")


class Rows:
    """Hold copies of an env's transforms, and call them on batches ``[N]`` of any size.

    Transforms that change the reward alone are left out, as are those that move tensors to other devices; the noise of
    ``GSDENoise`` is an input of the program. What a transform remembers of a row's episode is state.

    Attributes:
        base: specs of one row of the simulators, batch size ``[1]``.
        gsde: the transforms that draw noise for gSDE.
        memory: initial memory of one row, by number of the transform and name of the buffer.
        policy: specs of one row that the policy has.
    """

    def __init__(self, env: Env) -> None:
        self.base = specs = _row_specs(env)
        self.gsde: list[GSDENoise] = []
        self._transforms: list[Transform] = []
        self.memory: dict[tuple[int, str], Tensor] = {}
        self._batch_at: dict[tuple[int, str], int] = {}
        for transform in env.transforms:
            if transform.changes_reward_only or isinstance(transform, (DeviceCast, PinMemory)):
                continue
            if isinstance(transform, GSDENoise):
                self.gsde.append(transform)
                continue
            with _named(transform):
                one = transform.for_row(specs)
                specs = specs_above(one, specs)
            self._remember(one)
        self.policy = specs

    def see(self, observations: Leaves, memory: Memory, begins: Tensor | None) -> tuple[Leaves, Memory]:
        """Return what the policy sees of observations, ``[N, ...]``, and the memory after it.

        Args:
            observations: by path.
            memory: of rows, ``[N, ...]``.
            begins: bool ``[N]``, true where a row begins an episode; None where nothing is remembered.
        """
        root = _nested(observations)
        memory = dict(memory)
        for number, transform in enumerate(self._transforms):
            with _named(transform):
                if transform.remembers:
                    root = self._see_with_memory(number, root, memory, begins)
                else:
                    transform.reset(root, None)
        return _leaves(root), memory

    def act(self, action: Leaves, memory: Memory) -> tuple[Leaves, Memory]:
        """Return what the simulator gets for actions of the policy, ``[N, ...]``, and the memory after it."""
        inputs = _nested({("action", *path): value for path, value in action.items()})
        memory = dict(memory)
        for number, transform in reversed(list(enumerate(self._transforms))):
            with _named(transform):
                self._recall(number, memory)
                transform.inverse(inputs)
                memory |= self._memorise(number)
        return {path[1:]: value for path, value in _leaves(inputs).items() if path[0] == "action"}, memory

    def _remember(self, transform: Transform) -> None:
        number = len(self._transforms)
        for name, batch_dim in transform.memory_dims.items() if transform.remembers else ():
            if batch_dim is None:
                got = f"{type(transform).__name__}, which keeps {name!r} for all rows together"
                raise ConfigError(explain("save_policy", expected="transforms of single rows", got=got))
            self.memory[number, name] = transform._buffers[name].detach().select(batch_dim, 0).clone()
            self._batch_at[number, name] = batch_dim
        self._transforms.append(transform)

    def _see_with_memory(self, number: int, root: TensorDict, memory: Memory, begins: Tensor) -> TensorDict:
        """Return the root after a step, or after a reset in rows that begin an episode, and change ``memory``."""
        transform = self._transforms[number]
        self._recall(number, memory)
        next_, going = root.copy(), root.copy()
        for flag in ("terminated", "truncated", "done"):
            next_.set(flag, torch.zeros_like(begins).unsqueeze(-1))
        transform.step(next_, going)
        after = self._memorise(number)
        self._recall(number, memory)
        transform.reset(root, begins)
        for place, value in self._memorise(number).items():
            memory[place] = _either(begins, value, after[place])
        fresh, going = _leaves(root), _leaves(going)
        return _nested({path: _either(begins, fresh[path], x) for path, x in going.items()})

    def _recall(self, number: int, memory: Memory) -> None:
        """Set the buffers of a transform to the memory of rows."""
        for place, value in memory.items():
            if place[0] == number:
                self._transforms[number]._buffers[place[1]] = value.movedim(0, self._batch_at[place])

    def _memorise(self, number: int) -> Memory:
        """Return the memory of rows in the buffers of a transform."""
        places = [place for place in self.memory if place[0] == number]
        buffers = self._transforms[number]._buffers
        return {place: buffers[place[1]].movedim(self._batch_at[place], 0) for place in places}


def base_of(env: Env) -> Env:
    """Return the env below all transforms."""
    while isinstance(env, TransformedEnv):
        env = env.env
    return env


def leaf_keys(tensordict: TensorDict) -> list[Key]:
    """List the keys of all tensors."""
    return list(tensordict.keys(include_nested=True, leaves_only=True))


def _row_specs(env: Env) -> EnvSpecs:
    env = base_of(env)
    first = (0,) * len(env.batch_size)
    specs = [getattr(env, f"{name}_spec") for name in ("observation", "action", "reward")]
    rows = [(spec[first] if first else spec).to(CPU).unsqueeze(0) for spec in specs]
    return EnvSpecs(torch.Size((1,)), CPU, *rows, env.action_mask_key, env.step_limit, env.task)


def _nested(leaves: Leaves) -> TensorDict:
    root = TensorDict(batch_size=next(iter(leaves.values())).shape[:1])
    for path, value in leaves.items():
        root.set(as_key(path), value)
    return root


def _leaves(tensordict: TensorDict) -> Leaves:
    return {as_path(key): tensordict.get(key) for key in leaf_keys(tensordict)}


def _either(begins: Tensor, first: Tensor, later: Tensor) -> Tensor:
    return first if first is later else torch.where(expand_right(begins, first), first, later)


@contextmanager
def _named(transform: Transform) -> Iterator[None]:
    """Name the transform in an error about what cannot be a function of the present observation and its own memory."""
    try:
        yield
    except TorchRLError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        expected = "transforms of observations and actions alone, which look at no values in Python"
        got = f"{type(transform).__name__}, which fails: {reason}"
        hint = "Save without it, save_policy(..., env=an env without it), and do by hand what it does."
        raise ConfigError(explain("save_policy", expected=expected, got=got, hint=hint)) from error
