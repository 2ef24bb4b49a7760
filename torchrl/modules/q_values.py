"""Actors and critics of action values: greedy actors of networks that value every action, and ensembles of critics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torch import nn
from torch.nn import functional as F

from torchrl.data.specs.fitting import fitting_line
from torchrl.data.specs.masks import as_bools
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, key_list
from torchrl.modules.critics import reads_action
from torchrl.modules.distributions.masked import only_legal
from torchrl.modules.ensemble import Ensemble
from torchrl.modules.families import INDEX, ONE_HOT, describe_action, kind_of, spec_at
from torchrl.modules.operator import Operator, accept_tensors, read, write
from torchrl.modules.randomness import keep_module_state, keep_randomness

if TYPE_CHECKING:
    from torchrl.data.specs import TensorSpec


class QValueActor(Operator):
    """Take the legal action that the network values highest; exploration is left to wrappers.

    >>> policy = QValueActor(nn.Identity())
    >>> policy(TensorDict({"observation": torch.tensor([[0.0, 3.0, 1.0]])}, [1]))["action"]
    tensor([1])

    Writes ``action_value``, ``[*B, A]``, and the action: an int64 ``[*B]``, or one-hot ``[*B, A]``. The exploration
    type changes nothing: exploration is a wrapper, like :class:`EGreedy`, or noise inside the network.

    Watkins and Dayan, "Q-learning" (1992); Mnih et al., "Human-level control through deep reinforcement learning"
    (2015).

    Args:
        module: observation(s) to the values of all actions, ``[*B, A]``.
        in_keys: entries that ``module`` is called with.
        action_key: where the action goes.
        one_hot: write actions one-hot, int64; int64 numbers otherwise.
        mask_key: entry that says which actions are legal, ``env.action_mask_key``: ``[*B, A]``, true = legal, bool or
            0 and 1 of any dtype. It joins ``in_keys``; the module does not get it. None for actions that are always
            legal.

    Raises:
        SpecError: from a call, a mask has another shape or allows nothing.
    """

    num_trailing = 1  # dimensions of the module's output behind the batch

    def __init__(
        self,
        module: nn.Module,
        *,
        in_keys: Iterable[Key] = ("observation",),
        action_key: Key = "action",
        one_hot: bool = False,
        mask_key: Key | None = None,
    ) -> None:
        super().__init__(module, in_keys=in_keys, out_keys=("action_value", action_key))
        if mask_key is not None and mask_key not in self.in_keys:
            self.in_keys = [*self.in_keys, mask_key]
        self.action_key = action_key
        self.one_hot = one_hot
        self.mask_key = mask_key

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        values = self.values_of(self.outputs(tensordict))
        write(tensordict, "action_value", values)
        action = self.greedy(values, self.mask_of(tensordict))
        write(tensordict, self.action_key, F.one_hot(action, values.shape[-1]) if self.one_hot else action)
        return tensordict

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase) -> None:
        """Raise if the network values other actions than one row's ``action_spec`` describes; no state changes.

        Raises:
            SpecError: another number or another kind of actions; it names what fits.
        """
        spec = spec_at(action_spec, self.action_key)
        if spec is None:
            return
        with torch.no_grad(), keep_randomness(self), keep_module_state(self):
            num = self.values_of(self.outputs(tensordict)).shape[-1]
        if kind_of(spec) != (ONE_HOT if self.one_hot else INDEX, (num,)):
            got = f"values of {num} actions, written as {ONE_HOT if self.one_hot else INDEX}"
            who = type(self).__name__
            raise SpecError(explain(who, expected=describe_action(spec), got=got, hint=fitting_line(spec)))

    def outputs(self, tensordict: TensorDictBase) -> torch.Tensor:
        """Return the network's output with gradient, ``[*B, A]``, or ``[*B, A, K]`` of distributions; write nothing."""
        (output,) = self._results(tensordict, 1)
        return output

    def values_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the value of each action, ``[*B, A]``, computed from the network's output."""
        return outputs

    def mask_of(self, tensordict: TensorDictBase) -> torch.Tensor | None:
        """Return which actions are legal, bool ``[*B, A]``; None where all are."""
        if self.mask_key is None:
            return None
        who = f"{type(self).__name__}(mask_key=...)"
        return as_bools(who, read(tensordict, (self.mask_key,), who)[0])

    def greedy(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the index of the legal action with the highest value, int64 ``[*B]``; the first of equal ones."""
        if mask is not None:
            values = only_legal(type(self).__name__, values, mask)
        return values.argmax(-1)

    def select(self, outputs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Pick the network's output for one action of each row: ``[*B, 1]``, or ``[*B, K]``.

        Args:
            outputs: ``[*B, A]``, or ``[*B, A, K]``.
            action: as this actor writes it, or as numbers ``[*B]``.

        Raises:
            SpecError: the action has another shape, or its number is not below A.
        """
        num_dims = outputs.ndim - self.num_trailing
        if self.one_hot and action.ndim > num_dims:
            action = action.argmax(-1)
        if action.shape != outputs.shape[:num_dims]:
            got = f"action {list(action.shape)} beside values {list(outputs.shape)}"
            raise SpecError(explain(type(self).__name__, expected=self._expected_action(outputs), got=got))
        try:
            if self.num_trailing == 1:
                return outputs.gather(-1, action.unsqueeze(-1))
            index = action[..., None, None].expand(*action.shape, 1, outputs.shape[-1])
            return outputs.gather(-2, index).squeeze(-2)
        except RuntimeError as error:
            num, least, most = outputs.shape[num_dims], int(action.min()), int(action.max())
            if least >= 0 and most < num:
                raise
            got, expected = f"numbers from {least} to {most}", f"actions below {num}, the number of values"
            raise SpecError(explain(type(self).__name__, expected=expected, got=got)) from error

    def _expected_action(self, outputs: torch.Tensor) -> str:
        shape = list(outputs.shape[: outputs.ndim - self.num_trailing])
        return f"a one-hot action {[*shape, 'A']}" if self.one_hot else f"an action of shape {shape}"


class DistributionalQValueActor(QValueActor):
    """Take the action whose expected value is highest, from a categorical distribution of each action's return.

    >>> network = nn.Sequential(MLP(4, 102), nn.Unflatten(-1, (2, 51)))
    >>> policy = DistributionalQValueActor(network, low=0.0, high=100.0)
    >>> policy(env.reset())["action_value"].shape
    torch.Size([2, 2])

    The K atoms lie evenly between two values; the network gives their logits. Bellemare, Dabney and Munos, "A
    Distributional Perspective on Reinforcement Learning" (2017), https://arxiv.org/abs/1707.06887 (C51 for K = 51).

    Args:
        module: observation(s) to logits, ``[*B, A, K]``.
        low: value of the first atom.
        high: value of the last.
        in_keys: as for :class:`QValueActor`, like all that follow.
        action_key: where the action goes.
        one_hot: write actions one-hot.
        mask_key: entry that says which actions are legal.

    Raises:
        ConfigError: no room between ``low`` and ``high``.
    """

    num_trailing = 2

    def __init__(
        self,
        module: nn.Module,
        *,
        low: float,
        high: float,
        in_keys: Iterable[Key] = ("observation",),
        action_key: Key = "action",
        one_hot: bool = False,
        mask_key: Key | None = None,
    ) -> None:
        super().__init__(module, in_keys=in_keys, action_key=action_key, one_hot=one_hot, mask_key=mask_key)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(
                explain(type(self).__name__, expected="finite values, low below high", got=f"{low}, {high}")
            )
        self.low = float(low)
        self.high = float(high)

    def values_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the expected return of each action, the mean over its atoms, ``[*B, A]``."""
        atoms = torch.linspace(self.low, self.high, outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
        return outputs.softmax(-1) @ atoms


class QuantileQValueActor(QValueActor):
    """Take the action whose expected value is highest, from K quantiles of each action's return.

    >>> policy = QuantileQValueActor(nn.Sequential(MLP(4, 64), nn.Unflatten(-1, (2, 32))))
    >>> policy(env.reset())["action_value"].shape
    torch.Size([2, 2])

    Dabney et al., "Distributional Reinforcement Learning with Quantile Regression" (2018),
    https://arxiv.org/abs/1710.10044.

    Args:
        module: observation(s) to quantiles, ``[*B, A, K]``.
        in_keys: as for :class:`QValueActor`, like all that follow.
        action_key: where the action goes.
        one_hot: write actions one-hot.
        mask_key: entry that says which actions are legal.
    """

    num_trailing = 2

    def values_of(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the expected return of each action, the mean of its quantiles, ``[*B, A]``."""
        return outputs.mean(-1)


class ValueEnsemble(Operator):
    """Call E critics of one structure, and write their values side by side in the last dimension.

    >>> ValueEnsemble(lambda: MLP(4, 3), 2, in_keys=["observation"])(env.reset())["action_value"].shape
    torch.Size([2, 3, 2])

    Critics of states and actions give ``state_action_value``, ``[*B, E]``; critics that value every action of a state
    give ``action_value``, ``[*B, A, E]``.

    Args:
        make_module: builds one critic: observation and action to ``[*B, 1]``, or observation to ``[*B, A]``.
        num: E, how many critics.
        in_keys: entries that each is called with.
        out_key: entry to write; None chooses by whether ``"action"`` is read.

    Raises:
        ConfigError: as :class:`Ensemble`.
        SpecError: from a call, critics of state and action give more than one value.
    """

    def __init__(
        self,
        make_module: Callable[[], nn.Module],
        num: int,
        *,
        in_keys: Iterable[Key] = ("observation", "action"),
        out_key: Key | None = None,
    ) -> None:
        in_keys = key_list("ValueEnsemble(in_keys=...)", in_keys)
        judges_action = reads_action(in_keys)
        if out_key is None:
            out_key = "state_action_value" if judges_action else "action_value"
        super().__init__(Ensemble(make_module, num), in_keys=in_keys, out_keys=[out_key])
        self.num = num
        self._reads_action = judges_action

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        (values,) = self._results(tensordict, 1)
        if self._reads_action:
            if values.shape[-1] != 1:
                got = list(values.shape[1:])
                raise SpecError(explain("ValueEnsemble", expected="a value [*B, 1] from each critic", got=got))
            values = values.squeeze(-1)
        write(tensordict, self.out_keys[0], values.movedim(0, -1))
        return tensordict
