"""Actors and critics of several parts: layers that both share, memories, and state-dependent noise."""

from __future__ import annotations

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules import (
    MLP,
    ActorCriticWrapper,
    ActorValueOperator,
    GSDEHead,
    GSDEMarginal,
    GSDETanhNormal,
    ObservationNormalizer,
    Operator,
    ProbabilisticActor,
    Sequence,
    StateDependentNormalHead,
    TanhNormal,
    ValueOperator,
    orthogonal_init_,
)
from torchrl.modules.distributions.mappings import biased_softplus, bounded
from torchrl.modules.memory import has_memory
from torchrl.recipes.memories import MEMORY_KEYS, make_remembering, put_memory_before, refuse_beside_memory
from torchrl.recipes.memory_parts import MemoryNetworks, seen_key
from torchrl.recipes.network_parts import ActorCriticNetworks, SquashedNetworks
from torchrl.recipes.networks import (
    ACTIVATIONS,
    SQUASHED,
    ActionHead,
    bounded_row,
    chain,
    make_mlp,
    make_trunk,
)

HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = 2**0.5, 0.01, 1.0  # Andrychowicz et al. (2021), section 3.2


def make_actor_critic(
    settings: MemoryNetworks,
    env: Env,
    head: ActionHead,
    normalizer: ObservationNormalizer | None,
    generator: torch.Generator | None = None,
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    """Build an actor and a critic that remember, or of which one's hidden layers are also another's input.

    >>> from torchrl.recipes import make_action_head
    >>> networks = MemoryNetworks(shared_mapping=True)
    >>> policy, value = make_actor_critic(networks, env, make_action_head(networks, env), None)
    >>> value(policy(env.reset()))["state_value"].shape
    torch.Size([2, 1])

    Args:
        settings: with ``memory``, ``shared_mapping`` or ``gsde``.
        env: its observation is one vector, or one image, under ``observation``.
        head: of the actor.
        normalizer: comes first; None leaves observations as they are.
        generator: source of the sampled actions.

    Raises:
        ConfigError: memory together with one of the others.
    """
    make = make_trunk_actor_critic if settings.memory is None else make_memory_actor_critic
    return make(settings, env, head, normalizer, generator)


def make_trunk_actor_critic(
    settings: ActorCriticNetworks,
    env: Env,
    head: ActionHead,
    normalizer: ObservationNormalizer | None,
    generator: torch.Generator | None = None,
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    """Build an actor and a critic, where the critic or state-dependent noise uses the actor's hidden layers.

    The critic shares those layers by ``shared_mapping``; state-dependent noise acts on them by ``gsde``.

    >>> from torchrl.recipes import make_action_head
    >>> networks = ActorCriticNetworks(shared_mapping=True)
    >>> policy, value = make_trunk_actor_critic(networks, env, make_action_head(networks, env), None)
    >>> value(policy(env.reset()))["state_value"].shape
    torch.Size([2, 1])

    Args:
        settings: with ``shared_mapping`` or ``gsde``, or both.
        env: its observation is one vector, or one image, under ``observation``.
        head: of the actor.
        normalizer: a layer before the hidden layers; None leaves observations as they are.
        generator: source of the sampled actions.
    """
    trunk, num_hidden = make_trunk(settings, env), settings.num_cells[-1]
    if settings.gsde:
        body = GSDEHead(num_hidden, head.num_inputs, init_log_std=settings.init_log_std)
        in_keys = ["hidden", "gsde_noise"]
    else:
        body, in_keys = chain(MLP(num_hidden, head.num_inputs, num_cells=()), head.module), ["hidden"]
    if settings.orthogonal_init:
        orthogonal_init_(trunk, last_gain=HIDDEN_GAIN)
        orthogonal_init_(body, last_gain=POLICY_GAIN)
    value = MLP(num_hidden, 1, num_cells=()) if settings.shared_mapping else make_mlp(settings, env, 1)
    if settings.orthogonal_init:
        orthogonal_init_(value, last_gain=VALUE_GAIN)
    common = Operator(chain(normalizer, trunk), in_keys=["observation"], out_keys=["hidden"])
    options = {"in_keys": in_keys, "mask_key": head.mask_key, "generator": generator}
    actor = ProbabilisticActor(body, head.distribution, **options)
    if settings.shared_mapping:
        both = ActorValueOperator(common, actor, ValueOperator(value, in_keys=["hidden"]))
        return both.actor, both.critic
    return Sequence(common, actor, out_keys=actor.out_keys), ValueOperator(chain(normalizer, value))


def make_memory_actor_critic(
    settings: MemoryNetworks,
    env: Env,
    head: ActionHead,
    normalizer: ObservationNormalizer | None,
    generator: torch.Generator | None = None,
) -> tuple[Sequence, Sequence]:
    """Build an actor and a critic that remember: an encoder, a memory of its own, and the hidden layers behind it.

    The critic remembers only what it was run on: let ``ActorCriticWrapper(actor, critic)`` collect. A memory that both
    shared would be trained mostly by the critic, whose gradient is larger by far.

    >>> from torchrl.recipes import make_action_head
    >>> networks = MemoryNetworks(memory="gru", memory_size=8)
    >>> policy, value = make_memory_actor_critic(networks, env, make_action_head(networks, env), None)
    >>> policy.in_keys, value.in_keys
    (['observation', 'memory', 'is_init'], ['observation', 'critic_memory', 'is_init'])

    Args:
        settings: with ``memory``.
        env: its observation is one vector, or one image, under ``observation``.
        head: of the actor.
        normalizer: comes first; None leaves observations as they are.
        generator: source of the sampled actions.

    Raises:
        ConfigError: layers that are shared, or state-dependent noise, which acts on layers without memory.
    """
    refuse_beside_memory(settings, shared_mapping=settings.shared_mapping, gsde=settings.gsde)
    networks = []
    for state_key, num_outputs, gain in zip(MEMORY_KEYS, (head.num_inputs, 1), (POLICY_GAIN, VALUE_GAIN), strict=True):
        encode, remember = make_remembering(settings, env, state_key=state_key, normalizer=normalizer)
        activation = ACTIVATIONS[settings.activation]
        layers = MLP(settings.memory_size, num_outputs, num_cells=settings.num_cells, activation=activation)
        if settings.orthogonal_init:
            orthogonal_init_(layers, last_gain=gain)
        networks.append((encode, remember, layers))
    (*remembers, body), (*judges, value) = networks
    body = chain(body, head.module)
    options = {"in_keys": ["hidden"], "mask_key": head.mask_key, "generator": generator}
    actor = ProbabilisticActor(body, head.distribution, **options)
    critic = ValueOperator(value, in_keys=["hidden"])
    pairs = ((remembers, actor), (judges, critic))
    return tuple(Sequence(*before, end, out_keys=end.out_keys) for before, end in pairs)


def policy_of(actor: TensorDictModuleBase, critic: TensorDictModuleBase) -> TensorDictModuleBase:
    """Return what acts: the actor, or both where the critic remembers, since it has to see the steps that it judges.

    >>> policy_of(actor, critic) is actor
    True
    """
    return ActorCriticWrapper(actor, critic) if has_memory(critic) else actor


def make_squashed_actors(
    settings: SquashedNetworks, env: Env, generator: torch.Generator | None, *, shared: nn.Module | None = None
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    """Build what acts and what a loss trains, with bounded actions: one actor, or with ``gsde`` two that share weights.

    >>> from torchrl.envs import GymEnv
    >>> acts, learns = make_squashed_actors(SquashedNetworks(), GymEnv("Pendulum-v1", num_envs=2), None)
    >>> acts is learns
    True

    Args:
        settings: of the distribution and the layers, perhaps with ``gsde`` or ``memory``.
        env: its observation is one vector, or one image, under ``observation``.
        generator: source of the sampled actions.
        shared: convolutions that the critics train; None makes some of the actor's own.

    Raises:
        ConfigError: ``gsde`` with memory or another distribution than ``tanh_normal``; or actions without bounds.
    """
    if settings.gsde:
        refuse_beside_memory(settings, gsde=True)
        return make_gsde_actors(settings, env, generator)
    spec = bounded_row(env)
    loc_mapping = bounded(5.0) if settings.tanh_loc else None
    head = StateDependentNormalHead(scale_mapping=biased_softplus(settings.init_std), loc_mapping=loc_mapping)
    network = nn.Sequential(make_mlp(settings, env, 2 * spec.shape[-1], shared=shared), head)
    family = SQUASHED[settings.distribution].within(spec.low, spec.high)
    options = {"in_keys": [seen_key(settings)], "log_prob_key": None, "generator": generator}
    actor = put_memory_before(settings, env, ProbabilisticActor(network, family, **options))
    return actor, actor


def make_gsde_actors(
    settings: SquashedNetworks, env: Env, generator: torch.Generator | None
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    """Build two actors that share weights, with state-dependent noise and bounded actions: one acts, a loss trains one.

    >>> from torchrl.envs import GymEnv
    >>> pendulum = GymEnv("Pendulum-v1", num_envs=2)
    >>> acts, learns = make_gsde_actors(SquashedNetworks(gsde=True), pendulum, None)
    >>> learns.build(pendulum.reset()).mean.shape
    torch.Size([2, 1])

    Args:
        settings: with ``gsde``.
        env: its observation is one vector, or one image, under ``observation``.
        generator: source of the sampled actions.

    Raises:
        ConfigError: settings with another distribution than ``tanh_normal``.
    """
    spec = bounded_row(env)
    if settings.distribution != "tanh_normal":
        raise ConfigError(explain("--gsde", expected="--distribution=tanh_normal", got=settings.distribution))
    common = Operator(make_trunk(settings, env), in_keys=["observation"], out_keys=["hidden"])
    head = GSDEHead(settings.num_cells[-1], spec.shape[-1], init_log_std=settings.gsde_log_std)
    options = {"log_prob_key": None, "generator": generator}
    acting, learning = GSDETanhNormal.within(spec.low, spec.high), TanhNormal.within(spec.low, spec.high)
    acts = ProbabilisticActor(head, acting, in_keys=["hidden", "gsde_noise"], **options)
    learns = ProbabilisticActor(GSDEMarginal(head), learning, in_keys=["hidden"], **options)
    return tuple(Sequence(common, actor, out_keys=actor.out_keys) for actor in (acts, learns))
