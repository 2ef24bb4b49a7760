"""Rewards for novelty: how badly a network predicts what a step led to. Who trains it: ``RNDLoss`` and ``ICMLoss``."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torch.nn import functional as F

from torchrl.counts import is_count
from torchrl.errors import ConfigError, NonFiniteError, SpecError, explain
from torchrl.functional.curiosity import inverse_model_loss, prediction_error, return_so_far
from torchrl.keys import Key, key_list
from torchrl.misspelling import Extensible
from torchrl.modules.normalizer import ObservationNormalizer
from torchrl.modules.operator import accept_tensors, read, write
from torchrl.moments import count_rows_

MASK = ("collector", "mask")
NO_SPREAD = 1e-16  # a variance below this is rounding noise


class CuriosityModule(Extensible, TensorDictModuleBase):
    """Base of modules that write the reward for novelty: an error, divided by the deviation of its discounted sum.

    >>> class Surprise(CuriosityModule):
    ...     def error(self, tensordict):
    ...         return critic(tensordict["next"].copy())["state_value"].square()
    >>> surprise = Surprise(in_keys=[("next", "observation")], gamma=None)
    >>> surprise(batch)["intrinsic_reward"].shape
    torch.Size([2, 8, 1])

    The reward carries no gradient. A subclass writes :meth:`error`, which has one.

    The statistics are buffers, in float64, and change in :meth:`update` alone, which
    :class:`~torchrl.data.IntrinsicReward` calls; a call of the module, or of the loss that trains it, does not. A
    checkpoint that holds the module, or the loss, holds them.

    Args:
        in_keys: what :meth:`error` reads.
        out_key: where the reward goes, ``[*B, 1]``.
        gamma: discount γ of the sum whose running deviation divides the error, by 1 before the first :meth:`update`;
            None divides by nothing.

    Raises:
        ConfigError: γ is not between 0 and 1.
    """

    def __init__(self, *, in_keys: list[Key], out_key: Key = "intrinsic_reward", gamma: float | None) -> None:
        super().__init__()
        who = type(self).__name__
        if gamma is not None and not 0 <= gamma <= 1:
            raise ConfigError(explain(who, expected="gamma between 0 and 1, or None", got=gamma))
        self.in_keys = key_list(f"{who}(in_keys=...)", in_keys)
        self.out_keys = [out_key]
        self.gamma = gamma
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("var", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(()))
        self._returns = torch.zeros(0, dtype=torch.float64)  # of the rows of the last batch, where it ended

    def error(self, tensordict: TensorDictBase) -> torch.Tensor:
        """Return how badly each step was predicted, ``[*B, 1]``, with a gradient; write nothing."""
        raise NotImplementedError

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        with torch.no_grad():
            reward = self.error(tensordict) * self._buffers["scale"]
        write(tensordict, self.out_keys[0], reward)
        return tensordict

    @torch.no_grad()
    def update(self, batch: TensorDictBase) -> None:
        """Add the discounted sums of errors of a collected batch ``[*B, T]`` to the statistics; not in eval mode.

        Each row continues its sum from the same row of the last batch, also over endings; if the number of rows has
        changed, all sums start at 0. Steps that ``("collector", "mask")`` excludes do not count.

        Args:
            batch: as collected, time last; neither shuffled nor written to.

        Raises:
            KeyMissing: an entry that the module reads is not there.
            SpecError: the batch has no time dimension.
            NonFiniteError: an error of a step that counts is NaN or infinite; the statistics of errors do not change.
        """
        if not self.training:
            return
        who = f"{type(self).__name__}.update"
        if not batch.batch_dims:
            raise SpecError(explain(who, expected="a batch [*B, T]", got="one without dimensions"))
        if self.gamma is None:
            return
        mask = batch.get(MASK, None)
        mask = None if mask is None else mask.unsqueeze(-1)
        error = self.error(batch).double()
        size = error.shape[:-2]
        is_new = size.numel() != len(self._returns)
        start = error.new_zeros(*size, 1) if is_new else self._returns.to(error.device).reshape(*size, 1)
        returns = return_so_far(error, start, gamma=self.gamma, mask=mask)
        counted = returns.reshape(-1, 1) if mask is None else returns[mask].unsqueeze(-1)
        if not bool(counted.isfinite().all()):
            hint = "Look at the loss that trains it, and at the observations, which it may read without a normaliser."
            raise NonFiniteError(explain(who, expected="finite errors", got="NaN or infinity", hint=hint))
        count_rows_(who, (self.count, self.mean, self.var), counted)
        self._returns = returns[..., -1, :].flatten().cpu()
        self.scale.copy_(torch.where(self.var > NO_SPREAD, self.var.rsqrt(), 1).squeeze(0))

    def get_extra_state(self) -> list[float]:
        """Return the sums at the end of the last batch: as many as it had rows, so no buffer can hold them."""
        return self._returns.tolist()

    def set_extra_state(self, state: list[float]) -> None:
        """Set the sums to those of :meth:`get_extra_state`."""
        self._returns = torch.tensor(state, dtype=torch.float64)


class RandomNetworkDistillation(CuriosityModule):
    """Write the reward of random network distillation: ``‖f̂(s') - f(s')‖²`` with f random and fixed, f̂ trained.

    >>> rnd = RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4)
    >>> rnd.update(batch)
    >>> rnd(batch)["intrinsic_reward"].shape
    torch.Size([2, 8, 1])

    Burda et al., "Exploration by Random Network Distillation" (2018), https://arxiv.org/abs/1810.12894. What has been
    seen often is predicted well. Observations are normalised by their running mean and deviation and clipped to ±5
    (section 2.4), the error is divided by the running deviation of its discounted sum; both statistics change in
    :meth:`update` alone, once per collected batch. :class:`~torchrl.objectives.RNDLoss` trains f̂,
    :class:`~torchrl.data.IntrinsicReward` calls :meth:`update` and adds the reward to a batch.

    Args:
        predictor: f̂, observation ``[*B, *shape]`` to features ``[*B, F]``.
        target: f, the same with other random weights. It is frozen here and stays in eval mode.
        shape: of one observation, an int or a sequence; None takes observations as they are.
        clip: normalised observations are clipped to ±this.
        gamma: discount γ of the sum by whose deviation the error is divided, by 1 before the first :meth:`update`;
            None leaves the error alone.
        in_key: what is to be predicted; ``("next", "observation")`` pays a step for where it led.
        out_key: where the reward goes.

    Raises:
        ConfigError: the two networks share parameters, or a number is out of its range.
    """

    def __init__(
        self,
        predictor: nn.Module,
        target: nn.Module,
        *,
        shape: int | tuple[int, ...] | None,
        clip: float = 5.0,
        gamma: float | None = 0.99,
        in_key: Key = ("next", "observation"),
        out_key: Key = "intrinsic_reward",
    ) -> None:
        super().__init__(in_keys=[in_key], out_key=out_key, gamma=gamma)
        of_target = {id(parameter) for parameter in target.parameters()}
        if any(id(parameter) in of_target for parameter in predictor.parameters()):
            hint = "Build two: RandomNetworkDistillation(MLP(4, 16), MLP(4, 16), shape=4)."
            got = "a predictor that shares parameters with its target"
            raise ConfigError(explain("RandomNetworkDistillation", expected="two networks", got=got, hint=hint))
        self.normalizer = None if shape is None else ObservationNormalizer(shape, clip=clip)
        self.predictor = predictor
        self.target = target.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> RandomNetworkDistillation:
        """Set the mode of all parts but the target, which stays in eval mode: dropout would change its function."""
        super().train(mode)
        self.target.eval()
        return self

    def error(self, tensordict: TensorDictBase) -> torch.Tensor:
        """Return ``‖f̂ - f‖²`` of each row, ``[*B, 1]``, with a gradient to the predictor alone."""
        (observation,) = read(tensordict, self.in_keys, "RandomNetworkDistillation")
        if self.normalizer is not None:
            observation = self.normalizer(observation)
        return prediction_error(self.predictor(observation), self.target(observation).detach())

    @torch.no_grad()
    def update(self, batch: TensorDictBase) -> None:
        """Add a collected batch ``[*B, T]`` to the statistics of observations, then to those of errors.

        Raises:
            NonFiniteError: an observation that counts is NaN or infinite; no statistics change.
        """
        if self.normalizer is not None and self.training:
            (observation,) = read(batch, self.in_keys, "RandomNetworkDistillation.update")
            self.normalizer.update(observation, mask=batch.get(MASK, None))
        super().update(batch)


class IntrinsicCuriosity(CuriosityModule):
    """Write the reward of the intrinsic curiosity module: ``η/2 ‖φ̂(φ(s), a) - φ(s')‖²``.

    >>> icm = IntrinsicCuriosity(MLP(4, 16), MLP(32, 2), MLP(16 + 2, 16), num_actions=2)
    >>> icm(batch)["intrinsic_reward"].shape
    torch.Size([2, 8, 1])

    Pathak et al., "Curiosity-driven Exploration by Self-supervised Prediction" (2017),
    https://arxiv.org/abs/1705.05363, equations 3 to 6. The features φ are trained to tell which action lies between two
    states, so that they hold what actions can change, and noise that they cannot change pays nothing.
    :class:`~torchrl.objectives.ICMLoss` trains all three networks. With ``gamma`` the error is divided by a running
    deviation, which moves only in ``update(batch)``: :class:`~torchrl.data.IntrinsicReward` calls it for each batch.

    Args:
        features: φ, observation ``[*B, ...]`` to ``[*B, F]``.
        inverse: φ(s) and φ(s') to the action: logits ``[*B, A]`` of choices, or a vector ``[*B, A]``.
        dynamics: φ(s) and the action ``[*B, A]``, one-hot where it is a choice, to the next features ``[*B, F]``.
        num_actions: number of choices, of an integer action ``[*B]``; None for vectors of floats ``[*B, A]``.
        one_hot: choices come one-hot, ``[*B, A]``.
        eta: η, a factor.
        gamma: discount of the sum by whose running deviation the error is divided, by 1 before the first ``update``;
            None, as in the paper, leaves the error alone.
        in_keys: observation, action, and the observation that the step led to.
        out_key: where the reward goes.

    Raises:
        ConfigError: a number is out of its range, or there are not three ``in_keys``.
    """

    def __init__(
        self,
        features: nn.Module,
        inverse: nn.Module,
        dynamics: nn.Module,
        *,
        num_actions: int | None,
        one_hot: bool = False,
        eta: float = 1.0,
        gamma: float | None = None,
        in_keys: tuple[Key, Key, Key] = ("observation", "action", ("next", "observation")),
        out_key: Key = "intrinsic_reward",
    ) -> None:
        super().__init__(in_keys=in_keys, out_key=out_key, gamma=gamma)
        is_odd = one_hot if num_actions is None else not is_count(num_actions)
        if len(self.in_keys) != 3 or not eta > 0 or is_odd:
            expected = "three in_keys, a positive eta, and num_actions of at least 1 where actions are choices"
            got = f"in_keys={self.in_keys}, eta={eta}, num_actions={num_actions}"
            raise ConfigError(explain("IntrinsicCuriosity", expected=expected, got=got))
        self.features = features
        self.inverse = inverse
        self.dynamics = dynamics
        self.num_actions = num_actions
        self.one_hot = one_hot
        self.eta = eta

    def error(self, tensordict: TensorDictBase) -> torch.Tensor:
        """Return ``η/2 ‖φ̂ - φ‖²`` of each row, ``[*B, 1]``, with a gradient to the dynamics alone."""
        return self.eta * self.errors(tensordict)[1]

    def errors(self, tensordict: TensorDictBase) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the errors of the inverse model and of the dynamics, ``½ ‖φ̂ - φ‖²``, ``[*B, 1]`` each.

        The gradient of the first reaches features and inverse model, that of the second the dynamics alone: features
        that were trained to be predictable would become constant.
        """
        observation, action, after = read(tensordict, self.in_keys, "IntrinsicCuriosity")
        now, then = self.features(observation), self.features(after)
        choice, vector = self._action(action)
        guessed = inverse_model_loss(self.inverse(now, then), choice)
        predicted = self.dynamics(now.detach(), vector.to(now.dtype))
        return guessed, 0.5 * prediction_error(predicted, then.detach())

    def _action(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the action as the inverse model's target and as the vector that the dynamics read.

        Raises:
            SpecError: it is a vector of floats where choices are due, or the other way round, or no choice.
        """
        is_vector = action.is_floating_point()
        if not self.one_hot and is_vector != (self.num_actions is None):
            expected = "vectors of floats" if self.num_actions is None else "choices, integers [*B]"
            hint = "num_actions is the number of choices, or None for vectors; one_hot=True for one-hot choices."
            got = f"{action.dtype} of shape {list(action.shape)}"
            raise SpecError(explain("IntrinsicCuriosity, action", expected=expected, got=got, hint=hint))
        if self.num_actions is None:
            return action, action
        if self.one_hot:
            return action.long().argmax(-1), action
        try:
            return action, F.one_hot(action.long(), self.num_actions)
        except RuntimeError as error:
            who, expected = "IntrinsicCuriosity, action", f"choices below {self.num_actions}"
            got = f"{int(action.min())} to {int(action.max())}"
            raise SpecError(explain(who, expected=expected, got=got)) from error
