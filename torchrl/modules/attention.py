"""A causal transformer over the last steps of an episode, in step and in sequence form with one set of weights.

What it remembers is a *window*: of each of the last ``window - 1`` steps, what every layer attended to there, and a one
that tells it from an empty place. A step attends to the window and to itself. A sequence computes all steps at once;
each sees the steps before it that its window would hold, and those of the stored window at the start::

    stored window | steps of a row          window = 3, is_init at b0; ``.`` is an empty place
    . p2          | a0 a1 a2 b0 b1          a0 sees p2 a0; a1 sees p2 a0 a1; a2 sees a0 a1 a2; b0 itself; b1 sees b0 b1

Long sequences are cut into pieces about as long as the window: time and memory grow with T, not with its square.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchrl.errors import ConfigError, explain
from torchrl.modules.memory import Memory
from torchrl.modules.recurrent import require_sizes

SHORTEST_PIECE = 32


class Transformer(Memory):
    """Remember by attention: read vectors and a window of past steps, write features ``[*B, H]`` and the next window.

    >>> memory = Transformer(4, 8, window=16, num_heads=2)
    >>> {key: tuple(value.shape) for key, value in memory.initial_state().items()}  # earlier steps, H and a one
    {'memory': (15, 9)}

    Vaswani et al., "Attention Is All You Need" (2017), https://arxiv.org/abs/1706.03762: the causal part, with the norm
    before each layer and no dropout, which would make log-probs of learning other than those of acting. Distances are
    known by a bias for each distance and head, learned, which starts as that of Press et al., "Train Short, Test Long"
    (2022), https://arxiv.org/abs/2108.12409: the first heads see what is near, the last ones nearly all alike.

    A root ``[*B]`` is one step, a batch ``[*B, T]`` a sequence, as for :class:`LSTM`. The first step of an episode has
    an empty window and sees itself alone. With several layers, features depend on ``num_layers · (window - 1)`` earlier
    steps. Each step of a batch holds its window: ``(window - 1) · (num_layers · H + 1)`` numbers.

    Args:
        in_features: F, numbers of the inputs together.
        num_cells: H, width of each layer; its MLP has ``4 · H`` units.
        num_layers: layers, one upon the other.
        num_heads: heads of each layer; divides ``num_cells``.
        window: steps that a layer attends to, the present one among them; 1 remembers nothing.
        **options: ``in_keys``, ``out_key``, ``state_key`` and ``batch_dims`` of :class:`~torchrl.modules.Memory`.

    Raises:
        ConfigError: a size below one, heads that do not divide ``num_cells``, ``learn_initial_state``, or as
            :class:`~torchrl.modules.Memory`.
    """

    def __init__(
        self,
        in_features: int,
        num_cells: int = 64,
        *,
        num_layers: int = 1,
        num_heads: int = 4,
        window: int = 32,
        **options: object,
    ) -> None:
        sizes = {"in_features": in_features, "num_cells": num_cells, "num_layers": num_layers}
        require_sizes("Transformer", **sizes, num_heads=num_heads, window=window)
        if num_cells % num_heads:
            expected, got = "num_heads that divide num_cells", f"{num_heads} heads, {num_cells} cells"
            raise ConfigError(explain("Transformer", expected=expected, got=got))
        if options.pop("learn_initial_state", False):
            hint = "Leave learn_initial_state out: an episode starts with an empty window."
            raise ConfigError(explain("Transformer", expected="a fixed initial state", got="a learned one", hint=hint))
        super().__init__((window - 1, num_layers * num_cells + 1), in_features=in_features, **options)
        self.window = window
        self.embed = nn.Linear(in_features, num_cells)
        self.layers = nn.ModuleList(Attention(num_cells, num_heads, window) for _ in range(num_layers))
        self.norm = nn.LayerNorm(num_cells)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features ``[N, H]`` and the next window ``[N, window - 1, layers · H + 1]``."""
        x, windows = self.embed(x).unsqueeze(1), []
        is_valid = functional.pad(state[..., -1:], (0, 0, 0, 1), value=1.0)  # [N, window, 1]; it sees itself
        is_hidden = (is_valid < 0.5).view(-1, 1, 1, self.window)
        for layer, before in zip(self.layers, self._by_layer(state), strict=True):
            new = layer.norm(x)
            windows.append(torch.cat([before, new], 1))
            x = layer(x, new, windows[-1], layer.bias.masked_fill(is_hidden, -math.inf))
        return self.norm(x).squeeze(1), torch.cat([*windows, is_valid], -1)[:, 1:]

    def unroll(self, x: Tensor, state: Tensor, is_init: Tensor) -> Tensor:
        """Return the features of all steps at once, ``[N, T, H]``."""
        state = self.restart(state, is_init[:, 0])
        num_steps = x.shape[1]
        num_pieces = math.ceil(num_steps / max(self.window, SHORTEST_PIECE))
        length = math.ceil(num_steps / num_pieces)
        num_more = length * num_pieces - num_steps  # steps after the last: nothing looks ahead
        x = self.embed(functional.pad(x, (0, 0, 0, num_more)))
        is_hidden, place = self._hidden(state, functional.pad(is_init, (0, num_more)), length)
        for layer, before in zip(self.layers, self._by_layer(state), strict=True):
            new = layer.norm(x)
            bias = layer.bias[:, place].transpose(0, 1).masked_fill(is_hidden, -math.inf)
            x = layer(x, new, torch.cat([before, new], 1), bias)
        return self.norm(x[:, :num_steps])

    def _by_layer(self, state: Tensor) -> tuple[Tensor, ...]:
        """Return each layer's part of the window, ``[N, window - 1, H]``."""
        return state[..., :-1].chunk(len(self.layers), -1)

    def _hidden(self, state: Tensor, is_init: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Tell which steps do not see which, and how far apart they are.

        Args:
            state: the window at the first step, ``[N, window - 1, S]``.
            is_init: bool ``[N, T]``.
            length: steps of a piece, p; divides T.

        Returns:
            bool ``[N · T / p, p, 1, window - 1 + p]``: of each step of a piece, the steps that it does not see, of the
            ``window - 1`` before the piece and those in it; and the same steps' places in its window, clamped to it,
            int64 ``[p, window - 1 + p]``.
        """
        num_seen = self.window - 1 + length
        episode = is_init.cumsum(1)
        of_stored = -(state[..., -1] < 0.5).long()  # those of the first step's episode 0, empty places -1
        seen = torch.cat([of_stored, episode], 1).unfold(1, num_seen, length)
        is_other = episode.unflatten(1, (-1, length)).unsqueeze(-1) != seen.unsqueeze(2)
        steps = torch.arange(num_seen, device=state.device)
        place = steps - steps[:length].unsqueeze(1)
        is_outside = (place < 0) | (place >= self.window)
        return (is_other | is_outside).flatten(0, 1).unsqueeze(2), place.clamp(0, self.window - 1)


class Attention(nn.Module):
    """A layer of a transformer: attention of several heads, then an MLP, each added to what it reads.

    Keys and values are the steps as the norm leaves them, the same for all heads: a head has a matrix of its own for
    what it asks, and one for what it makes of the answer. So a window needs no products with weights.

    Args:
        num_cells: H, numbers of a step.
        num_heads: heads.
        window: steps that are seen at most.
    """

    def __init__(self, num_cells: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_cells)
        self.query = nn.Linear(num_cells, num_heads * num_cells)
        self.out = nn.Linear(num_heads * num_cells, num_cells)
        self.mlp = nn.Sequential(
            nn.LayerNorm(num_cells),
            nn.Linear(num_cells, 4 * num_cells),
            nn.ReLU(),
            nn.Linear(4 * num_cells, num_cells),
        )
        slopes = 2.0 ** (-8.0 / num_heads * torch.arange(1, num_heads + 1))
        self.bias = nn.Parameter(slopes.unsqueeze(1) * torch.arange(1.0 - window, 1.0))  # the present step last

    def forward(self, x: Tensor, new: Tensor, seen: Tensor, bias: Tensor) -> Tensor:
        """Return what the next layer reads, ``[N, T, H]``.

        Args:
            x: steps, ``[N, T, H]``.
            new: the same behind :attr:`norm`.
            seen: what can be attended to, behind the norm: the window, then the steps, ``[N, window - 1 + T, H]``.
            bias: of the scores, ``[N · T / p, p, heads, window - 1 + p]``, -inf where a step does not see another.
        """
        num, length, num_heads, num_seen = bias.shape
        if length < x.shape[1]:
            seen = seen.unfold(1, num_seen, length).transpose(-1, -2).flatten(0, 1)
        query = self.query(new).reshape(num, 1, length * num_heads, x.shape[-1])
        seen = seen.unsqueeze(1)
        mixed = functional.scaled_dot_product_attention(query, seen, seen, attn_mask=bias.flatten(1, 2).unsqueeze(1))
        x = x + self.out(mixed.reshape(*x.shape[:-1], -1))
        return x + self.mlp(x)
