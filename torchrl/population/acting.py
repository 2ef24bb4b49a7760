"""One policy for the rows of all members, of which each member's own policy acts on its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl.collectors import GraphPolicy, WarmUp
from torchrl.collectors.graph_policy import Written
from torchrl.errors import ConfigError, explain
from torchrl.modules.operator import write
from torchrl.population.mapped import MappedGraph


class JointPolicy(nn.Module):
    """Act on a root ``[S * B]`` with the policies of S members, each on its B rows in their order.

    Where the policies are one graph of tensors, it is mapped over the members: one call for all. Otherwise they act one
    after another. Each draws from its own generators, as if it acted alone.

    >>> joint = JointPolicy([actor, actor])
    >>> joint(env.reset())["action"].shape  # one row each
    torch.Size([2])

    Args:
        policies: of the members.
        compile: compile the mapped graph, which takes seconds in a first run.
        is_copied: whether a copy acts on another device, whose weights come unseen: there members act one by one.

    Raises:
        ConfigError: from a call with ``compile``, the policies are no single graph of tensors.
    """

    def __init__(self, policies: Sequence[nn.Module], *, compile: bool = False, is_copied: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(policies)
        self.compile_graph = compile
        self._mapped: MappedPolicies | None = None
        self._is_mapped = not is_copied

    def forward(self, root: TensorDictBase) -> TensorDictBase:
        """Let every member act on its rows, and write what all of them wrote into the root."""
        if self._is_mapped:
            try:
                if self._mapped is None:
                    self._mapped = MappedPolicies(self.members, compile=self.compile_graph)
                return self._mapped(root)
            except ConfigError:  # no single graph of tensors
                if self.compile_graph:
                    raise
                self._is_mapped = False
        return self._in_turn(root)

    def refresh(self) -> None:
        """Let the next call act with the members' present weights."""
        if self._mapped is not None:
            self._mapped.refresh()

    @property
    def require_fit(self) -> Callable[..., None]:
        """The members' method that refuses an action spec that their policy does not fit."""
        return self.members[0].require_fit

    def _in_turn(self, root: TensorDictBase) -> TensorDictBase:
        seen = dict(root.items(include_nested=True, leaves_only=True))
        size = root.batch_size[0] // len(self.members)
        acted = [policy(rows) for policy, rows in zip(self.members, root.split(size), strict=True)]
        for key in acted[0].keys(include_nested=True, leaves_only=True):
            if key not in seen:
                write(root, key, torch.cat([part.get(key) for part in acted]))
        return root


class MappedPolicies:
    """Act for all members by the graph of one member's policy, mapped over their stacked weights.

    Args:
        policies: of the members.
        compile: compile the mapped graph.

    Raises:
        ConfigError: a policy has no ``in_keys``; or, from a call, it is no single graph of tensors, or another one than
            the first member's.
    """

    def __init__(self, policies: Sequence[nn.Module], *, compile: bool) -> None:
        self.policies = [GraphPolicy(policy) for policy in policies]
        self.compile = compile
        self._warm_ups = [policy for policy in policies if isinstance(policy, WarmUp)]
        self._weights: list[Tensor] = []
        self._graphs: dict[tuple, tuple[MappedGraph, Written]] = {}

    def refresh(self) -> None:
        """Stack the members' present weights anew."""
        self._weights = []

    def __call__(self, root: TensorDictBase) -> TensorDictBase:
        """Act on a root, ``[S * B]``, and write into it what the policies write."""
        num, rows = len(self.policies), root.batch_size[0] // len(self.policies)
        first = self.policies[0]
        entries = [x.unflatten(0, (num, rows)) for x in first.entries(root)]
        form = (rows, *[(x.dtype, x.shape) for x in entries], *first.facts())
        if form not in self._graphs:
            self._graphs[form] = self._traced(root, rows)
        graph, written = self._graphs[form]
        if not self._weights:
            self._weights = [torch.stack(same) for same in zip(*[one.weights() for one in self.policies], strict=True)]
        for key, value in zip(written.keys, graph([*self._weights, *entries]), strict=True):
            write(root, key, value.flatten(0, 1))
        for index, warm_up in enumerate(self._warm_ups):
            if warm_up.progress.frames < warm_up.frames:
                self._act_at_random(warm_up, root, slice(index * rows, (index + 1) * rows))
        return root

    def _traced(self, root: TensorDictBase, rows: int) -> tuple[MappedGraph, Written]:
        notes = [Written() for _ in self.policies]
        size = torch.Size([rows])
        functions = [partial(one.compute, note, size) for one, note in zip(self.policies, notes, strict=True)]
        inputs = [one.inputs(own) for one, own in zip(self.policies, root.split(rows), strict=True)]
        graph = MappedGraph("compile, policies", functions, inputs, compile=self.compile)
        if notes[0].changed:
            expected = "policies that change none of their buffers as they act"
            raise ConfigError(explain("compile, policies", expected=expected, got="others"))
        return graph, notes[0]

    def _act_at_random(self, warm_up: WarmUp, root: TensorDictBase, rows: slice) -> None:
        """Overwrite the actions of one member's rows by random ones, as its warm-up draws them."""
        own = warm_up.act_at_random_(root[rows])
        for key in ("action", "action_log_prob"):
            if own.get(key, None) is not None:
                root.get(key)[rows] = own.get(key)
