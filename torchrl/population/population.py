"""Train several agents of one recipe in one process, batch by batch, each as it would be trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tensordict import TensorDictBase

from torchrl.agents import Agent, Figures, InterruptGuard, MinibatchEpochs, ReplayUpdates
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.population.collecting import JointCollector
from torchrl.population.updates import join_updates


class Population:
    """Train S agents together: collect → store → optimise → hooks, all of them batch by batch.

    Each member stays an agent of its own, with its own networks, random streams, buffer, hooks, log and checkpoints,
    and learns what it would learn alone, up to rounding. A member that ends early (by ``agent.stop()``, as at a target
    return) is left alone from then on. Ctrl-C ends all after the present batch; an error in one ends all, and each
    writes its ``last.pt``.

    Members that are built with ``compile=True`` act by one program and step by one, see :func:`join_updates`. Others
    step one after another, and a population of them takes as long as their single runs together.

    The seconds of what members do together count for each in equal shares.

    >>> population = Population([agent])
    >>> population.train()
    >>> agent.frames
    32

    Args:
        agents: built alike, each from its own seed.
        env: one env of all members' rows, ``[S * B]``, built as the members' own are; their collectors are closed, and
            one steps for all. None lets each member collect by its own collector.
        names: of the members, for errors; None numbers them.

    Raises:
        ConfigError: no agent, one agent twice, ``keep_learning``, or an env that does not fit the members.

    Attributes:
        agents: the members.
        names: of the members.
    """

    def __init__(self, agents: Sequence[Agent], *, env: Env | None = None, names: Sequence[str] | None = None) -> None:
        self.agents = list(agents)
        if not self.agents or len({id(agent) for agent in self.agents}) != len(self.agents):
            got = f"{len(self.agents)} agents" if not self.agents else "one of them twice"
            raise ConfigError(explain("Population", expected="agents, each once", got=got))
        if any(agent.keep_learning for agent in self.agents):
            hint = "Members learn in step with each other."
            raise ConfigError(explain("Population", expected="agents without keep_learning", got="it", hint=hint))
        self.names = [f"member {index}" for index in range(len(self.agents))] if names is None else list(names)
        optimises = [agent.optimise for agent in self.agents]
        is_known = all(isinstance(optimise, (MinibatchEpochs, ReplayUpdates)) for optimise in optimises)
        self._update = join_updates(optimises, self.names) if is_known else None
        self._joint = None
        if env is not None:
            self._joint = JointCollector(env, [agent.collector for agent in self.agents])
            for agent, collector in zip(self.agents, self._joint.members, strict=True):
                agent.collector = collector

    def train(self) -> None:
        """Train all members until each has collected its ``total_frames`` or was stopped, or until Ctrl-C.

        Raises:
            ConfigError: before any frame, as :meth:`Agent.train`.
        """
        with InterruptGuard() as interrupt, ExitStack() as all_members:
            running: dict[int, ExitStack] = {}
            for index, agent in enumerate(self.agents):
                running[index] = all_members.enter_context(ExitStack())
                running[index].enter_context(agent.training(interrupt))
            collect = self._batches()
            while running and not interrupt.is_requested:
                self._train_on(collect(list(running)))
                for index in [index for index in running if self.agents[index].is_last_batch]:
                    running.pop(index).close()

    def close(self) -> None:
        """Close the envs of all members, and end their processes; may be called twice."""
        for agent in self.agents:
            agent.close()
        if self._joint is not None:
            self._joint.shutdown()

    def _batches(self) -> Callable[[list[int]], dict[int, TensorDictBase]]:
        """Return a function that collects the next batch of the members of the given numbers."""
        sources = [] if self._joint is not None else [iter(agent.collector) for agent in self.agents]

        def collect(members: list[int]) -> dict[int, TensorDictBase]:
            with self._shared("collect", members):
                if self._joint is not None:
                    batches = self._joint.collect()
                    return {index: batches[index] for index in members}
                return {index: next(sources[index]) for index in members}

        return collect

    def _train_on(self, batches: dict[int, TensorDictBase]) -> None:
        """Let each member store its batch, all take their gradient steps, and each tell its hooks."""
        members = list(batches)
        reports = {index: self.agents[index].receive(batches[index]) for index in members}
        with self._shared("optimise", members):
            prepared = {index: self.agents[index].prepare(batches[index]) for index in members}
            figures = self._optimise(prepared)
        for index in members:
            self.agents[index].conclude(reports[index], prepared[index], figures[index])
        if self._joint is not None:
            self._joint.update_policy_weights_()

    def _optimise(self, batches: dict[int, TensorDictBase]) -> dict[int, Figures]:
        if self._update is None:
            return {index: self.agents[index].optimise(batch) for index, batch in batches.items()}
        return dict(enumerate(self._update([batches.get(index) for index in range(len(self.agents))])))

    @contextmanager
    def _shared(self, phase: str, members: list[int]) -> Iterator[None]:
        """Add the seconds of a ``with`` block to a phase of the given members, in equal shares."""
        start = time.perf_counter()
        try:
            yield
        finally:
            share = (time.perf_counter() - start) / len(members)
            for index in members:
                self.agents[index].seconds[phase] += share
