"""Every kind of spec, and every shape operation, to be held against the laws; drawn by hypothesis."""

import torch
from hypothesis import strategies as st
from tensordict import TensorDict

from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot, Unbounded

SIZES = st.lists(st.integers(1, 3), max_size=3)
FEW_SIZES = st.lists(st.integers(1, 3), max_size=2)
FLOATS = st.sampled_from([torch.float32, torch.float64, torch.float16])
INTEGERS = st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
FLAG = st.just(torch.bool)
CHOICES = st.lists(st.integers(1, 4), min_size=1, max_size=3)
KEYS = st.text("abc", min_size=1, max_size=2)


@st.composite
def broadcast(draw, shape, entries):
    """A tensor of drawn entries whose shape broadcasts to ``shape``."""
    own = [draw(st.sampled_from([1, size])) for size in shape][draw(st.integers(0, len(shape))) :]
    num = int(torch.Size(own).numel())
    values = draw(st.lists(entries, min_size=num, max_size=num))
    return torch.tensor(values).reshape([*own, *torch.tensor(values[0]).shape])


@st.composite
def unbounded(draw, batch):
    return Unbounded([*batch, *draw(FEW_SIZES)], draw(FLOATS | INTEGERS | FLAG))


@st.composite
def bounded(draw, batch):
    shape = [*batch, *draw(FEW_SIZES)]
    dtype = draw(FLOATS | INTEGERS)
    halves = st.integers(-8, 8).map(lambda n: n / 2)
    number = halves | st.sampled_from([float("inf"), float("-inf")]) if dtype.is_floating_point else st.integers(0, 120)
    low, high = draw(broadcast(shape, st.tuples(number, number).map(sorted))).unbind(-1)
    return Bounded(low, high, shape, dtype)


@st.composite
def categorical(draw, batch):
    n = draw(st.integers(1, 5))
    return Categorical(n, [*batch, *draw(FEW_SIZES)], draw(INTEGERS | FLAG if n <= 2 else INTEGERS))


@st.composite
def multi_categorical(draw, batch):
    shape = [*batch, *draw(FEW_SIZES)]
    nvec = draw(broadcast(shape, st.integers(1, 5)))
    return MultiCategorical(nvec, shape, draw(INTEGERS | FLAG if int(nvec.max()) <= 2 else INTEGERS))


@st.composite
def one_hot(draw, batch):
    n = draw(st.integers(1, 4))
    return OneHot(n, [*batch, *draw(FEW_SIZES), n], draw(FLOATS | INTEGERS | FLAG))


@st.composite
def multi_one_hot(draw, batch):
    nvec = draw(CHOICES)
    return MultiOneHot(nvec, [*batch, *draw(FEW_SIZES), sum(nvec)], draw(FLOATS | INTEGERS | FLAG))


@st.composite
def binary(draw, batch):
    return Binary([*batch, *draw(FEW_SIZES)], draw(FLOATS | INTEGERS | FLAG))


LEAVES = {
    Unbounded: unbounded,
    Bounded: bounded,
    Categorical: categorical,
    MultiCategorical: multi_categorical,
    OneHot: one_hot,
    MultiOneHot: multi_one_hot,
    Binary: binary,
}
MASKABLE = (Categorical, MultiCategorical, MultiOneHot)  # a OneHot is a MultiOneHot of one group


def leaves(batch):
    """Any leaf whose shape starts with ``batch``."""
    return st.one_of([make(batch) for make in LEAVES.values()])


@st.composite
def composites(draw, batch, depth=2):
    """A Composite of leaves and, down to ``depth``, of others."""
    spec = Composite(shape=batch)
    for key in draw(st.lists(KEYS, unique=True, min_size=1, max_size=3)):
        if depth and draw(st.booleans()):
            inner = [*batch, *draw(st.lists(st.integers(1, 2), max_size=1))]
            spec[key] = draw(composites(inner, depth - 1))
        else:
            spec[key] = draw(leaves(batch))
    return spec


SPECS = {**LEAVES, Composite: composites}


def squeezed(value):
    """Remove all dimensions of size 1; a TensorDict's own ``squeeze()`` stumbles over the last of its leaves'."""
    if isinstance(value, TensorDict):
        for at in reversed(range(value.ndim)):
            value = value.squeeze(at)
        return value
    return value.squeeze()


