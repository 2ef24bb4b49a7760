"""Collect with all members at once: one env of all rows, one policy over it, and each member's part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.collectors import Collector
from torchrl.collectors.checks import postprocess
from torchrl.envs import Env
from torchrl.envs.learned import Learned
from torchrl.errors import CheckpointError, ConfigError, explain
from torchrl.population.acting import JointPolicy
from torchrl.population.rows import APART, joined_seeds, reason_against, split_rows, split_state


class JointCollector:
    """Step one env of all members' rows, and hand each member the batch that its own collector would have made.

    It takes the places of the members' collectors, which are closed: of each it keeps the policy, the counts, the
    seeds of the rows and the numbers of trajectories.

    Args:
        env: of S · B rows, built as the members' are.
        collectors: of the members, which have collected nothing.

    Attributes:
        members: what stands in each member's ``agent.collector``.

    Raises:
        ConfigError: the collectors, or the env and those of the members, do not go together.
    """

    def __init__(self, env: Env, collectors: Sequence[Collector]) -> None:
        _require_alike(env, collectors)
        seeds = joined_seeds([collector.env for collector in collectors])
        self._generators = [collector.env.shared.generator.get_state() for collector in collectors]
        first, policies = collectors[0], [collector.policy for collector in collectors]
        tensors = [tensor for policy in policies for tensor in (*policy.parameters(), *policy.buffers())]
        is_copied = first.device is not None and any(tensor.device != env.device for tensor in tensors)
        self._policy = JointPolicy(policies, compile=first.compile, is_copied=is_copied)
        for collector in collectors:
            collector.shutdown()
        size = collectors[0].frames_per_batch * len(collectors)
        self._collector = Collector(env, self._policy, frames_per_batch=size, device=collectors[0].device)
        env.set_seed(seeds)
        self.members = [MemberCollector(self, index, collector) for index, collector in enumerate(collectors)]
        self._states: tuple[int, list[dict]] = (-1, [])  # of the members, and the frames at which they were taken

    def collect(self) -> list[TensorDictBase]:
        """Collect and return the next batch of every member, ``[B, T]`` each."""
        batch = self._collector.collect()
        size = batch.batch_size[0] // len(self.members)
        return [member.take(rows) for member, rows in zip(self.members, batch.split(size), strict=True)]

    def update_policy_weights_(self) -> None:
        """Let the next batch act with the policies' present weights."""
        self._policy.refresh()
        self._collector.update_policy_weights_()

    def learned_states(self) -> list[Learned]:
        """Copy what the transforms learned, which is nothing; see :meth:`Collector.learned_states`."""
        return self._collector.learned_states()

    def state_of(self, index: int) -> dict:
        """Return the state of a member's rows, as its own collector would save it."""
        if self._states[0] != self._collector.frames:
            self._states = self._collector.frames, self._split()
        return self._states[1][index]

    def shutdown(self) -> None:
        """Close the env; may be called twice."""
        self._collector.shutdown()

    def _split(self) -> list[dict]:
        num, whole = len(self.members), self._collector.state_dict()
        envs: list[dict | None] = [None] * num
        if whole["env"] is not None:
            envs = split_state(self._collector.env, whole["env"], self._generators)
        roots = split_rows(whole["root"], num)
        same = {name: whole[name] for name in ("learned", "env_error", "actions")}
        return [{"root": root, "env": env, **same} for root, env in zip(roots, envs, strict=True)]


