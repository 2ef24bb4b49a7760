"""Transforms that replace an observation by a function of its last few values: stacked, or their maximum.

For vectors and other small observations. Replay stores frames of pixels once and stacks them when sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Keep the last ``num_frames`` values of each observation, oldest first, from the row's own episode.

    An episode's first value fills the memory. The memory is a buffer ``[num_frames, *B, ...]`` per observation, for
    all rows, so that a run continues from a state dict bit for bit.

    A subclass writes :meth:`combine` and :meth:`transform_spec`.
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
        """Return the observation made of ``frames``, ``[num_frames, *B, ...]``, oldest first; a new tensor."""
        raise NotImplementedError

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations and make room for their values."""
        super().read_specs(env)
        self._names = [f"frames_{index}" for index in range(len(self.in_keys))]
        for name, key in zip(self._names, self.in_keys, strict=True):
            leaf = env.observation_spec[key]
            zeros = torch.zeros((self.num_frames, *leaf.shape), dtype=leaf.dtype, device=leaf.device)
            self.register_memory(name, zeros, batch_dim=1)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Take the new values in; replace the observations in both containers."""
        buffers = self._buffers
        for name, key in zip(self._names, self.in_keys, strict=True):
            frames = torch.cat([buffers[name][1:], next_.get(key).unsqueeze(0)])
            buffers[name] = frames
            value = self.combine(frames)
            set_leaf(next_, key, value)
            set_leaf(root, key, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Fill the memory of rows that restarted with their first value; replace the observations of every row."""
        buffers = self._buffers
        for name, key in zip(self._names, self.in_keys, strict=True):
            first = root.get(key).expand_as(buffers[name])
            if mask is not None:
                first = torch.where(expand_right(mask, first[0]), first, buffers[name])
            buffers[name] = first.clone()
            set_leaf(root, key, self.combine(buffers[name]))


class FrameStack(_FrameMemory):
    """Concatenate the last values of an observation, oldest first: ``[*B, F]`` becomes ``[*B, num_frames · F]``.

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), methods: what does not move in one
    frame does in four. An episode's first value stands for those before it, and the true last observation is stacked
    from its own episode, never from the one that follows.

    >>> TransformedEnv(env, FrameStack(4)).observation_spec["observation"].shape  # of [2, 4]
    torch.Size([2, 16])

    Args:
        num_frames: how many, this one included.
        in_keys: which observations, each with a memory of its own.
        dim: the dimension they are joined along, negative, of the observation without its batch.

    Raises:
        ConfigError: ``num_frames`` is not positive, or ``dim`` not negative.
        SpecError: when wrapping: an observation has no such dimension, or is the mask of legal actions, or its values
            do not stay themselves when they are joined, as one-hot ones.
    """

    def __init__(self, num_frames: int, in_keys: Sequence[Key] = ("observation",), dim: int = -1) -> None:
        super().__init__(num_frames, in_keys)
        if dim >= 0:
            hint = "Dimensions are counted from the last one; the first are those of the batch."
            raise ConfigError(explain("FrameStack", expected="a negative dim", got=dim, hint=hint))
        self.dim = dim
        self.expected = f"numbers or indices with a dimension {dim}"

    def takes(self, leaf: TensorSpec) -> bool:
        return super().takes(leaf) and len(self.features(leaf)) >= -self.dim

    def hint(self, leaf: TensorSpec) -> str:
        return "" if self.features(leaf) else "A scalar becomes a vector of one by Unsqueeze(-1)."

    def combine(self, frames: torch.Tensor) -> torch.Tensor:
        """Join the frames along ``dim``."""
        return torch.cat(frames.unbind(), self.dim)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        at = leaf.ndim + self.dim
        before, size, after = leaf.shape[:at], leaf.shape[at], leaf.shape[at + 1 :]
        copies = leaf.unsqueeze(at).expand(*before, self.num_frames, size, *after)
        return copies.reshape(*before, self.num_frames * size, *after)


class TimeMax(_FrameMemory):
    """Replace an observation by the largest of its last values, element by element: ``[*B, F]`` stays ``[*B, F]``.

    As the maximum over two frames of Mnih et al., "Human-level control through deep reinforcement learning" (2015),
    methods, which undoes flicker; here over agent steps. Over the simulator's own frames inside a repeated action, it
    is a wrapper of the simulator.

    >>> TimeMax(2).combine(torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    tensor([3., 5.])

    Args:
        num_frames: how many, this one included; fewer at the start of an episode.
        in_keys: which observations, each with a memory of its own.

    Raises:
        ConfigError: ``num_frames`` is not positive.
        SpecError: when wrapping: a maximum of an observation is none of its values, as of one-hot ones, or it is the
            mask of legal actions.
    """

    def combine(self, frames: torch.Tensor) -> torch.Tensor:
        """Take the maximum."""
        return frames.amax(0)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return leaf