# By name, the method's first. Each takes a draw and a shape, and returns a function for specs and values alike.
SHAPE_OPS = {
    "expand": lambda draw, shape: lambda x: x.expand(2, *shape),
    "expand to a Size": lambda draw, shape: lambda x: x.expand(torch.Size([3, 1, *shape])),
    "reshape to one dimension": lambda draw, shape: lambda x: x.reshape(-1),
    "reshape with ones": lambda draw, shape: lambda x: x.reshape([1, *shape, 1]),
    "reshape backwards": lambda draw, shape: lambda x: x.reshape(list(reversed(shape))),
    "squeeze": lambda draw, shape: squeezed,
    "permute": lambda draw, shape: (lambda order: lambda x: x.permute(order))(draw(_order(len(shape)))),
    "unsqueeze": lambda draw, shape: (lambda at: lambda x: x.unsqueeze(at))(draw(_dims(len(shape) + 1))),
    "[None]": lambda draw, shape: lambda x: x[None],
    "[..., None]": lambda draw, shape: lambda x: x[..., None],
    "[...]": lambda draw, shape: lambda x: x[...],
    "clone": lambda draw, shape: lambda x: x.clone(),
}
# Those that need a dimension to work on.
DIMENSION_OPS = {
    "squeeze a dimension": lambda draw, shape: (lambda at: lambda x: x.squeeze(at))(draw(_dims(len(shape)))),
    "unbind": lambda draw, shape: _unbind(draw, shape),
    "[i]": lambda draw, shape: (lambda i: lambda x: x[i])(draw(_rows(shape))),
    "[i:]": lambda draw, shape: (lambda i: lambda x: x[i:])(draw(_rows(shape))),
    "[..., -1]": lambda draw, shape: lambda x: x[..., -1],
    "[..., ::2]": lambda draw, shape: lambda x: x[(*[None] * 2, ..., slice(None, None, 2))],
    "[indices]": lambda draw, shape: (lambda rows: lambda x: x[rows])(draw(_picked(shape))),
    "[list]": lambda draw, shape: (lambda rows: lambda x: x[rows.tolist()])(draw(_picked(shape))),
    "[indices, ..., None]": lambda draw, shape: (lambda rows: lambda x: x[rows, ..., None])(draw(_picked(shape))),
    "[mask]": lambda draw, shape: (lambda mask: lambda x: x[mask])(draw(_mask(shape[0]))),
}
OPS = SHAPE_OPS | DIMENSION_OPS


def _dims(num):
    return st.integers(-num, num - 1)


@st.composite
def _order(draw, num):
    """The dimensions in another order, some counted from the end."""
    return draw(st.permutations([at - num * draw(st.booleans()) for at in range(num)]))


def _rows(shape):
    return st.integers(0, shape[0] - 1)


def _picked(shape):
    return st.lists(_rows(shape), min_size=1, max_size=3).map(torch.tensor)


def _mask(num):
    return st.lists(st.booleans(), min_size=num, max_size=num).map(torch.tensor)


def _unbind(draw, shape):
    at = draw(_dims(len(shape)))
    place = draw(st.integers(0, shape[at] - 1))
    return lambda x: x.unbind(at)[place]


@st.composite
def masks(draw, spec, batch):
    """A mask that allows something in every row, for ``spec.rand(batch, mask=...)``; None where there is no choice."""
    if isinstance(spec, Composite):
        parts = {key: draw(masks(part, batch)) for key, part in spec.items()}
        given = {key: mask for key, mask in parts.items() if mask is not None and draw(st.booleans())}
        return TensorDict(given, [])
    groups = groups_of(spec) if isinstance(spec, MASKABLE) else None
    if groups is None:
        return None
    rows = [*batch, *(spec.shape if isinstance(spec, Categorical) else spec.shape[:-1])]
    scores = [torch.rand(*rows, n, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))) for n in groups]
    return torch.cat([part >= part.amax(-1, keepdim=True) * draw(st.sampled_from([0, 0.5, 1])) for part in scores], -1)


def groups_of(spec):
    """Numbers of choices that are side by side in a mask; None where they differ from row to row."""
    if isinstance(spec, Categorical):
        return [spec.n]
    if isinstance(spec, MultiOneHot):
        return list(spec.nvec)
    rows = spec.nvec.reshape(-1, spec.shape[-1]) if spec.ndim else None
    return rows[0].tolist() if rows is not None and bool((rows == rows[0]).all()) else None


def as_groups(spec, value):
    """Write a drawn value as one-hot groups, bool, to be compared with its mask."""
    if isinstance(spec, MultiOneHot):
        return value.bool()
    columns = value.long().unsqueeze(-1) if isinstance(spec, Categorical) else value.long()
    pairs = zip(columns.unbind(-1), groups_of(spec), strict=True)
    return torch.cat([torch.nn.functional.one_hot(column, n) for column, n in pairs], -1).bool()
