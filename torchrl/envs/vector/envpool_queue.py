"""EnvPool's asynchronous mode: actions go to some simulators, and the first that are done answer. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import Space

from torchrl.envs.vector.buffers import Leaf, Tree, allocate_observations, observation_leaves
from torchrl.envs.vector.envpool_worker import Pool, seeds_of_pool, without_precision_warning
from torchrl.errors import EnvError, explain


class EnvPoolQueue:
    """Send actions to single simulators of an EnvPool, and receive the answers of those that are done first.

    A simulator answers to :meth:`begin`, to an action and to :meth:`begin_next_episodes`, once each; until then nothing
    more may be sent to it. At least ``batch_size`` of them must be at work when :meth:`receive` is called.

    >>> queue = EnvPoolEnv("CartPole-v1", 2).make_queue(8)  # doctest: +SKIP
    >>> queue.begin(seeds=range(8))  # doctest: +SKIP
    >>> queue.receive()  # which answer, and that they begin an episode  # doctest: +SKIP
    (array([0, 1]), array([ True,  True]))

    Args:
        make_pool: builds a pool for the gymnasium interface; takes ``seed``, one int32 per simulator.
        observation_space: of one simulator.
        read: converts the policy's actions for ``batch_size`` simulators to an array, and checks them.
        num_envs: number of simulators, N.
        batch_size: how many answer at a time, B.

    Attributes:
        answers: observations, ``reward``, ``terminated``, ``truncated`` and ``done`` of the last answers, arrays
            ``[B, ...]`` that the next ones overwrite.
    """

    def __init__(
        self, make_pool: Callable, observation_space: Space, read: Callable, num_envs: int, batch_size: int
    ) -> None:
        self.num_envs, self.batch_size = num_envs, batch_size
        self._make_pool, self._read = make_pool, read
        self._pool: Pool | None = None
        observations = allocate_observations(observation_space, batch_size)
        self._leaves = [Leaf(observations, leaf, str) for leaf in observation_leaves(observation_space)]
        flags = {name: np.zeros((batch_size, 1), bool) for name in ("terminated", "truncated", "done")}
        self.answers: Tree = {**observations, "reward": np.zeros((batch_size, 1), np.float32), **flags}
        self._begins = np.ones(num_envs, bool)  # whose next answer begins an episode
        self._idle_action: np.ndarray | None = None

    def begin(self, seeds: Sequence[int]) -> None:
        """Build the pool anew, with one seed for each simulator, and let all of them begin an episode."""
        self.close()
        with without_precision_warning():
            self._pool = Pool(self._make_pool(seed=seeds_of_pool(seeds)))
        self._begins.fill(True)
        self._pool.library.async_reset()

    def send(self, simulators: np.ndarray, action: Any) -> None:
        """Let B simulators, int64 ``[B]``, step with an action of the policy, ``[B, ...]``.

        Raises:
            SpecError: the action has another shape, dtype or device.
        """
        actions = self._read(action)
        self._idle_action = np.zeros_like(actions[:1])
        self._pool.send(simulators.astype(np.int32), actions)

    def begin_next_episodes(self, simulators: np.ndarray) -> None:
        """Let simulators whose episode has ended begin their next one, int64 ``[n]``; none is fine."""
        if not len(simulators):
            return
        self._begins[simulators] = True
        self._pool.send(simulators.astype(np.int32), self._idle_action.repeat(len(simulators), 0))  # it does not count

    def receive(self) -> tuple[np.ndarray, np.ndarray]:
        """Wait until B simulators have answered, and write what they say into :attr:`answers`.

        Returns:
            The simulators, int64 ``[B]``, and whether their answer begins an episode, bool ``[B]``.

        Raises:
            EnvError: a simulator answered twice in one batch.
        """
        came, outcome = self._pool.receive()
        simulators = came.astype(np.int64)
        if len(np.unique(simulators)) != self.batch_size:
            expected = f"{self.batch_size} different simulators"
            raise EnvError(explain("EnvPoolQueue", expected=expected, got=simulators.tolist()))
        for leaf in self._leaves:
            leaf.write_batch(outcome.observations)
        answers = self.answers
        answers["reward"][:, 0], answers["done"][:, 0] = outcome.rewards, outcome.done
        answers["truncated"][:, 0], answers["terminated"][:, 0] = outcome.truncated, outcome.done > outcome.truncated
        begins = self._begins[simulators]
        self._begins[simulators] = False
        return simulators, begins

    def close(self) -> None:
        """Drop the pool, which ends its threads; may be called twice."""
        self._pool = None
