"""The base of every loss: its inputs, padding, what it trains, its coefficients. The maths is in ``functional``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import add

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchrl.data.batch_functions import require_batch
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key
from torchrl.modules.operator import write
from torchrl.objectives.keys import MASK, read
from torchrl.objectives.options import PassesOptions
from torchrl.objectives.unrolling import SEEN, Networks
from torchrl.unchecked import new_tensordict


class Coefficient:
    """Declare an attribute of a loss that is a number, such as ``entropy_coef``, and may be changed during training.

    >>> class Scaled(nn.Module):
    ...     scale = Coefficient(least=0.0)
    >>> module = Scaled()
    >>> module.scale = 0.1
    >>> module.scale, module.state_dict()["_scale"]
    (0.1, tensor(0.1000))

    The number is a 0-d buffer named with a leading underscore, which the loss computes with: assigning fills the
    buffer, so a compiled loss is not compiled again (with a plain float it would be, at each new value), ``.to()``
    moves it and ``state_dict()`` holds it. Reading it returns a float of 7 digits, and waits for an accelerator.

    Args:
        least: the smallest value allowed.
        below: the values allowed are smaller than this.
        of: name of the submodule that has the number, under the same name and with bounds of its own; None: the loss.

    Raises:
        ConfigError: on assignment of a number that is not finite or not allowed.
    """

    def __init__(self, *, least: float = -math.inf, below: float = math.inf, of: str | None = None) -> None:
        self.least, self.below, self.of = least, below, of

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.buffer = name, f"_{name}"

    def __get__(self, loss: nn.Module | None, owner: type | None = None) -> float | Coefficient:
        if loss is None:
            return self
        if self.of is not None:
            return getattr(getattr(loss, self.of), self.name)
        return float(f"{loss.get_buffer(self.buffer).item():.7g}")

    def __set__(self, loss: nn.Module, value: float) -> None:
        if self.of is not None:
            with prefix_errors(type(loss).__name__):
                setattr(getattr(loss, self.of), self.name, value)
            return
        if not (math.isfinite(value) and self.least <= value < self.below):
            bounds = f" and below {self.below:g}" if self.below < math.inf else ""
            bounds = f" of at least {self.least:g}{bounds}" if self.least > -math.inf else bounds
            expected = f"a finite {self.name}{bounds}"
            raise ConfigError(explain(type(loss).__name__, expected=expected, got=value))
        if self.buffer in loss._buffers:
            loss.get_buffer(self.buffer).fill_(value)
        else:
            loss.register_buffer(self.buffer, torch.tensor(float(value)))


@contextmanager
def prefix_errors(who: str) -> Iterator[None]:
    """Put ``who``, the class that the user called, in front of the message of a :class:`ConfigError` from the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{who}, {error}") from error


