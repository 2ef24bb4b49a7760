"""Transforms that replace an observation by a function of its last few values: their concatenation or maximum.

For stacks of pictures a replay buffer can store each frame once: :class:`torchrl.data.replay.StackedFrames`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import TensorDict

from torchrl.counts import is_count
from torchrl.data.specs import Bounded, Categorical, TensorSpec, Unbounded
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.envs.transforms.leaves import set_leaf
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.shapes import expand_right


class _FrameMemory(ObservationTransform):
    """Base of transforms that keep the last ``num_frames`` values of each observation of a row's episode.

    The first value of an episode fills the whole memory, if a subclass says nothing else. It is a buffer
    ``[num_frames, *B, ...]`` per observation, oldest first, and part of the state dict, so that a run can be continued
    bit for bit.

    A subclass writes :meth:`combine` and :meth:`transform_spec`, and :meth:`begin` where episodes begin otherwise.
    """

    expected = "numbers or indices"

    def __init__(self, num_frames: int, in_keys: Sequence[Key] = ("observation",)) -> None:
        super().__init__(in_keys)
        if not is_count(num_frames):
            raise ConfigError(explain(type(self).__name__, expected="num_frames of at least 1", got=num_frames))
        self.num_frames = num_frames

    def takes(self, leaf: TensorSpec) -> bool:
        return isinstance(leaf, (Bounded, Unbounded, Categorical))

    def combine(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the new observation, ``[*B, ...]``, from the last values ``[num_frames, *B, ...]``, oldest first."""
        raise NotImplementedError

    def begin(self, value: torch.Tensor) -> torch.Tensor:
        """Return the memory ``[num_frames, *B, ...]`` of episodes that begin with a value ``[*B, ...]``, or a view."""
        return value.expand(self.num_frames, *value.shape)

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations and allocate their memory."""
        super().read_specs(env)
        self._names = [f"frames_{index}" for index in range(len(self.in_keys))]
        for name, key in zip(self._names, self.in_keys, strict=True):
            leaf = env.observation_spec[key]
            zeros = torch.zeros((self.num_frames, *leaf.shape), dtype=leaf.dtype, device=leaf.device)
            self.register_memory(name, zeros, batch_dim=1)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Add the new values to the memory, and replace the observations in the outcome and the next root."""
        buffers = self._buffers
        for name, key in zip(self._names, self.in_keys, strict=True):
            frames = torch.cat([buffers[name][1:], next_.get(key).unsqueeze(0)])
            buffers[name] = frames
            value = self.combine(frames)
            set_leaf(next_, key, value)
            set_leaf(root, key, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Fill the memory of restarted rows with their first value, and replace the observations of every row."""
        buffers = self._buffers
        for name, key in zip(self._names, self.in_keys, strict=True):
            first = self.begin(root.get(key))
            if mask is not None:
                first = torch.where(expand_right(mask, first[0]), first, buffers[name])
            buffers[name] = first.clone()
            set_leaf(root, key, self.combine(buffers[name]))


class FrameStack(_FrameMemory):
    """Concatenate the last values of an observation, oldest first: ``[*B, F]`` becomes ``[*B, num_frames · F]``.

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), methods: several frames show motion.
    At the start of an episode its first value is repeated, or zeros stand before it; a stack never mixes values of two
    episodes, also not under ``next`` at an ending.

    >>> TransformedEnv(env, FrameStack(4)).observation_spec["observation"].shape  # of [2, 4]
    torch.Size([2, 16])

    Args:
        num_frames: how many values, the present one included.
        in_keys: which observations, each with a memory of its own.
        dim: the dimension of one observation along which they are joined, negative.
        start: what stands before an episode's first value: the same value (``"repeat"``), or ``"zeros"``.

    Raises:
        ConfigError: ``num_frames`` is not positive, ``dim`` not negative, or ``start`` another word.
        SpecError: when wrapping: an observation has no such dimension, or is the mask of legal actions, or is one-hot,
            since joined vectors are not one-hot; with ``start="zeros"``, its bounds do not hold 0.
    """

    def __init__(
        self,
        num_frames: int,
        in_keys: Sequence[Key] = ("observation",),
        dim: int = -1,
        *,
        start: Literal["repeat", "zeros"] = "repeat",
    ) -> None:
        super().__init__(num_frames, in_keys)
        if start not in ("repeat", "zeros"):
            raise ConfigError(explain("FrameStack", expected="start of ('repeat', 'zeros')", got=repr(start)))
        if dim >= 0:
            hint = "Dimensions are counted from the last one; the first are those of the batch."
            raise ConfigError(explain("FrameStack", expected="a negative dim", got=dim, hint=hint))
        self.dim = dim
        self.start = start
        self.expected = f"numbers or indices with a dimension {dim}"
        self.expected += " and bounds that hold 0" if start == "zeros" else ""

    def takes(self, leaf: TensorSpec) -> bool:
        holds_zero = self.start == "repeat" or not isinstance(leaf, Bounded) or _holds_zero(leaf)
        return super().takes(leaf) and holds_zero and len(self.features(leaf)) >= -self.dim

    def begin(self, value: torch.Tensor) -> torch.Tensor:
        """Return the memory of episodes that begin with this value, by ``start``."""
        if self.start == "repeat":
            return super().begin(value)
        return torch.cat([value.new_zeros(self.num_frames - 1, *value.shape), value.unsqueeze(0)])

    def hint(self, leaf: TensorSpec) -> str:
        return "" if self.features(leaf) else "A scalar becomes a vector of one by Unsqueeze(-1)."

    def combine(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the frames joined along ``dim``."""
        return torch.cat(frames.unbind(), self.dim)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        at = leaf.ndim + self.dim
        before, size, after = leaf.shape[:at], leaf.shape[at], leaf.shape[at + 1 :]
        copies = leaf.unsqueeze(at).expand(*before, self.num_frames, size, *after)
        return copies.reshape(*before, self.num_frames * size, *after)


def _holds_zero(leaf: Bounded) -> bool:
    return bool(((leaf.low <= 0) & (leaf.high >= 0)).all())


class TimeMax(_FrameMemory):
    """Replace an observation by the largest of its last values, element by element: ``[*B, F]`` stays ``[*B, F]``.

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), methods, take the maximum over two
    frames against flicker. This transform takes it over agent steps; the maximum over the simulator's frames inside a
    repeated action needs a wrapper of the simulator.

    >>> TimeMax(2).combine(torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    tensor([3., 5.])

    Args:
        num_frames: how many values, the present one included; fewer at the start of an episode.
        in_keys: which observations, each with a memory of its own.

    Raises:
        ConfigError: ``num_frames`` is not positive.
        SpecError: when wrapping: an observation is one-hot, since maxima of such vectors are not, or is the mask of
            legal actions.
    """

    def combine(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the maximum over the frames."""
        return frames.amax(0)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return leaf
