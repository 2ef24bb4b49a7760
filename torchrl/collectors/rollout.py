"""Collect in training loops of plain PyTorch: an endless stream of fragments, from this process or from workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Integral

import torch
from tensordict import TensorDict

from torchrl.collectors.fragments import Fragment, FragmentSource, batch_of
from torchrl.collectors.jobs import Worker
from torchrl.collectors.multi import MultiAsyncCollector
from torchrl.collectors.weights import require_module
from torchrl.envs.base import Env
from torchrl.envs.vector.building import shares_of
from torchrl.errors import ConfigError, explain


def rollout(
    envs: Env | Callable | Sequence,
    policy: Callable | None = None,
    *,
    n_steps: int,
    sticky: bool = False,
    seed: int | None = None,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    fragments_per_batch: int = 1,
    on_worker_failure: str = "raise",
) -> Iterator[Fragment]:
    """Step environments with a policy, without end, and yield a fragment after every ``n_steps`` steps.

    >>> fragments = rollout(env, actor, n_steps=20)
    >>> batch, last = next(fragments)  # train on them; the next fragment acts with what was learned
    >>> batch.shape, last.shape
    (torch.Size([2, 20]), torch.Size([2]))

    With workers, ``envs`` are callables that build the environments, and each worker steps a share of them with a copy
    of the policy, which gets the present weights and buffers before each fragment. While the learner trains on one
    fragment the worker collects the next: with one worker (double buffering) a fragment's weights are one fragment old,
    with more of them several. ``("collector", "policy_version")`` counts the fragments that had been trained on when
    the weights were taken. Closing the generator closes the environments that were built here or in workers. No
    fragment shares memory with a later one.

    Args:
        envs: see :class:`FragmentSource`; with workers a list of callables.
        policy: see :class:`FragmentSource`; with workers a module, whose weights can be sent, or None.
        n_steps: steps per fragment, T.
        sticky: see :class:`FragmentSource`.
        seed: seeds the environments, and in workers the copies' random streams; None leaves them as they are. In this
            process see :class:`FragmentSource`.
        device: where a copy of the policy acts, and, in this process, the device of the fragments.
        num_workers: number of worker processes; 0 steps in this process.
        fragments_per_batch: how many fragments of different workers are joined, along ``B``, in the order in which they
            finish. Needs at least as many workers, all with equally many environments.
        on_worker_failure: ``"raise"`` or ``"restart"``, see :class:`MultiAsyncCollector`.

    Raises:
        ConfigError: arguments that contradict each other. Otherwise what :class:`FragmentSource` and
            :class:`MultiAsyncCollector` raise.
    """
    if num_workers == 0:
        if fragments_per_batch != 1:
            expected = "fragments_per_batch=1 in this process"
            raise ConfigError(explain("rollout", expected=expected, got=fragments_per_batch))
        return fragments(FragmentSource(envs, policy, n_steps=n_steps, sticky=sticky, seed=seed, device=device))
    return fragments(
        FragmentPool(
            _share_out(envs, num_workers, fragments_per_batch),
            policy,
            n_steps=n_steps,
            sticky=sticky,
            seed=seed,
            device="cpu" if device is None else device,
            fragments_per_batch=fragments_per_batch,
            on_worker_failure=on_worker_failure,
        )
    )


def fragments(source: FragmentSource | FragmentPool) -> Iterator[Fragment]:
    """Yield fragments of a source without end, updating its weights after each; ``close()`` closes the source, too.

    >>> stream = fragments(FragmentSource(env, actor, n_steps=5))
    >>> [next(stream).batch["collector", "policy_version"][0, 0].item() for _ in range(3)]
    [0, 1, 2]
    >>> stream.close()
    """
    stream = _fragments(source)
    next(stream)  # a generator that was never begun would not close what it holds
    return stream


def _fragments(source: FragmentSource | FragmentPool) -> Iterator[Fragment | None]:
    try:
        yield None
        while True:
            both = source.collect()
            yield Fragment(both.get("batch"), both.get("last"))
            source.update_policy_weights_()
    finally:
        source.close()


class FragmentPool(MultiAsyncCollector):
    """Collect fragments in worker processes, and join ``fragments_per_batch`` of them, in the order of finishing.

    >>> from torchrl.envs import GymEnv
    >>> pool = FragmentPool([lambda: GymEnv("CartPole-v1", num_envs=2)], actor, n_steps=5, seed=0)
    >>> pool.collect()["batch"].shape
    torch.Size([2, 5])
    >>> pool.close()

    Args:
        make_envs: one callable per worker, which builds its environment ``[B]``.
        policy: see :class:`FragmentSource`; every worker acts with a copy.
        n_steps: steps per fragment, T.
        sticky: see :class:`FragmentSource`.
        seed: see :class:`MultiAsyncCollector`.
        device: where the copies act.
        fragments_per_batch: how many fragments are joined along ``B``.
        on_worker_failure: see :class:`MultiAsyncCollector`.

    Raises:
        ConfigError: ``n_steps`` is no positive number; or as :class:`MultiAsyncCollector`.
    """

    def __init__(
        self,
        make_envs: Sequence[Callable[[], Env]],
        policy: Callable | None = None,
        *,
        n_steps: int,
        sticky: bool = False,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        fragments_per_batch: int = 1,
        on_worker_failure: str = "raise",
    ) -> None:
        if not isinstance(n_steps, Integral) or n_steps < 1:
            raise ConfigError(explain("n_steps", expected="a whole number of at least 1", got=n_steps))
        if callable(policy):
            require_module("rollout", policy)
        self._has_new_weights = False  # weights that no worker has yet
        self._n_steps = n_steps
        self._sticky = sticky
        self._num_joined = fragments_per_batch
        super().__init__(
            make_envs,
            policy,
            frames_per_batch=n_steps,
            devices=device,
            seed=seed,
            on_worker_failure=on_worker_failure,
        )

    def collect(self) -> TensorDict:
        """Return the next ``fragments_per_batch`` fragments joined, ``[B]`` with entries ``"batch"`` and ``"last"``."""
        joined = [super(FragmentPool, self).collect() for _ in range(self._num_joined)]
        return joined[0] if len(joined) == 1 else torch.cat(joined, 0)

    def state_dict(self) -> dict:
        """Raise: a source of fragments has no state to save; :class:`MultiAsyncCollector` has.

        Raises:
            ConfigError: always.
        """
        hint = "Use MultiAsyncCollector."
        raise ConfigError(explain("FragmentPool", expected="a source with a state", got="fragments", hint=hint))

    def update_policy_weights_(self) -> None:
        """Let every fragment that begins from now on act with the weights of its beginning; add 1 to the version.

        The weights are published when the next fragment begins, not now: a worker that was asked for a fragment before,
        and has not read its weights yet, would read the newer ones.
        """
        self._has_new_weights = True

    def close(self) -> None:
        """End the workers; may be called twice."""
        self.shutdown()

    def _launch(self, worker: Worker) -> None:
        if self._has_new_weights:
            self._has_new_weights = False
            super().update_policy_weights_()
        super()._launch(worker)

    def _source_of(self, worker: Worker) -> Callable:
        return partial(FragmentSource, n_steps=self._n_steps, sticky=self._sticky)

    def _frames_of(self, worker: Worker) -> int:
        return self._n_steps * worker.num_rows

    def _require_frames(self) -> None:
        """Accept any number of environments, unlike the base class."""

    def _num_frames(self, batch: TensorDict) -> int:
        return batch.get("batch").numel()


def _share_out(envs: object, num_workers: int, fragments_per_batch: int) -> list[Callable[[], Env]]:
    """Return one callable per worker, which builds the batch ``[B]`` of that worker's share of the environments."""
    makers = [envs] if callable(envs) and not isinstance(envs, Env) else envs
    if isinstance(makers, (str, Env)) or not isinstance(makers, Sequence) or not all(map(callable, makers)):
        hint = 'An environment is built in its worker: [partial(gymnasium.make, "CartPole-v1")] * 8.'
        raise ConfigError(explain("rollout, with workers", expected="a list of callables", got=repr(envs), hint=hint))
    if not isinstance(num_workers, Integral) or not 1 <= num_workers <= len(makers):
        expected = f"num_workers from 0 to the {len(makers)} environments"
        raise ConfigError(explain("rollout", expected=expected, got=num_workers))
    sizes = {len(share) for share in shares_of(len(makers), num_workers)}
    if not 1 <= fragments_per_batch <= num_workers or (fragments_per_batch > 1 and len(sizes) > 1):
        expected = f"fragments_per_batch from 1 to the {num_workers} workers, of equally many environments each"
        raise ConfigError(explain("rollout", expected=expected, got=fragments_per_batch))
    return [partial(_batch, [makers[row] for row in share]) for share in shares_of(len(makers), num_workers)]


def _batch(makers: Sequence[Callable]) -> Env:
    return batch_of(makers, [])
