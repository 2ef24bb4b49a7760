"""A policy that acts by one compiled graph instead of dozens of operations. It trains nothing and steps nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from torchrl.collectors.warmup import WarmUp
from torchrl.errors import ConfigError, explain
from torchrl.graphs import Graph, facts_of, tensors_of
from torchrl.keys import Key
from torchrl.modules import exploration_type
from torchrl.modules.operator import write
from torchrl.unchecked import peek


class Written:
    """Hold what a call of a policy's function finds out: the entries that it writes, and the buffers that it changes.

    Attributes:
        keys: of the entries.
        changed: places of the buffers among the inputs.
    """

    keys: tuple[Key, ...] = ()
    changed: tuple[int, ...] = ()


class GraphPolicy:
    """Act as a policy does, by one compiled graph of its forward pass, its sampling and its exploration.

    In the loop of a collector that steps 8 CartPoles, a call with a 64×64 network takes half the time. It draws the
    same numbers from the same generators, reads parameters and buffers at every call, and writes the same entries.
    Numbers and texts that a module holds as attributes are facts of the graph, as are the exploration type and the
    shapes of the entries: where one has changed, another graph is made, which takes seconds where it is not on disk,
    see :class:`~torchrl.graphs.Graph`. Checks of numbers, such as for a mask that allows nothing, are not in it.

    >>> policy = GraphPolicy(actor)  # compiles when it is called
    >>> [list(x.shape) for x in policy.inputs(env.reset())][-1], policy.num_graphs  # what the actor reads
    ([2, 4], 0)

    Args:
        policy: a module with ``in_keys``, or a :class:`WarmUp` around one, whose random actions stay outside the graph.

    Raises:
        ConfigError: the policy has no ``in_keys``; or, from a call, it is no single graph of tensors.
    """

    def __init__(self, policy: nn.Module) -> None:
        self.policy = policy
        self._warm_up = policy if isinstance(policy, WarmUp) else None
        self._module = policy.policy if isinstance(policy, WarmUp) else policy
        if not isinstance(self._module, nn.Module) or not hasattr(self._module, "in_keys"):
            hint = "Leave compile out, or wrap the network: Operator(network, in_keys=[...], out_keys=[...])."
            got = type(self._module).__name__
            raise ConfigError(explain("compile, policy", expected="a module with in_keys", got=got, hint=hint))
        self._parameters = list(tensors_of(self._module, "_parameters"))
        self._held = [*self._parameters, *tensors_of(self._module, "_buffers")]
        self._facts = facts_of(self._module)
        self._keys: list[Key] | None = None
        self._graphs: dict[tuple, tuple[Graph, Written]] = {}

    @property
    def num_graphs(self) -> int:
        """How many forms of roots this object has a graph for."""
        return len(self._graphs)

    @property
    def require_fit(self) -> Callable[..., None]:
        """The policy's method that refuses an action spec that it does not fit."""
        return self.policy.require_fit

    def __call__(self, root: TensorDictBase) -> TensorDictBase:
        """Act on a root, ``[*B]``, and write into it what the policy writes; without gradient."""
        inputs = self.inputs(root)
        shown = (*inputs[:1], *inputs[len(self._held) :])  # the first tells where the policy is
        form = (root.batch_size, *[(x.dtype, x.shape, x.device) for x in shown], *self.facts())
        if form not in self._graphs:
            written = Written()
            traced = partial(self.compute, written, root.batch_size)
            self._graphs[form] = Graph("compile, policy", traced, inputs), written
        graph, written = self._graphs[form]
        results = graph(inputs)
        for place in written.changed:
            inputs[place].copy_(results.pop())
        for key, value in zip(written.keys, results, strict=True):
            write(root, key, value)
        return root if self._warm_up is None else self._warm_up.act_at_random_(root)

    def inputs(self, root: TensorDictBase) -> list[Tensor]:
        """Return what the policy's function takes: parameters and buffers, then the entries of a root that it reads."""
        return [*self.weights(), *self.entries(root)]

    def weights(self) -> list[Tensor]:
        """Return the present parameters and buffers."""
        return [holder[name] for holder, name, _ in self._held]

    def entries(self, root: TensorDictBase) -> list[Tensor]:
        """Return the entries of a root that the policy reads."""
        entries = [peek(root, key) if type(key) is str else root.get(key, None) for key in self._keys or ()]
        if self._keys is None or any(x is None for x in entries):
            seen = root.select(*self._module.in_keys, strict=False)
            read = dict(seen.items(include_nested=True, leaves_only=True))
            self._keys, entries = list(read), list(read.values())
        return [x.contiguous() for x in entries]

    def facts(self) -> tuple:
        """Return what a graph of the policy holds as a fact: the exploration type, and what modules hold as numbers."""
        return exploration_type(), *[holder[name] for holder, name in self._facts]

    @torch.no_grad()
    def compute(self, written: Written, size: torch.Size, *inputs: Tensor) -> list[Tensor]:
        """Compute what the policy writes, as a function of :meth:`inputs`, which stay as they are.

        Args:
            written: is told which entries the results are.
            size: batch size of the root.
            *inputs: those of a root, or others of their form.

        Returns:
            The entries that the policy writes, then the buffers that it changes, the last one first.
        """
        held = list(inputs[: len(self._held)])
        for place in range(len(self._parameters), len(held)):
            held[place] = held[place].clone()  # a policy may write to its buffers
        versions = [x._version for x in held]
        root = TensorDict(dict(zip(self._keys, inputs[len(held) :], strict=True)), batch_size=size)
        shown = dict(root.items(include_nested=True, leaves_only=True))
        swapped = dict(zip([name for *_, name in self._held], held, strict=True))
        acted = torch.func.functional_call(self._module, swapped, (root,))
        results = {k: x for k, x in acted.items(include_nested=True, leaves_only=True) if shown.get(k) is not x}
        changed = [place for place, x in enumerate(held) if x._version != versions[place]]
        written.keys, written.changed = tuple(results), tuple(reversed(changed))
        return [*results.values(), *[held[place] for place in changed]]
