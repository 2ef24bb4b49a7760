"""Random changes of sampled images: the transform of a replay buffer, not of an environment. The maths is in
:mod:`torchrl.functional.images`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.counts import is_count
from torchrl.data.batch_functions import require_batch
from torchrl.data.multistep import read_entry
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.images import cut_images, jitter_colors
from torchrl.keys import Key, key_list, key_name

SEEN: tuple[Key, ...] = ("observation", ("next", "observation"))


class _Augmentation(ABC):
    """Base of functions of a batch that change its images at random; a subclass writes ``change``.

    Every entry, and every row of it, gets a draw of its own; all steps of a sampled slice and all frames of a stack
    share that of their row.

    Args:
        keys: which entries hold images ``[N, C, H, W]``, or ``[N, T, C, H, W]`` in a batch of slices.
        generator: source of the draws; None uses torch's global one.
    """

    def __init__(self, keys: Iterable[Key] = SEEN, *, generator: torch.Generator | None = None) -> None:
        self.keys = key_list(f"{type(self).__name__}(keys=...)", keys)
        self.generator = generator

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return the batch with changed images, in a new container that shares every other entry with the old one.

        Raises:
            KeyMissing: the batch lacks an entry.
            SpecError: an entry holds no images.
        """
        who = type(self).__name__
        require_batch(who, batch)
        changed = batch.copy()
        for key in self.keys:
            images = read_entry(batch, key, who=who)
            is_pixels = images.dtype == torch.uint8 or images.is_floating_point()
            if not batch.batch_dims or images.ndim != batch.batch_dims + 3 or not is_pixels:
                got = f"{list(images.shape)}, {images.dtype}, in a batch {list(batch.batch_size)}"
                expected = f"images [*B, C, H, W] of uint8 or floats under {key_name(key)!r}"
                raise SpecError(explain(who, expected=expected, got=got))
            changed.set(key, self.change(images))
        return changed

    @abstractmethod
    def change(self, images: Tensor) -> Tensor:
        """Return changed copies of the images of N rows, ``[N, ..., C, H, W]``, of any device."""

    def state_dict(self) -> dict:
        """Return the generator's state; an empty dict where there is none."""
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Let the generator go on from a :meth:`state_dict`."""
        if self.generator is not None and state:
            self.generator.set_state(state["generator"])

    def _corners(self, images: Tensor, low: int, highest: tuple[int, int]) -> Tensor:
        """Draw a row and a column from ``low`` to ``highest`` for each row of images, int64 ``[N, 2]``."""
        size, home = (len(images), 1), self._home
        drawn = [torch.randint(low, most + 1, size, generator=self.generator, device=home) for most in highest]
        return torch.cat(drawn, -1).to(images.device)

    @property
    def _home(self) -> torch.device:
        return torch.device("cpu") if self.generator is None else self.generator.device


class RandomShift(_Augmentation):
    """Shift sampled images by up to ``pad`` pixels each way, drawn uniformly; what comes in repeats the edge.

    >>> batch["observation"] = torch.arange(4.0).expand(2, 8, 1, 4, 4)  # columns 0, 1, 2, 3
    >>> shift = RandomShift(1, keys=["observation"], generator=torch.Generator().manual_seed(0))
    >>> shift(batch)["observation"][:, 0, 0, 0]
    tensor([[1., 2., 3., 3.],
            [0., 0., 1., 2.]])

    ``ReplayBuffer(..., transform=RandomShift())`` shifts every sample, each observation and its successor by draws of
    their own. Kostrikov, Yarats and Fergus, "Image Augmentation Is All You Need" (2020),
    https://arxiv.org/abs/2004.13649, section 3.1: 4 pixels for images of 84.

    Args:
        pad: the largest shift, in pixels.
        keys: which entries hold images ``[N, C, H, W]``; in a batch of slices ``[N, T, C, H, W]``, whose steps are
            shifted alike, as are all frames of a stack.
        generator: source of the draws; None uses torch's global one.

    Raises:
        ConfigError: ``pad`` is no positive integer.
    """

    def __init__(self, pad: int = 4, keys: Iterable[Key] = SEEN, *, generator: torch.Generator | None = None) -> None:
        super().__init__(keys, generator=generator)
        if not is_count(pad):
            raise ConfigError(explain("RandomShift", expected="a pad of at least 1 pixel", got=repr(pad)))
        self.pad = int(pad)

    def change(self, images: Tensor) -> Tensor:
        """Return shifted copies of the images, of the same shape."""
        corners = self._corners(images, -self.pad, (self.pad, self.pad))
        return cut_images(images, corners, *images.shape[-2:])


class RandomCrop(_Augmentation):
    """Cut a window out of sampled images, at a place drawn uniformly from all where it fits.

    >>> batch["observation"] = torch.zeros(2, 8, 3, 100, 100, dtype=torch.uint8)
    >>> RandomCrop(84, keys=["observation"])(batch)["observation"].shape
    torch.Size([2, 8, 3, 84, 84])

    Laskin et al., "Reinforcement Learning with Augmented Data" (2020), https://arxiv.org/abs/2004.14990, section 4: 84
    of 100 pixels. The policy sees whole images when it acts, so let its network begin with a
    :class:`~torchrl.modules.CenterCrop`, which leaves images of the right size as they are.

    Args:
        height: of the window, in pixels.
        width: the same; None makes it square.
        keys: which entries hold images, as for :class:`RandomShift`.
        generator: source of the draws; None uses torch's global one.

    Raises:
        ConfigError: a size is no positive integer.
        SpecError: from a call, an image is smaller than the window.
    """

    def __init__(
        self,
        height: int,
        width: int | None = None,
        keys: Iterable[Key] = SEEN,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(keys, generator=generator)
        self.size = (height, height if width is None else width)
        if not all(map(is_count, self.size)):
            raise ConfigError(explain("RandomCrop", expected="at least one pixel each way", got=self.size))

    def change(self, images: Tensor) -> Tensor:
        """Return windows of the images, ``[N, ..., C, height, width]``."""
        room = tuple(old - new for old, new in zip(images.shape[-2:], self.size, strict=True))
        if min(room) < 0:
            expected = f"images of at least {self.size[0]} × {self.size[1]} pixels"
            raise SpecError(explain("RandomCrop", expected=expected, got=list(images.shape[-2:])))
        return cut_images(images, self._corners(images, 0, room), *self.size)


class ColorJitter(_Augmentation):
    """Change brightness, contrast, saturation and hue of sampled images by factors drawn uniformly.

    >>> batch["observation"] = torch.full((2, 8, 3, 4, 4), 200, dtype=torch.uint8)
    >>> darker = ColorJitter(brightness=0.4, keys=["observation"], generator=torch.Generator().manual_seed(0))
    >>> darker(batch)["observation"][:, 0, 0, 0, 0]
    tensor([199, 243], dtype=torch.uint8)

    Laskin et al., "Reinforcement Learning with Augmented Data" (2020), https://arxiv.org/abs/2004.14990, section 4,
    with 0.4 for the first three and a hue of 0.5; :func:`torchrl.functional.jitter_colors` has the equations.

    Args:
        brightness: the factor is drawn between 1 minus this, or 0, and 1 plus this; 0 leaves it, as with the others.
        contrast: the same.
        saturation: the same.
        hue: the hue is turned by up to this share of the circle of colours, either way; at most 0.5.
        keys: which entries hold images of colours, as for :class:`RandomShift`, uint8 or floats from 0 to 1.
        generator: source of the draws; None uses torch's global one.

    Raises:
        ConfigError: a number is negative or not finite, a hue is above 0.5, or all are 0.
        SpecError: from a call, images without three colours.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        keys: Iterable[Key] = SEEN,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(keys, generator=generator)
        self.factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.hue = hue
        for name, value in (*self.factors.items(), ("hue", hue)):
            most = 0.5 if name == "hue" else math.inf
            if not (math.isfinite(value) and 0 <= value <= most):
                expected = f"a {name} from 0 to 0.5" if name == "hue" else f"a {name} of at least 0"
                raise ConfigError(explain("ColorJitter", expected=expected, got=value))
        if not any((*self.factors.values(), hue)):
            raise ConfigError(explain("ColorJitter", expected="something to change", got="0 for all"))

    def change(self, images: Tensor) -> Tensor:
        """Return images of changed colours, of the same shape and dtype."""
        num, device = len(images), images.device
        ranges = {name: (max(0.0, 1 - width), 1 + width) for name, width in self.factors.items() if width}
        if self.hue:
            ranges["hue"] = (-self.hue, self.hue)
        drawn = {}
        for name, (low, high) in ranges.items():
            unit = torch.rand(num, generator=self.generator, device=self._home).to(device)
            drawn[name] = low + (high - low) * unit
        return jitter_colors(images, **drawn)