class MemberCollector:
    """Stand in for a member's collector while its rows are those of one env of all members.

    It counts, numbers trajectories and saves its state as a :class:`~torchrl.collectors.Collector` does: a checkpoint
    goes on in a single run.

    Args:
        rows: what collects.
        index: the number of the member.
        collector: the member's own, whose place this takes.

    Attributes:
        policy: of the member.
        policy_version: how often its weights were updated.
        frames: of its batches so far.
        total_frames: where it ends.
        frames_per_batch: of each of its batches.
    """

    def __init__(self, rows: JointCollector, index: int, collector: Collector) -> None:
        self.policy: Callable = collector.policy
        self.policy_version, self.frames = collector.policy_version, collector.frames
        self.total_frames, self.frames_per_batch = collector.total_frames, collector.frames_per_batch
        self.storage_device, self.postproc = collector.storage_device, collector.postproc
        self.trajectories = collector.trajectories
        self._rows, self._index = rows, index

    def __iter__(self) -> Iterator[TensorDict]:
        """Refuse: a member collects with all others.

        Raises:
            ConfigError: always.
        """
        hint = "Write population.train()."
        raise ConfigError(explain("Agent.train", expected="a training alone", got="a population's member", hint=hint))

    def take(self, rows: TensorDict) -> TensorDictBase:
        """Return the member's part of a batch, ``[B, T]``, with the facts that its own collector would note."""
        ids = self.trajectories.of(rows.get("is_init").squeeze(-1))
        facts = {"traj_ids": ids, "policy_version": torch.full_like(ids, self.policy_version)}
        rows.set("collector", TensorDict(facts, batch_size=rows.batch_size))
        self.frames += self.frames_per_batch
        rows = rows if self.storage_device is None else rows.to(self.storage_device)
        return postprocess(self.postproc, rows)

    def update_policy_weights_(self) -> None:
        """Count one more version; the policy itself acts."""
        self.policy_version += 1

    def learned_states(self) -> list[Learned]:
        """Copy what the transforms learned; see :meth:`Collector.learned_states`."""
        return self._rows.learned_states()

    def state_dict(self) -> dict:
        """Return what a :class:`~torchrl.collectors.Collector` of the member's own would save after as many frames."""
        ids = {"traj_ids": self.trajectories.current.clone(), "num_trajectories": self.trajectories.num_begun}
        counts = {"frames": self.frames, "policy_version": self.policy_version}
        return self._rows.state_of(self._index) | counts | ids

    def load_state_dict(self, state: dict) -> None:
        """Refuse: the rows of all members go on together.

        Raises:
            CheckpointError: always.
        """
        hint = "Build the agent anew, load the checkpoint into it, and train it alone."
        raise CheckpointError(explain("Population", expected="members from the start", got="a checkpoint", hint=hint))

    def load_learned_states(self, states: Sequence[Learned], *, for_acting: bool = False) -> None:
        """Do nothing: no transform has learned anything."""

    def shutdown(self) -> None:
        """Do nothing: the population closes the env of all members."""


def _require_alike(env: Env, collectors: Sequence[Collector]) -> None:
    """Refuse collectors that are not alike and fresh, or an env that does not hold the rows of all of them.

    Raises:
        ConfigError: saying which, and what to write.
    """
    for collector in collectors:
        if not isinstance(collector, Collector) or not isinstance(collector.policy, nn.Module):
            got = f"{type(collector).__name__} with {type(collector.policy).__name__}"
            expected = "members with a Collector of one process and a policy that is a module"
            raise ConfigError(explain("Population, env", expected=expected, got=got, hint=APART))
        if collector.frames:
            got = f"one of {collector.frames:,} frames"
            raise ConfigError(explain("Population, env", expected="members at the start", got=got, hint=APART))
        for other in (env, collector.env):
            if (reason := reason_against(other)) is not None:
                expected = "an env in which each row is on its own"
                raise ConfigError(explain("Population, env", expected=expected, got=reason, hint=APART))
    first = collectors[0]
    forms = [(c.env.batch_size, c.frames_per_batch, c.device, repr(c.env.action_spec)) for c in collectors]
    if any(form != forms[0] for form in forms):
        expected = "members with as many rows, frames per batch, and the same actions"
        raise ConfigError(explain("Population, env", expected=expected, got=forms, hint=APART))
    size = len(collectors) * first.env.batch_size.numel()
    if first.env.batch_size.numel() * len(first.env.batch_size) == 0 or list(env.batch_size) != [size]:
        expected = f"an env of [{size}] rows, {len(collectors)} members of {list(first.env.batch_size)} each"
        raise ConfigError(explain("Population, env", expected=expected, got=list(env.batch_size)))
    expected, got = ([type(t).__name__ for t in e.transforms] for e in (first.env, env))
    if expected != got:
        raise ConfigError(explain("Population, env", expected=f"the transforms {expected}", got=f"{got}"))
