"""The price of ending an option, so that options last longer than a step."""

from __future__ import annotations

from tensordict import TensorDict
from torch import Tensor, nn

from torchrl.errors import ConfigError, explain
from torchrl.modules import Options, Sequence
from torchrl.objectives.costs.base import Coefficient, Loss
from torchrl.objectives.unrolling import Networks


class TerminationLoss(Loss):
    """Charge each step that an option runs for the probability that it ends: ``L = ξ · mean β_o(s)``.

    >>> from torchrl.modules import Categorical, Options, PerOption, ProbabilisticActor
    >>> names = ["observation", ("option", "index")]
    >>> worker = ProbabilisticActor(PerOption(MLP(4, 6), 3), Categorical, in_keys=names)
    >>> loss = TerminationLoss(Options(3, MLP(4, 3), worker, termination=MLP(4, 3)), coef=0.01)
    >>> rows = {"observation": torch.zeros(2, 4), "option": {"running": torch.tensor([0, 3]), "age": torch.ones(2)}}
    >>> sorted(loss(TensorDict(rows, [2])).keys())
    ['loss_termination', 'termination']

    Bacon, Harb and Precup, "The Option-Critic Architecture" (2017), https://arxiv.org/abs/1609.05140, section 5: ξ is
    added to the advantage A(s, o) of going on, by which the gradient ∇β (A(s, o) + ξ) lowers β; without it options
    shrink to one step, since a choice can be made anew at any of them. Harb et al., "When Waiting is not an Option"
    (2018), https://arxiv.org/abs/1709.04571, call it a deliberation cost. Beside the loss of a policy, by
    :class:`JointLoss`, whose advantages are what it is measured against.

    Returns ``loss_termination`` and, to be logged, ``termination``, the mean of β; steps where no option ran do not
    count, and where there is no other both are 0.

    Args:
        actor: :class:`~torchrl.modules.Options`, or a sequence that ends with one.
        coef: ξ. May be scheduled.

    Raises:
        ConfigError: another actor, or options without ``termination``.
    """

    coef = Coefficient(least=0.0)

    def __init__(self, actor: Options, *, coef: float = 0.01) -> None:
        who = type(self).__name__
        before, head = (list(actor)[:-1], actor[-1]) if isinstance(actor, Sequence) else ([], actor)
        if not isinstance(head, Options) or head.termination is None:
            got = "Options without it" if isinstance(head, Options) else type(head).__name__
            raise ConfigError(explain(who, expected="Options(..., termination=network)", got=got))
        trained = nn.ModuleList([*before, head.termination])
        super().__init__(in_keys=actor.in_keys, trained=[trained], networks=Networks(who, actor=actor))
        self.trained = trained
        self.coef = coef

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_termination`` and ``termination``."""
        ending, runs = self.networks.head("actor").termination_of(self.networks.here(rows, "actor"))
        mean = (ending * runs).sum() / runs.sum().clamp(min=1)
        return {"loss_termination": self._coef * mean, "termination": mean.detach()}
