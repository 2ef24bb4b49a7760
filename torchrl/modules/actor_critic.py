"""Modules that hold an actor and a critic together, with a shared trunk or without."""

from __future__ import annotations

from collections.abc import Callable

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from torchrl.errors import ConfigError, explain
from torchrl.modules.memory import Stateful
from torchrl.modules.operator import accept_tensors, require_keys
from torchrl.modules.sequence import Sequence, call_all, call_all_aside


class ActorCriticWrapper(Stateful, TensorDictModuleBase):
    """Hold an actor and a critic without a shared trunk; a call runs the actor, then the critic, on one TensorDict.

    >>> both = ActorCriticWrapper(actor, critic)
    >>> both.in_keys, both.out_keys
    (['observation'], ['logits', 'action', 'action_log_prob', 'state_value'])

    Where the critic reads the action, it reads the one that the actor has just written.

    Args:
        actor: an :class:`Actor` or :class:`ProbabilisticActor`.
        critic: a :class:`ValueOperator`, of states, or of states and actions.

    Raises:
        ConfigError: one of them has no keys, or both write a state of the same name.
    """

    def __init__(self, actor: TensorDictModuleBase, critic: TensorDictModuleBase) -> None:
        super().__init__()
        require_keys("ActorCriticWrapper", actor=actor, critic=critic)
        self.actor = actor
        self.critic = critic
        self.in_keys = Sequence(actor, critic).in_keys
        self.out_keys = [*actor.out_keys, *critic.out_keys]
        self.initial_state()  # refuses a state that both write

    @property
    def require_fit(self) -> Callable[..., None]:
        """The actor's method that refuses an action spec that it does not fit."""
        return self.actor.require_fit

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return call_all((self.actor, self.critic), tensordict)


class ActorValueOperator(Stateful, TensorDictModuleBase):
    """Share a trunk between an actor and a critic of the state: both read the features that the trunk computes.

    >>> trunk = Operator(MLP(4, 8), in_keys=["observation"], out_keys=["hidden"])
    >>> both = ActorValueOperator(
    ...     trunk, Actor(MLP(8, 2), in_keys=["hidden"]), ValueOperator(MLP(8, 1), in_keys=["hidden"])
    ... )
    >>> both.actor(env.reset())["action"].shape, both.critic(env.reset())["state_value"].shape
    (torch.Size([2, 2]), torch.Size([2, 1]))

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

    Raises:
        ConfigError: one of the three has no keys.
    """

    def __init__(self, common: TensorDictModuleBase, actor: TensorDictModuleBase, critic: TensorDictModuleBase) -> None:
        super().__init__()
        require_keys(type(self).__name__, common=common, actor=actor, critic=critic)
        self.actor = Sequence(common, actor, out_keys=actor.out_keys)
        self.critic = Sequence(common, critic, out_keys=critic.out_keys)
        self.in_keys = Sequence(common, actor, critic).in_keys
        self.out_keys = [*self.actor.out_keys, *critic.out_keys]

    @property
    def common(self) -> TensorDictModuleBase:
        """The trunk that actor and critic share."""
        return self.actor[0]

    @property
    def require_fit(self) -> Callable[..., None]:
        """The actor's method that refuses an action spec that it does not fit."""
        return self.actor.require_fit

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return call_all_aside((*self.actor, self.critic[1]), tensordict, self._out_keys)


class ActorCriticOperator(ActorValueOperator):
    """Share a trunk between an actor and a critic that also reads the action.

    >>> trunk = Operator(MLP(4, 8), in_keys=["observation"], out_keys=["hidden"])
    >>> judge = ValueOperator(MLP(8 + 2, 1), in_keys=["hidden", "action"])
    >>> both = ActorCriticOperator(trunk, Actor(MLP(8, 2), in_keys=["hidden"]), judge)
    >>> both(env.reset())["state_action_value"].shape
    torch.Size([2, 1])

    As :class:`ActorValueOperator`; the critic judges a state and an action, which it takes from the TensorDict, and
    writes ``state_action_value``. In a call of the whole that is the action which the actor has just chosen.

    Args:
        common: reads the observation, writes features.
        actor: reads the features.
        critic: reads features and action: ``ValueOperator(network, in_keys=["hidden", "action"])``.

    Raises:
        ConfigError: the critic reads nothing that the actor writes.
    """

    def __init__(self, common: TensorDictModuleBase, actor: TensorDictModuleBase, critic: TensorDictModuleBase) -> None:
        super().__init__(common, actor, critic)
        if not any(key in actor.out_keys for key in critic.in_keys):
            expected = f"a critic that reads one of {list(actor.out_keys)}"
            hint = "A critic of the state alone belongs into an ActorValueOperator."
            raise ConfigError(explain("ActorCriticOperator", expected=expected, got=list(critic.in_keys), hint=hint))
