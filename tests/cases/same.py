"""Whether two batches, or two nested states, are the same: batch size, keys, dtypes and values."""

import torch


def leaves(tensordict):
    return dict(tensordict.items(include_nested=True, leaves_only=True))


def assert_same(one, other, without=()):
    assert one.batch_size == other.batch_size
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        if key not in without:
            assert value.dtype is other[key].dtype and torch.equal(value, other[key]), key


def tensors_of(state):
    """Flatten a nested state into (place, leaf) pairs, times left out."""
    if isinstance(state, dict):
        return [pair for key, value in state.items() if key != "seconds" for pair in _under(key, value)]
    if isinstance(state, list | tuple):
        return [pair for index, value in enumerate(state) for pair in _under(index, value)]
    return [("", state)]


def _under(key, value):
    return [(f"{key}/{place}", leaf) for place, leaf in tensors_of(value)]


def assert_same_state(one, other):
    ours, theirs = tensors_of(one), tensors_of(other)
    assert [place for place, _ in ours] == [place for place, _ in theirs]
    for (place, a), (_, b) in zip(ours, theirs, strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), place
        elif hasattr(a, "tobytes"):
            assert a.tobytes() == b.tobytes(), place
        else:
            assert a == b, place
