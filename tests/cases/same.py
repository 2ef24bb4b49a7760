"""Whether two batches are the same: batch size, keys, dtypes and values."""

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