class Loss(PassesOptions, nn.Module, ABC):
    """Base of losses: compute from a batch scalars ``loss_*``, which :func:`total_loss` sums, and numbers for the log.

    >>> class Error(Loss):
    ...     def __init__(self, critic):
    ...         super().__init__(in_keys=["observation", "target"], trained=[critic])
    ...         self.critic = critic
    ...     def terms(self, rows):
    ...         return {"loss_error": (self.critic(rows)["state_value"] - rows["target"]).square().mean()}
    >>> loss = Error(critic)
    >>> loss(batch.set("target", torch.ones(2, 8, 1)))["loss_error"].shape
    torch.Size([])

    The gradient of the sum reaches ``trainable_parameters()`` and nothing else: the entries of the batch are
    constants. The batch is not written to. Rows that ``("collector", "mask")`` excludes are dropped before any network
    sees them; this is the only step whose shapes depend on data, so batches without a mask compile to one graph. A
    subclass writes :meth:`terms`.

    Args:
        in_keys: what :meth:`terms` and its networks read; they see nothing else.
        trained: the networks that this loss trains; a subclass also sets each as an attribute, so that checkpoints hold
            it and ``.to()`` moves it. Others (targets) are ordinary frozen submodules.
        optional_keys: what :meth:`terms` reads where a batch has it.
        networks: those that read the batch, by name; None where none of them has memory.
    """

    def __init__(
        self,
        *,
        in_keys: Iterable[Key],
        trained: Iterable[nn.Module],
        optional_keys: Iterable[Key] = (),
        networks: Networks | None = None,
    ) -> None:
        super().__init__()
        self.in_keys = list(dict.fromkeys(in_keys))
        self.optional_keys = list(optional_keys)
        self.networks = Networks(type(self).__name__) if networks is None else networks
        self._trained = tuple(trained)  # in a tuple: references only, the subclass registers them by name
        for module in self._trained:
            _require_initialised(type(self).__name__, module)

    @abstractmethod
    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Return losses ``loss_*`` and numbers for the log, by name, of the valid rows, which may be written to."""

    def forward(self, batch: TensorDictBase) -> TensorDict:
        """Compute all terms on the valid rows of the batch.

        Args:
            batch: any batch size, with ``in_keys`` and perhaps ``("collector", "mask")``.

        Returns:
            TensorDict of batch size ``[]``.

        Raises:
            KeyMissing: naming the key and what writes it.
            SpecError: the mask leaves no row, a tensor would be broadcast, or a term is no tensor.
        """
        rows = self._valid_rows(batch)
        try:
            terms = self.terms(rows)
        except KeyError as error:
            error.add_note(f"{type(self).__name__} and its networks see what its in_keys name alone: {self.in_keys}.")
            raise
        for name, term in terms.items():
            if not isinstance(term, Tensor):
                who, got = f"{type(self).__name__}, term {name!r}", type(term).__name__
                raise SpecError(explain(who, expected="a tensor", got=got, hint="Write torch.tensor(number)."))
        return new_tensordict(terms, torch.Size([]))

    @property
    def state_keys(self) -> list[Key]:
        """The keys of the states of networks with memory; where there are some, batches are sequences, ``[*B, T]``."""
        return self.networks.state_keys

    def seen_successors(self) -> list[str]:
        """Return the names of the networks that look at successors; only networks with memory are asked for."""
        return []

    def trainable_parameters(self) -> list[nn.Parameter]:
        """List the parameters that this loss trains, for the optimiser: each once, shared or not, and no frozen one.

        Raises:
            ConfigError: a trained network is no attribute of the loss, so that checkpoints would lack it.
        """
        registered = set(self.modules())
        loose = [type(module).__name__ for module in self._trained if module not in registered]
        if loose:
            hint = "Write self.critic = critic in its __init__: else checkpoints lack it, and .to(device) leaves it."
            expected = "each network that it trains as an attribute"
            raise ConfigError(explain(type(self).__name__, expected=expected, got=f"{loose} without one", hint=hint))
        parameters = (parameter for module in self._trained for parameter in module.parameters())
        return [parameter for parameter in dict.fromkeys(parameters) if parameter.requires_grad]

    def _valid_rows(self, batch: TensorDictBase) -> TensorDict:
        """Return the entries that the loss reads, detached, in a new TensorDict, ``[n]`` if a mask leaves n rows."""
        who = type(self).__name__
        require_batch(who, batch)
        mask = batch.get(MASK, None)
        size = batch.batch_size
        if mask is not None:
            size = torch.Size([int(mask.sum())])
            if not size[0]:
                raise SpecError(explain(who, expected="at least one valid row", got=f"{MASK} false everywhere"))
        rows = new_tensordict({}, size)
        states = self.state_keys
        for key in (*self.in_keys, *self.optional_keys):
            if key in states:  # read at the first step of a sequence alone
                continue
            value = read(batch, key, who=who) if key in self.in_keys else batch.get(key, None)
            if value is None:
                continue
            if value.requires_grad or not isinstance(value, Tensor):  # a nested action: a container of our own
                value = value.detach()
            if mask is not None:
                value = value[mask]
            write(rows, key, value)
        if states:
            rows.set(SEEN, self.networks.unroll(batch, successors=self.seen_successors()))
        return rows


def total_loss(losses: TensorDictBase) -> Tensor:
    """Sum the entries ``loss_*`` of what a loss returned into the scalar that ``backward`` is called on.

    >>> terms = {"loss_a": torch.tensor(1.0), "loss_b": torch.tensor(2.0), "entropy": torch.tensor(9.0)}
    >>> total_loss(TensorDict(terms)).item()
    3.0

    Args:
        losses: what a loss returned.

    Returns:
        ``[]``.

    Raises:
        SpecError: they are not scalars, or there are none.
    """
    terms = [value for key, value in losses.items() if key.startswith("loss_")]
    if not terms:
        got = sorted(map(str, losses.keys()))
        hint = "What is to be minimised gets a name that begins with loss_; all others are only logged."
        raise SpecError(explain("total_loss", expected="entries loss_...", got=got, hint=hint))
    total = reduce(add, terms)
    if total.ndim:
        hint = 'With reduction="none" every row has its own: weigh and add them yourself.'
        raise SpecError(explain("total_loss", expected="scalars", got=f"shape {list(total.shape)}", hint=hint))
    return total


def _require_initialised(who: str, module: nn.Module) -> None:
    """Refuse lazy layers: a copy or an optimiser made before they have a shape would silently miss them."""
    lazy = [name for name, x in (*module.named_parameters(), *module.named_buffers()) if is_lazy(x)]
    if lazy:
        hint = "Run the module once on an example batch before building the loss."
        raise ConfigError(explain(who, expected="initialised networks", got=f"lazy {', '.join(lazy)}", hint=hint))
