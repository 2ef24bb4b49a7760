"""The base of losses that learn values from single transitions and their targets. No algorithm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import unravel_key
from torch import Tensor, nn
from torch.func import functional_call

from torchrl.data.batch_functions import require_batch
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.returns import td0_target
from torchrl.keys import Key
from torchrl.objectives.burn_in import require_memory, warm_up
from torchrl.objectives.costs.base import Loss
from torchrl.objectives.costs.targets import freeze_statistics_
from torchrl.objectives.unrolling import FACTOR, TERMINATED, TRUNCATED, Networks
from torchrl.shapes import require_same_shape

REWARD = ("next", "reward")
WEIGHT = ("replay", "weight")


class TDLoss(Loss):
    """Base of losses that train value networks on transitions ``[*B]`` in any order, such as a sample of replay.

    Networks with memory take sequences ``[*B, T]``, such as slices of replay, which may begin in mid-episode.

    Reads ``("next", "reward")`` and ``("next", "terminated")``, ``[*B, 1]``; and if the batch has them
    ``("next", "gamma")``, ``[*B, 1]``, the discount of an n-step sum (see :class:`~torchrl.data.MultiStep`), which
    replaces γ, and ``("replay", "weight")``, ``[*B]``, the importance weight of a prioritised buffer, which multiplies
    the loss of its row.

    Subclasses return beside their scalars ``td_error``, ``[n]`` of the n valid rows, without gradient and never
    negative: the priorities for a prioritised buffer.

    >>> class Evaluation(TDLoss):  # of the policy that acted: V(s) towards r + γ V(s')
    ...     def __init__(self, critic):
    ...         super().__init__(in_keys=critic.in_keys, next_keys=critic.in_keys, trained=[critic], gamma=0.9)
    ...         self.critic = critic
    ...     def terms(self, rows):
    ...         value = self.critic(rows.copy())["state_value"]
    ...         target = self.target_of(rows, self.critic(rows["next"].copy())["state_value"].detach())
    ...         error = target - value
    ...         return {"loss_value": self.weighted_mean(rows, error**2), "td_error": error.detach().abs().flatten()}
    >>> Evaluation(critic)(batch)["td_error"].shape
    torch.Size([16])

    Args:
        in_keys: the keys that networks read of a state, and the action's.
        next_keys: the keys that networks read of its successor, under ``"next"``.
        trained: the networks that are trained.
        gamma: discount γ.
        networks: as for :class:`Loss`.
        burn_in: how many first steps of each sequence only warm up the state of networks with memory, each by its own
            weights, without gradient; they are no rows of the loss (Kapturowski et al., "Recurrent Experience Replay in
            Distributed Reinforcement Learning", 2019, section 3).
        zero_state: let every sequence begin from the initial state, so that no state is read, nor need be stored;
            otherwise from the one stored at its first step.

    Raises:
        ConfigError: γ is not between 0 and 1; or networks without memory, and a ``burn_in`` or ``zero_state``.
        SpecError: from a call, a sequence not longer than the burn-in.
        KeyMissing: from a call, the batch holds no state.
    """

    def __init__(
        self,
        *,
        in_keys: Iterable[Key],
        next_keys: Iterable[Key],
        trained: Iterable[nn.Module],
        gamma: float,
        networks: Networks | None = None,
        burn_in: int = 0,
        zero_state: bool = False,
    ) -> None:
        networks = Networks(type(self).__name__) if networks is None else networks
        require_memory(networks, burn_in=burn_in, zero_state=zero_state)
        keys = [*in_keys, *(unravel_key(("next", key)) for key in next_keys), REWARD, TERMINATED]
        if zero_state:
            keys = [key for key in keys if key not in networks.state_keys]
        if networks.state_keys:
            keys.append(TRUNCATED)  # where a sequence has a successor that is no step of it
        super().__init__(in_keys=keys, trained=trained, optional_keys=(FACTOR, WEIGHT), networks=networks)
        if not 0 <= gamma <= 1:
            raise ConfigError(explain(type(self).__name__, expected="gamma between 0 and 1", got=gamma))
        self.gamma = gamma
        self.burn_in = burn_in
        self.zero_state = zero_state

    def _valid_rows(self, batch: TensorDictBase) -> TensorDict:
        if self.state_keys:
            require_batch(type(self).__name__, batch)
            batch = warm_up(self.networks, batch, burn_in=self.burn_in, zero_state=self.zero_state)
        rows = super()._valid_rows(batch)
        due = (*rows.batch_size, 1)
        for key in (REWARD, TERMINATED):
            if rows.get(key).shape != due:
                got = f"{list(rows.get(key).shape)} in a batch {list(batch.batch_size)}"
                raise SpecError(explain(type(self).__name__, expected=f"{key!r} of shape [*B, 1]", got=got))
        return rows

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a network and its target, for ``SoftUpdate`` and ``HardUpdate``: none unless overridden."""
        return []

    def train(self, mode: bool = True) -> TDLoss:
        """Set all networks to training or eval mode; batch and instance norms of target networks stay in eval mode.

        In training mode these layers would update their statistics at each loss; a target changes only by its update.
        """
        super().train(mode)
        for _, target in self.targets():
            freeze_statistics_(target)
        return self

    def target_of(self, rows: TensorDict, next_value: Tensor) -> Tensor:
        """Return ``r + γ V(s')``, without the value where the task was over, ``[n, 1]``.

        Args:
            rows: the valid rows.
            next_value: V of the true successor, ``[n, 1]``.
        """
        reward, terminated = rows.get(REWARD), rows.get(TERMINATED)
        return td0_target(reward, next_value, terminated, gamma=self.discount_of(rows))

    def discount_of(self, rows: TensorDict) -> float | Tensor:
        """Return γ, or where the batch has it the discount of each row's n-step sum, ``[n, 1]``.

        Raises:
            SpecError: the discount has another shape than the reward.
        """
        factor = rows.get(FACTOR, None)
        if factor is None:
            return self.gamma
        require_same_shape(type(self).__name__, gamma=factor, reward=rows.get(REWARD))
        return factor

    def weighted_mean(self, rows: TensorDict, loss: Tensor) -> Tensor:
        """Return the mean over rows of ``loss``, ``[n, 1]``, times each row's replay weight if the batch has one.

        Raises:
            SpecError: there is not one weight for each row.
        """
        weight = rows.get(WEIGHT, None)
        if weight is None:
            return loss.mean()
        if weight.shape != loss.shape[:-1]:
            expected = f"a replay weight of shape {list(loss.shape[:-1])}"
            raise SpecError(explain(type(self).__name__, expected=expected, got=list(weight.shape)))
        return (loss * weight.unsqueeze(-1)).mean()


def call_frozen(module: TensorDictModuleBase, tensordict: TensorDictBase) -> TensorDictBase:
    """Call a module on a TensorDict, with gradient to the entries that it reads but not to its parameters.

    >>> seen = torch.zeros(2, 4, requires_grad=True)
    >>> call_frozen(critic, TensorDict({"observation": seen}, [2]))["state_value"].sum().backward()
    >>> seen.grad is None, next(critic.parameters()).grad is None
    (False, True)

    Args:
        module: reads the entries, and writes into the TensorDict.
        tensordict: ``[*B]``.
    """
    if torch.compiler.is_compiling():  # a graph cannot change what requires a gradient
        detached = {name: parameter.detach() for name, parameter in module.named_parameters()}
        return functional_call(module, detached, (tensordict,))
    trained = [parameter for parameter in _parameters_of(module) if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        return module(tensordict)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """List a module's parameters, shared ones perhaps twice, in less than half the time of ``parameters()``."""
    found: list[nn.Parameter] = []
    pending = [module]
    while pending:
        part = pending.pop()
        found += [parameter for parameter in part._parameters.values() if parameter is not None]
        pending += [child for child in part._modules.values() if child is not None]
    return found
