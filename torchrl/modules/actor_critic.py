"""An actor and a critic on one trunk."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from torchrl.modules.sequence import Sequence, call_all_aside


class ActorValueOperator(TensorDictModuleBase):
    """Share a trunk between an actor and a critic.

    ``actor`` and ``critic`` are operators from the observation on, each of them the trunk followed by its head, with
    the trunk's parameters in both: give them to the collector, the estimator and the losses like separate networks.
    What the trunk writes stays inside, so features are never recorded. Calling the whole computes the trunk once and
    writes action and value.

    Args:
        common: reads the observation, writes features, for example
            ``Operator(network, in_keys=["observation"], out_keys=["hidden"])``.
        actor: reads the features: an :class:`Actor` or :class:`ProbabilisticActor` with ``in_keys=["hidden"]``.
        critic: reads the features: a :class:`ValueOperator` with ``in_keys=["hidden"]``.

    In the ``state_dict`` the trunk appears under both ``actor`` and ``critic``.
    """

    def __init__(self, common: TensorDictModuleBase, actor: TensorDictModuleBase, critic: TensorDictModuleBase) -> None:
        super().__init__()
        self.actor = Sequence(common, actor, out_keys=actor.out_keys)
        self.critic = Sequence(common, critic, out_keys=critic.out_keys)
        self.in_keys = Sequence(common, actor, critic).in_keys
        self.out_keys = [*actor.out_keys, *critic.out_keys]

    @property
    def common(self) -> TensorDictModuleBase:
        """The trunk."""
        return self.actor[0]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return call_all_aside((*self.actor, self.critic[1]), tensordict, self._out_keys)
