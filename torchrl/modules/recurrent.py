"""Recurrent cells, LSTM and GRU, in step and in sequence form with one set of weights.

A fused kernel of torch knows no resets. To reset the state inside a sequence, the layout of :func:`insert_resets` puts
an extra step before each beginning of an episode, whose input shuts every gate, so that the state after it is exactly
zero, and so is the gradient through it. One call of the kernel then serves all rows and episodes at once::

    steps of a row       a0 a1 a2 | b0 b1            is_init at b0
    what the kernel sees a0 a1 a2 0 b0 b1            0: input gate, forget gate and output gate shut
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchrl.counts import is_count
from torchrl.errors import ConfigError, explain
from torchrl.modules.memory import Memory

SHUT = -1e4  # before a sigmoid: exactly 0 in every precision, and so is its derivative


class Recurrent(Memory):
    """Base of LSTM and GRU, which say what a gate is; the weights are those of torch's cells, one for each layer.

    Args:
        cells: torch's modules, the first layer first.
        num_parts: tensors of a layer's state.
        **options: those of :class:`~torchrl.modules.Memory`.
    """

    def __init__(self, cells: list[nn.RNNCellBase], num_parts: int, **options: object) -> None:
        size, in_features = cells[0].hidden_size, cells[0].input_size
        super().__init__((len(cells), num_parts, size), in_features=in_features, **options)
        self.cells = nn.ModuleList(cells)  # not torch's nn.LSTM, which torch.compile (2.13) refuses to trace

    def weights(self) -> list[list[Tensor]]:
        """Return each layer's weights: of inputs and of the state, and both biases."""
        return [[cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh] for cell in self.cells]

    @abstractmethod
    def cell(self, x: Tensor, state: Sequence[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the parts of a layer's next state of N rows, ``[N, H]`` each; the first is the output.

        Args:
            x: ``[N, F]``.
            state: its parts, ``[N, H]`` each.
            weights: of inputs and of the state, and both biases.
        """

    @abstractmethod
    def run_kernel(self, x: Tensor, state: Tensor, weights: list[Tensor]) -> Tensor:
        """Return a layer's outputs by torch's fused kernel, ``[L, N, H]``.

        Args:
            x: ``[L, N, F]``, time first.
            state: at the first step, ``[N, parts, H]``.
            weights: as for :meth:`cell`.
        """

    @abstractmethod
    def shutting_column(self, bias: Tensor) -> Tensor:
        """Return what a reset adds to the gates' inputs, ``[gates · H, 1]``, so that the state after it is zero.

        Args:
            bias: of the inputs, ``[gates · H]``.
        """

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's output ``[N, H]`` and the next state ``[N, layers, parts, H]``."""
        parts, after, num_parts = state.flatten(1, 2).unbind(1), [], self.state_shape[1]
        for layer, weights in enumerate(self.weights()):
            of_layer = self.cell(x, parts[layer * num_parts : (layer + 1) * num_parts], weights)
            after += of_layer
            x = of_layer[0]
        return x, torch.cat(after, 1).view_as(state)

    def unroll(self, x: Tensor, state: Tensor, is_init: Tensor) -> Tensor:
        """Return the last layer's outputs, ``[N, T, H]``, by the fused kernel.

        Under ``torch.compile``, whose graphs have fixed shapes, it goes step by step.
        """
        if torch.compiler.is_compiling():
            return self.unroll_stepwise(x, state, is_init)
        if self.initial is not None:
            return self._unroll_episodes(x, state, is_init)
        state = self.restart(state, is_init[:, 0])
        num_rows, num_steps, _ = x.shape
        place, length = insert_resets(is_init)
        x = x.transpose(0, 1)
        if length == num_steps:
            return self._run_layers(x, state, self.weights()).transpose(0, 1)
        place = place.flatten()
        x = torch.cat([x, x.new_zeros(num_steps, num_rows, 1)], -1).flatten(0, 1)
        spread = x.new_zeros(length * num_rows, x.shape[-1])
        spread[:, -1] = 1
        spread = spread.index_copy(0, place, x).view(length, num_rows, -1)
        outputs = self._run_layers(spread, state, self._shutting_weights(), shut=spread[..., -1:])
        return outputs.flatten(0, 1).index_select(0, place).view(num_steps, num_rows, -1).transpose(0, 1)

    def _run_layers(self, x: Tensor, state: Tensor, weights: list[list[Tensor]], shut: Tensor | None = None) -> Tensor:
        for layer, (mine, before) in enumerate(zip(weights, state.unbind(1), strict=True)):
            if layer and shut is not None:
                x = torch.cat([x, shut], -1)
            x = self.run_kernel(x, before, mine)
        return x

    def _shutting_weights(self) -> list[list[Tensor]]:
        """Return each layer's weights with a column more for the input that is 1 in a reset and 0 elsewhere."""
        return [
            [torch.cat([of_input, self.shutting_column(biases[0])], 1), of_state, *biases]
            for of_input, of_state, *biases in self.weights()
        ]

    def _unroll_episodes(self, x: Tensor, state: Tensor, is_init: Tensor) -> Tensor:
        """Return what :meth:`unroll` does with every episode as a row of its own, padded to the longest.

        A reset by shut gates leads to zero; with another initial state each episode starts with it in the kernel.
        """
        num_rows, num_steps, _ = x.shape
        begins = is_init.clone()
        begins[:, 0] = True
        first = begins.flatten().nonzero().squeeze(-1)  # [E], of each episode, as an index of [N · T]
        lengths = torch.diff(first, append=first.new_tensor([num_rows * num_steps]))
        steps = torch.arange(int(lengths.max()), device=x.device)
        index = (first.unsqueeze(1) + steps).clamp(max=num_rows * num_steps - 1)
        starts = self.restart(state[first // num_steps], is_init.flatten()[first])
        outputs = self._run_layers(x.flatten(0, 1)[index].transpose(0, 1), starts, self.weights())
        is_step = steps < lengths.unsqueeze(1)
        return outputs.transpose(0, 1)[is_step].view(num_rows, num_steps, -1)


class LSTM(Recurrent):
    """Remember by a long short-term memory: read vectors and the state, write features ``[*B, H]`` and the next state.

    >>> from torchrl.modules import Categorical, ProbabilisticActor, Sequence
    >>> head = ProbabilisticActor(nn.Linear(16, 2), Categorical, in_keys=["hidden"])
    >>> policy = Sequence(LSTM(4, 16), head, out_keys=head.out_keys)
    >>> {key: tuple(value.shape) for key, value in policy.initial_state().items()}  # layers, (hidden, cell), H
    {'memory': (1, 2, 16)}

    Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997), with the forget gate of Gers et al. (2000), whose bias
    starts 1 higher than torch's, so that the cell keeps at first what it holds: Jozefowicz et al., "An Empirical
    Exploration of Recurrent Network Architectures" (2015). A root ``[*B]`` is one step. A batch ``[*B, T]`` is a
    sequence: it starts from the state stored at its first step, and is reset, with its gradient, where ``is_init`` is
    true. The environment needs the transform ``TensorDictPrimer(policy.initial_state())``.

    Args:
        in_features: F, numbers of the inputs together.
        num_cells: H, units of each layer.
        num_layers: layers, one upon the other.
        **options: ``in_keys``, ``out_key``, ``state_key``, ``learn_initial_state`` and ``batch_dims`` of
            :class:`~torchrl.modules.Memory`.

    Raises:
        ConfigError: a size below one, or as :class:`~torchrl.modules.Memory`.
    """

    def __init__(self, in_features: int, num_cells: int = 64, *, num_layers: int = 1, **options: object) -> None:
        require_sizes("LSTM", in_features=in_features, num_cells=num_cells, num_layers=num_layers)
        sizes = [in_features, *[num_cells] * (num_layers - 1)]
        super().__init__([nn.LSTMCell(size, num_cells) for size in sizes], 2, **options)
        for cell in self.cells:
            cell.bias_ih.data[num_cells : 2 * num_cells] += 1

    def cell(self, x: Tensor, state: Sequence[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Return hidden and cell state after a step, ``[N, H]`` each."""
        return torch.lstm_cell(x, state, *weights)

    def run_kernel(self, x: Tensor, state: Tensor, weights: list[Tensor]) -> Tensor:
        """Return a layer's hidden states, ``[L, N, H]``."""
        start = [part.unsqueeze(0).contiguous() for part in state.unbind(1)]
        return torch.lstm(x, start, weights, True, 1, 0.0, self.training, False, False)[0]

    def shutting_column(self, bias: Tensor) -> Tensor:
        """Return the column that shuts input, forget and output gate: cell and hidden state become zero."""
        size = len(bias) // 4
        column = bias.new_full((len(bias), 1), SHUT)
        column[2 * size : 3 * size] = 0  # the candidate, which the input gate keeps out
        return column


class GRU(Recurrent):
    """Remember by gated recurrent units: read vectors and the state, write features ``[*B, H]`` and the next state.

    >>> gru = GRU(4, 8, num_layers=2, in_keys=["observation"])
    >>> root = gru(env.reset().set("memory", gru.initial_state()["memory"].expand(2, 2, 1, 8)))
    >>> root["hidden"].shape, root["next", "memory"].shape
    (torch.Size([2, 8]), torch.Size([2, 2, 1, 8]))

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014), https://arxiv.org/abs/1406.1078, in
    torch's form. Otherwise as :class:`LSTM`.

    Args:
        in_features: F, numbers of the inputs together.
        num_cells: H, units of each layer.
        num_layers: layers, one upon the other.
        **options: those of :class:`LSTM`.

    Raises:
        ConfigError: as :class:`LSTM`.
    """

    def __init__(self, in_features: int, num_cells: int = 64, *, num_layers: int = 1, **options: object) -> None:
        require_sizes("GRU", in_features=in_features, num_cells=num_cells, num_layers=num_layers)
        sizes = [in_features, *[num_cells] * (num_layers - 1)]
        super().__init__([nn.GRUCell(size, num_cells) for size in sizes], 1, **options)

    def cell(self, x: Tensor, state: Sequence[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the hidden state after a step, ``[N, H]``."""
        return (torch.gru_cell(x, state[0], *weights),)

    def run_kernel(self, x: Tensor, state: Tensor, weights: list[Tensor]) -> Tensor:
        """Return a layer's hidden states, ``[L, N, H]``."""
        start = state.transpose(0, 1).contiguous()
        return torch.gru(x, start, weights, True, 1, 0.0, self.training, False, False)[0]

    def shutting_column(self, bias: Tensor) -> Tensor:
        """Return the column that shuts reset and update gate and takes the bias off the candidate, which is then 0.

        The bias keeps its graph: its two gradients cancel.
        """
        size = len(bias) // 3
        return torch.cat([bias.new_full((2 * size,), SHUT), -bias[2 * size :]]).unsqueeze(1)


def insert_resets(is_init: Tensor) -> tuple[Tensor, int]:
    """Lay out rows of steps with one extra place before each beginning of an episode but at the first step.

    >>> insert_resets(torch.tensor([[True, False, True], [False, False, False]]))
    (tensor([[0, 1],
            [2, 3],
            [6, 5]]), 4)

    Args:
        is_init: bool ``[N, T]``.

    Returns:
        where each step goes, as an index of ``[L, N]`` flattened, int64 ``[T, N]``; and L, T if nothing begins.
    """
    num_rows, num_steps = is_init.shape
    begins = is_init.transpose(0, 1).clone()
    begins[0] = False
    place = torch.arange(num_steps, device=is_init.device).unsqueeze(1) + begins.cumsum(0)
    length = int(place[-1].max()) + 1
    return place * num_rows + torch.arange(num_rows, device=is_init.device), length


def require_sizes(who: str, **sizes: int) -> None:
    """Refuse sizes that are no whole numbers of at least 1.

    Raises:
        ConfigError: naming the size.
    """
    for name, size in sizes.items():
        if not is_count(size):
            raise ConfigError(explain(f"{who}({name}=...)", expected="at least 1, a whole number", got=size))
