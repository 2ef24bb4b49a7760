"""The loop that steps an env with a policy and records every step, and the memory that it records into."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.envs.base import Env
from torchrl.envs.stepping import another_layout
from torchrl.unchecked import StepWriter, make_step_writers, new_tensordict

CONTIGUOUS = torch.contiguous_format
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}  # by bytes
LINE, CLOSE = 64, 512  # bytes: a line of the cache; blocks this far apart, or a multiple of it, share few of them


def collect(env: Env, policy: Callable, root: TensorDict, steps: Sequence[StepWriter]) -> TensorDict:
    """Step an env with a policy, record each step in a pre-allocated batch, and return the root after the last step.

    >>> transition, root = env.step_and_reset(actor(env.reset()))
    >>> batch, steps = allocate(transition, 5)
    >>> with torch.no_grad():
    ...     root = collect(env, actor, root, steps)
    >>> batch.shape, torch.equal(batch["next", "observation"][:, 0], batch["observation"][:, 1])
    (torch.Size([2, 5]), True)

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``.
        root: the root to start from, ``[*B]``.
        steps: writers of the steps of a ``[*B, T]`` TensorDict with the layout of a transition.

    Raises:
        SpecError: a transition does not have the layout of the batch.
    """
    for step in steps:
        transition, next_root = env.step_and_reset(policy(root))
        if not step.update_(transition):
            raise another_layout("Collector", transition, step.views)
        root = next_root
    if steps and not step.fits(transition):
        raise another_layout("Collector", transition, step.views)
    return root


def allocate(transition: TensorDictBase, num_steps: int) -> tuple[TensorDict, list[StepWriter]]:
    """Make a zeroed ``[*B, T]`` TensorDict with the layout of a ``[*B]`` transition, and writers of its steps.

    In memory time comes first, so that each step is one block and cheap to write; :func:`contiguous_copy` copies the
    batch into the usual order. Blocks are kept from lying a power of two apart: one entry of many steps, which the copy
    reads together, would then share a few lines of the cache.
    """
    dims = len(transition.batch_size)

    def make(leaf: torch.Tensor) -> torch.Tensor:
        size = leaf.numel()
        gap = LINE // leaf.element_size() if size * leaf.element_size() % CLOSE == 0 else 0
        memory = leaf.new_zeros(num_steps, size + gap)
        return memory[:, :size].view(num_steps, *leaf.shape).movedim(0, dims)

    batch = transition.apply(make, batch_size=(*transition.batch_size, num_steps))
    return batch, make_step_writers(batch.unbind(dims))


def contiguous_copy(batch: TensorDict, kept: Sequence[tuple[str, ...]] = ()) -> TensorDict:
    """Return a copy of a batch in contiguous memory, whatever strides the batch's own tensors have.

    Args:
        batch: ``[*B, T]``.
        kept: paths of entries that are taken over as they are.
    """
    entries = {}
    for key, value in batch.items():
        if isinstance(value, TensorDict):
            entries[key] = contiguous_copy(value, [path[1:] for path in kept if path[0] == key and len(path) > 1])
        else:
            entries[key] = value if (key,) in kept else _contiguous(value, batch.ndim)
    return new_tensordict(entries, batch.batch_size)


def _contiguous(value: torch.Tensor, num_dims: int) -> torch.Tensor:
    """Copy ``[*B, T, ...]`` into contiguous memory, a few numbers of a step as one: torch copies an inner loop each."""
    row = value.shape[num_dims:]
    word = WORDS.get(row[0] * value.element_size()) if len(row) == 1 and row[0] > 1 else None
    if word is None or value.stride(-1) != 1:
        return value.clone(memory_format=CONTIGUOUS)
    return value.view(word).clone(memory_format=CONTIGUOUS).view(value.dtype)
