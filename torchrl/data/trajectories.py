"""Batches of trajectories of different lengths: split, pad, pack, cut, join. Nothing here collects or trains.

A *padded* batch of N trajectories is ``[N, T]`` with ``("collector", "mask")``, bool ``[N, T]``: row n is one
trajectory, whose *length* is the number of leading true entries; without a mask every step is valid. A *packed* batch
is flat, ``[sum of lengths]``, one trajectory behind the other. These functions pad with zeros and ignore values in
padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.devices import device_of
from torchrl.errors import KeyMissing, SpecError, explain
from torchrl.layouts import describe_differences, layout_of

MASK = ("collector", "mask")
TRAJ_IDS = ("collector", "traj_ids")
STARTS, ENDS = "is_init", ("next", "done")


def lengths_of(batch: TensorDictBase) -> Tensor:
    """Count the valid steps of each row of a padded batch.

    >>> lengths_of(batch.set(("collector", "mask"), length_mask(torch.tensor([8, 3]), 8)))
    tensor([8, 3])

    Args:
        batch: ``[N, T]``.

    Returns:
        int64 ``[N]``.

    Raises:
        SpecError: the batch is not ``[N, T]``, or a mask is true again after it was false.
    """
    return _mask_of("lengths_of", batch).sum(-1)


def length_mask(lengths: Tensor, num_steps: int) -> Tensor:
    """Make the mask of a padded batch: true on the first ``lengths[n]`` of the ``num_steps`` steps of row n.

    >>> length_mask(torch.tensor([2, 0]), 3)
    tensor([[ True,  True, False],
            [False, False, False]])

    Args:
        lengths: int64 ``[N]``.
        num_steps: T.

    Returns:
        bool ``[N, T]``.
    """
    _require_lengths("length_mask", lengths, at_most=num_steps)
    return torch.arange(num_steps, device=lengths.device) < lengths.unsqueeze(-1)


def shorten(batch: TensorDictBase) -> TensorDictBase:
    """Cut a padded batch ``[N, T]`` to the length of its longest row, ``[N, longest]``; a view.

    >>> episodes = batch.set(("collector", "mask"), length_mask(torch.tensor([5, 3]), 8))
    >>> shorten(episodes).batch_size
    torch.Size([2, 5])
    """
    lengths = lengths_of(batch)
    return batch[:, : _longest(lengths)]


def at_step(batch: TensorDictBase, index: Tensor) -> TensorDictBase:
    """Return one step of each row of a batch; ``("collector", "mask")`` tells which of the steps are valid.

    >>> at_step(batch, torch.tensor([0, 7]))["observation"].shape
    torch.Size([2, 4])

    Args:
        batch: ``[N, T]``.
        index: which step of each row, int64 ``[N]``.

    Returns:
        ``[N]``, a copy.

    Raises:
        SpecError: not one index per row, or one that is not from 0 to T - 1.
    """
    _require_two_dims("at_step", batch)
    num_rows, num_steps = batch.batch_size
    if index.shape != (num_rows,) or index.dtype is not torch.int64:
        got = f"{index.dtype} {list(index.shape)}"
        raise SpecError(explain("at_step", expected=f"an int64 index of shape [{num_rows}]", got=got))
    if num_rows and bool(((index < 0) | (index >= num_steps)).any()):
        expected = f"steps from 0 to {num_steps - 1}"
        raise SpecError(explain("at_step", expected=expected, got=f"{int(index.min())} to {int(index.max())}"))
    return batch[torch.arange(num_rows, device=index.device), index]


def last_step(batch: TensorDictBase) -> TensorDictBase:
    """Return the last valid step of each row of a padded batch ``[N, T]``.

    >>> bool((last_step(batch)["observation"] == batch["observation"][:, 7]).all())
    True

    Returns:
        ``[N]``, a copy.

    Raises:
        SpecError: a row has no valid step.
    """
    lengths = lengths_of(batch)
    empty = (lengths == 0).nonzero().flatten().tolist()
    if empty:
        expected = "rows with at least one valid step"
        raise SpecError(explain("last_step", expected=expected, got=f"none in the rows {empty}"))
    return at_step(batch, lengths - 1)


def alive_at(batch: TensorDictBase, step: int) -> tuple[TensorDictBase, Tensor]:
    """Return step number ``step`` of those rows of a padded batch that are long enough, and these rows' indices.

    >>> episodes = batch.set(("collector", "mask"), length_mask(torch.tensor([5, 3]), 8))
    >>> alive_at(episodes, 4)[1]  # the second row has ended
    tensor([0])

    Args:
        batch: ``[N, T]``.
        step: from 0 to T - 1.

    Returns:
        The step of the K rows that have it, ``[K]``, and the indices of these rows, int64 ``[K]``.

    Raises:
        SpecError: no batch ``[N, T]``, or a step outside of it.
    """
    lengths = lengths_of(batch)
    if not 0 <= step < batch.batch_size[1]:
        raise SpecError(explain("alive_at", expected=f"a step from 0 to {batch.batch_size[1] - 1}", got=step))
    rows = (lengths > step).nonzero().flatten()
    return batch[rows, step], rows


def time_slice(batch: TensorDictBase, start: int, stop: int) -> TensorDictBase:
    """Return the steps ``start`` to ``stop - 1`` of a padded batch ``[N, T]``; a view.

    >>> time_slice(batch, 2, 5).batch_size
    torch.Size([2, 3])

    A row of length L has ``clamp(L - start, 0, stop - start)`` steps left, so it may have none.

    Raises:
        SpecError: not ``0 <= start <= stop``.
    """
    _mask_of("time_slice", batch)
    if not 0 <= start <= stop:
        raise SpecError(explain("time_slice", expected="0 <= start <= stop", got=f"start {start} and stop {stop}"))
    return batch[:, start:stop]


def pack(batch: TensorDictBase) -> tuple[TensorDict, Tensor]:
    """Turn a padded batch into a packed one: the valid steps one behind the other, row by row.

    >>> steps, lengths = pack(batch.set(("collector", "mask"), length_mask(torch.tensor([5, 3]), 8)))
    >>> steps.batch_size, lengths
    (torch.Size([8]), tensor([5, 3]))

    Args:
        batch: ``[N, T]``.

    Returns:
        The steps without a mask, ``[sum of lengths]``, and the lengths, int64 ``[N]``.
    """
    mask = _mask_of("pack", batch)
    return _without_mask(batch)[mask], mask.sum(-1)


def unpack(flat: TensorDictBase, lengths: Tensor) -> TensorDict:
    """Turn a packed batch into a padded one, with a row for each of ``lengths``; the inverse of :func:`pack`.

    >>> unpack(batch[0], torch.tensor([5, 3]))["collector", "mask"].sum(-1)
    tensor([5, 3])

    Args:
        flat: ``[sum of lengths]``.
        lengths: int64 ``[N]``, on the same device.

    Returns:
        ``[N, longest]`` with ``("collector", "mask")``.

    Raises:
        SpecError: the lengths do not sum up to the number of steps.
    """
    _require_lengths("unpack", lengths)
    if flat.batch_dims != 1 or int(lengths.sum()) != flat.batch_size[0]:
        expected = f"{int(lengths.sum())} steps, [sum of lengths]"
        raise SpecError(explain("unpack", expected=expected, got=list(flat.batch_size)))
    mask = length_mask(lengths, _longest(lengths))

    def pad_leaf(leaf: Tensor) -> Tensor:
        rows = leaf.new_zeros((*mask.shape, *leaf.shape[1:]))
        rows[mask] = leaf
        return rows

    batch = flat.apply(pad_leaf, batch_size=mask.shape)
    return batch.set(MASK, mask)


def pad(trajectories: Sequence[TensorDictBase]) -> TensorDict:
    """Put trajectories of different lengths into one padded batch.

    >>> pad([batch[0, :5], batch[1, :3]]).batch_size
    torch.Size([2, 5])

    Args:
        trajectories: N of them, ``[T_n]`` each, with the same keys.

    Returns:
        ``[N, longest]`` with ``("collector", "mask")``.

    Raises:
        SpecError: the list is empty; or one trajectory has other keys, dtypes, shapes or another device than the first,
            more than a time dimension, or steps that are masked out.
    """
    for trajectory in trajectories:
        mask = trajectory.get(MASK, None)
        if trajectory.batch_dims != 1 or not (mask is None or bool(mask.all())):
            got = f"{list(trajectory.batch_size)}{'' if mask is None else ' with a mask'}"
            raise SpecError(explain("pad", expected="trajectories [T] of valid steps", got=got, hint="See unpad."))
    flat = _join("pad", [_without_mask(trajectory) for trajectory in trajectories])
    lengths = [len(trajectory) for trajectory in trajectories]
    return unpack(flat, torch.tensor(lengths, device=device_of(flat)))


def unpad(batch: TensorDictBase) -> list[TensorDict]:
    """Split a padded batch ``[N, T]`` into a list of its trajectories, ``[T_n]`` each, without mask and padding.

    >>> [len(trajectory) for trajectory in unpad(pad([batch[0, :5], batch[1, :3]]))]
    [5, 3]
    """
    flat, lengths = pack(batch)
    return list(flat.split(lengths.tolist()))


def concatenate(batches: Sequence[TensorDictBase]) -> TensorDict:
    """Concatenate the rows of several padded batches into one, padded to the longest.

    >>> concatenate([batch, batch[:1, :3]])["collector", "mask"].sum(-1)
    tensor([8, 8, 3])

    Args:
        batches: ``[N_i, T_i]`` each, with the same keys, apart from the mask.

    Returns:
        ``[sum of N_i, longest]`` with ``("collector", "mask")``.

    Raises:
        SpecError: the list is empty, or a batch has other keys, dtypes, shapes or another device than the first.
    """
    packed = [pack(batch) for batch in batches]
    flat = _join("concatenate", [steps for steps, _ in packed])
    return unpack(flat, torch.cat([lengths for _, lengths in packed]))


def split_trajectories(batch: TensorDictBase) -> TensorDict:
    """Cut a collected batch into its trajectories, one per row of the result.

    >>> batch["next", "done"][0, 4] = True  # the first row ends after five steps
    >>> split_trajectories(batch[:1])["collector", "mask"].sum(-1)
    tensor([5, 3])

    A trajectory ends where ``("collector", "traj_ids")`` change, behind an ending (``("next", "done")``), before a
    beginning (``is_init``) and at a masked step. Masked steps are left out.

    Args:
        batch: ``[*B, T]``, time last, or a packed batch ``[T]``; it needs at least one of the three keys.

    Returns:
        ``[N, longest]`` with ``("collector", "mask")``; trajectories are ordered by row, then by time.

    Raises:
        KeyMissing: none of the three keys is there.
    """
    series = batch.reshape(-1, batch.batch_size[-1])
    mask = _read_mask(series)
    begins = mask & ~_follows("split_trajectories", series, mask)
    number = begins.flatten().cumsum(0) - 1  # of the trajectory that each step belongs to
    lengths = number[mask.flatten()].bincount(minlength=int(begins.sum()))
    return unpack(_without_mask(series)[mask], lengths)


def stitch(fragments: Sequence[TensorDictBase]) -> tuple[TensorDict, Tensor]:
    """Join consecutive fragments of the same rows in time, and split them into trajectories, complete or not.

    >>> trajectories, is_complete = stitch([batch[:, :5], batch[:, 5:]])  # as if collected one after the other
    >>> trajectories["collector", "mask"].sum() == batch.numel()
    tensor(True)

    Args:
        fragments: ``[*B, T_i]`` each, in the order they were collected, with the keys of :func:`split_trajectories`,
            ``is_init`` and ``("next", "done")``.

    Returns:
        The trajectories as :func:`split_trajectories` gives them, ``[N, longest]``, and ``is_complete``, bool ``[N]``:
        true where both the beginning and the end are in the fragments.

    Raises:
        SpecError: the list is empty, or a fragment has other rows, keys, dtypes, shapes or another device.
    """
    if any(fragment.get(MASK, None) is not None for fragment in fragments):
        fragments = [fragment.copy().set(MASK, _read_mask(fragment)) for fragment in fragments]
    batch = split_trajectories(_join("stitch", fragments, dim=-1))
    begun = batch.get(STARTS)[:, :1].flatten()
    return batch, begun & last_step(batch).get(ENDS).flatten()


def _follows(who: str, series: TensorDictBase, mask: Tensor) -> Tensor:
    """Return a mask of the steps that continue the step before them, bool ``[M, T]``."""
    ids, starts, ends = series.get(TRAJ_IDS, None), series.get(STARTS, None), series.get(ENDS, None)
    if ids is None and starts is None and ends is None:
        expected = f"one of the keys {TRAJ_IDS}, {STARTS!r} and {ENDS}"
        raise KeyMissing(explain(who, expected=expected, got=sorted(map(str, series.keys(True, True)))))
    follows = mask.clone()
    follows[:, :1] = False
    follows[:, 1:] &= mask[:, :-1]
    if ids is not None:
        follows[:, 1:] &= ids[:, 1:] == ids[:, :-1]
    if starts is not None:
        follows &= ~starts.squeeze(-1)
    if ends is not None:
        follows[:, 1:] &= ~ends.squeeze(-1)[:, :-1]
    return follows


def _mask_of(who: str, batch: TensorDictBase) -> Tensor:
    """Return the mask of a padded batch, bool ``[N, T]``; all true if it has none."""
    _require_two_dims(who, batch)
    mask = _read_mask(batch)
    holes = (mask[:, 1:] & ~mask[:, :-1]).any(-1).nonzero().flatten().tolist()
    if holes:
        hint = "split_trajectories(batch) leaves such steps out."
        expected = "a mask that is true on the first steps of each row and nowhere else"
        got = f"valid steps behind others in the rows {holes}"
        raise SpecError(explain(who, expected=expected, got=got, hint=hint))
    return mask


def _require_two_dims(who: str, batch: TensorDictBase) -> None:
    if batch.batch_dims != 2:
        hint = "split_trajectories(batch) makes one of [*B, T]."
        raise SpecError(explain(who, expected="a batch [N, T]", got=list(batch.batch_size), hint=hint))


def _require_lengths(who: str, lengths: Tensor, *, at_most: int | None = None) -> None:
    if lengths.ndim != 1 or lengths.dtype is not torch.int64:
        got = f"{lengths.dtype} {list(lengths.shape)}"
        raise SpecError(explain(who, expected="int64 lengths of shape [N]", got=got))
    if len(lengths) and (int(lengths.min()) < 0 or (at_most is not None and int(lengths.max()) > at_most)):
        expected = "lengths of at least 0" if at_most is None else f"lengths from 0 to {at_most}"
        raise SpecError(explain(who, expected=expected, got=f"{int(lengths.min())} to {int(lengths.max())}"))


def _join(who: str, pieces: Sequence[TensorDictBase], dim: int = 0) -> TensorDict:
    """Concatenate batches along a batch dimension; refuse a batch with other keys, shapes or dtypes than the first."""
    if not pieces:
        raise SpecError(explain(who, expected="at least one piece", got="none"))
    first, *others = [layout_of(piece, batch_dims=piece.batch_dims) for piece in pieces]
    for index, other in enumerate(others, start=1):
        if pieces[index].batch_dims != pieces[0].batch_dims:
            expected = f"pieces of {pieces[0].batch_dims} batch dimensions, as the first"
            raise SpecError(explain(who, expected=expected, got=f"{pieces[index].batch_dims} in piece {index}"))
        if other != first:
            got = f"piece {index}: {describe_differences(other, first)}"
            raise SpecError(explain(who, expected="pieces of one layout", got=got))
    dim %= pieces[0].batch_dims
    sizes = {(*piece.batch_size[:dim], *piece.batch_size[dim + 1 :]) for piece in pieces}
    if len(sizes) > 1:
        got = ", ".join(str(list(piece.batch_size)) for piece in pieces)
        raise SpecError(explain(who, expected="pieces of the same rows", got=got))
    return torch.cat(list(pieces), dim)


def _read_mask(batch: TensorDictBase) -> Tensor:
    mask = batch.get(MASK, None)
    return torch.ones(batch.batch_size, dtype=torch.bool, device=device_of(batch)) if mask is None else mask


def _without_mask(batch: TensorDictBase) -> TensorDictBase:
    """Return the batch without its mask, and without the entry ``"collector"`` if that is empty then."""
    rest = batch.exclude(MASK)
    folder = rest.get(MASK[0], None)
    return rest.exclude(MASK[0]) if folder is not None and folder.is_empty() else rest


def _longest(lengths: Tensor) -> int:
    return int(lengths.max()) if len(lengths) else 0
