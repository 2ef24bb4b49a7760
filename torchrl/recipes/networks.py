"""Build parts of networks: encoders that fit the env's observations, and last layers that fit its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.data import specs
from torchrl.data.specs import Bounded, TensorSpec
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Env
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key
from torchrl.modules import (
    GRU,
    LSTM,
    MLP,
    ActorCriticWrapper,
    ActorValueOperator,
    Bernoulli,
    Categorical,
    ConvNet,
    Encoded,
    GSDEHead,
    GSDEMarginal,
    GSDENormal,
    GSDETanhNormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    Memory,
    MultiCategorical,
    Normal,
    NormalHead,
    ObservationNormalizer,
    OneHotCategorical,
    Operator,
    ProbabilisticActor,
    Sequence,
    TanhNormal,
    Transformer,
    TruncatedNormal,
    ValueOperator,
    orthogonal_init_,
)
from torchrl.modules.memory import has_memory
from torchrl.recipes.observations import sees_images
from torchrl.recipes.parts import ActorCriticNetworks, MemoryNetworks, Networks, SquashedNetworks

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
SQUASHED = {"tanh_normal": TanhNormal, "truncated_normal": TruncatedNormal}
MEMORIES = {"gru": GRU, "lstm": LSTM, "transformer": Transformer}
MEMORY_KEYS = ("memory", "critic_memory")  # of the actor's state and of the critic's
HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = 2**0.5, 0.01, 1.0  # Andrychowicz et al. (2021), section 3.2


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Seed the weights of modules built in a ``with`` block; torch's global generator is put back afterwards.

    >>> with initial_weights(0):
    ...     one = nn.Linear(2, 2)
    >>> with initial_weights(0):
    ...     torch.equal(nn.Linear(2, 2).weight, one.weight)
    True
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield


# ---- what is observed ------------------------------------------------------------------------------------------------


def make_mlp(settings: Networks, env: Env, num_outputs: int, *, beside: int = 0) -> nn.Module:
    """Build a network that maps the observation to ``num_outputs`` numbers: an MLP, behind convolutions for an image.

    >>> make_mlp(Networks(num_cells=(8,)), env, 3)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])

    Args:
        settings: the hidden layers.
        env: its observation is one vector, or one image, under ``observation``.
        num_outputs: numbers per row.
        beside: size of a second input, such as an action.

    Raises:
        ConfigError: the observation is neither, or an image too small for the convolutions.
    """
    encoder, num_features = make_encoder(env)
    activation = ACTIVATIONS[settings.activation]
    network = MLP(num_features + beside, num_outputs, num_cells=settings.num_cells, activation=activation)
    return behind(encoder, network)


def make_trunk(settings: Networks, env: Env) -> nn.Module:
    """Build the network of :func:`make_mlp` without its last linear layer: it ends with an activation.

    >>> make_trunk(Networks(num_cells=(8, 6)), env)(torch.zeros(5, 4)).shape
    torch.Size([5, 6])
    """
    *cells, num_hidden = settings.num_cells
    encoder, num_features = make_encoder(env)
    activation = ACTIVATIONS[settings.activation]
    layers = MLP(num_features, num_hidden, num_cells=cells, activation=activation)
    return behind(encoder, nn.Sequential(layers, activation()))


def make_encoder(env: Env) -> tuple[nn.Module | None, int]:
    """Return the convolutions for an image (None for a vector), and how many features they give to the next layer.

    >>> make_encoder(env)
    (None, 4)

    Raises:
        ConfigError: the observation is neither a vector nor an image, or the image is too small for the convolutions.
    """
    if not sees_images(env):
        return None, num_features_of(env)
    channels, height, width = env.observation_spec["observation"].shape[-3:]
    encoder = ConvNet(channels)
    try:
        return encoder, encoder.num_features(height, width)
    except SpecError as error:
        raise ConfigError(explain("--image_size", expected="an image for the convolutions", got=error)) from error


def num_features_of(env: Env) -> int:
    """Return the size of the observation, or refuse one that is not a single vector of floats.

    >>> num_features_of(env)
    4

    Raises:
        ConfigError: the observation is something else.
    """
    spec = env.observation_spec.get("observation")
    is_vector = isinstance(spec, LeafSpec) and len(spec.shape) == len(env.batch_size) + 1
    if not is_vector or spec.dtype != torch.float32:
        hint = "Networks for other observations are composed in Python."
        expected = "one vector of floats, or one image of bytes, under 'observation'"
        raise ConfigError(explain("networks", expected=expected, got=env.observation_spec, hint=hint))
    return spec.shape[-1]


def behind(encoder: nn.Module | None, network: nn.Module) -> nn.Module:
    """Return a module that applies ``encoder``, then ``network``; without an encoder, ``network`` itself.

    >>> behind(None, nn.Linear(4, 2))
    Linear(in_features=4, out_features=2, bias=True)
    """
    return network if encoder is None else Encoded(encoder, network)


def chain(*modules: nn.Module | None) -> nn.Module:
    """Return a module that applies the given modules in their order; each None is left out.

    >>> chain(None, nn.Tanh())
    Tanh()
    """
    present = [module for module in modules if module is not None]
    return present[0] if len(present) == 1 else nn.Sequential(*present)


# ---- what an action is -----------------------------------------------------------------------------------------------


def row_spec(env: Env) -> TensorSpec:
    """Return the spec of the action of one row.

    >>> row_spec(env)
    Categorical(n=2, shape=[], dtype=int64)
    """
    return env.action_spec[(0,) * len(env.batch_size)]


def bounded_row(env: Env) -> Bounded:
    """Return the spec of one row's action, or refuse an environment whose actions are no bounded floats.

    >>> from torchrl.envs import GymEnv
    >>> bounded_row(GymEnv("Pendulum-v1", num_envs=2)).high
    tensor([2.])

    Raises:
        ConfigError: the environment has other actions.
    """
    spec = env.action_spec
    if not isinstance(spec, Bounded) or not spec.dtype.is_floating_point:
        expected = "a task with a vector of bounded actions"
        hint = "Choices are learned by the examples dqn, sac, ppo, a2c, impala and reinforce."
        raise ConfigError(explain("--env_name", expected=expected, got=spec, hint=hint))
    return row_spec(env)


def is_choice(env: Env) -> bool:
    """Answer whether an env's action is one discrete choice: an index ``[*B]``, or a one-hot vector ``[*B, n]``.

    >>> is_choice(env)
    True
    """
    spec = env.action_spec
    num_dims = len(spec.shape) - len(env.batch_size)
    return isinstance(spec, specs.Categorical if num_dims == 0 else specs.OneHot) and num_dims <= 1


def require_choice(env: Env) -> None:
    """Refuse an environment whose action is not one discrete choice, see :func:`is_choice`.

    >>> require_choice(env)

    Raises:
        ConfigError: it has other actions.
    """
    if not is_choice(env):
        hint = "DDPG, TD3 and SAC have continuous actions."
        raise ConfigError(explain("networks", expected="one choice as the action", got=env.action_spec, hint=hint))


def choice_distribution(env: Env) -> type:
    """Return the distribution class for an env of one discrete action: over indices, or over one-hot vectors.

    >>> choice_distribution(env).__name__
    'Categorical'
    """
    has_mask = env.action_mask_key is not None
    if isinstance(env.action_spec, specs.OneHot):
        return MaskedOneHotCategorical if has_mask else OneHotCategorical
    return MaskedCategorical if has_mask else Categorical


@dataclass
class ActionHead:
    """Describe the end of an actor, behind its hidden layers: a module, and the distribution that it parametrises.

    >>> ActionHead(2, Categorical).module is None  # the two numbers are the logits
    True

    Attributes:
        num_inputs: how many numbers per row the hidden layers must give.
        distribution: of the actions.
        module: turns these numbers into the parameters of the distribution; None where they are the parameters.
        mask_key: the observation that says which actions are legal, if the environment has one.
    """

    num_inputs: int
    distribution: Callable
    module: nn.Module | None = None
    mask_key: Key | None = None


def make_action_head(settings: ActorCriticNetworks, env: Env) -> ActionHead:
    """Return the action distribution that fits the env's action spec, and the module that gives its parameters.

    >>> head = make_action_head(ActorCriticNetworks(), env)
    >>> head.num_inputs, head.distribution.__name__
    (2, 'Categorical')

    Raises:
        ConfigError: no distribution fits the actions, or the settings do not.
    """
    spec, mask_key = env.action_spec, env.action_mask_key
    num_dims = len(spec.shape) - len(env.batch_size)
    is_real = isinstance(spec, LeafSpec) and spec.dtype.is_floating_point
    if not is_real and settings.distribution != "normal":
        hint = "Discrete actions have a distribution of their own."
        raise ConfigError(
            explain(f"--distribution={settings.distribution}", expected="continuous actions", got=spec, hint=hint)
        )
    if is_choice(env):
        return ActionHead(spec.n, choice_distribution(env), mask_key=mask_key)
    if isinstance(spec, specs.MultiCategorical) and num_dims == 1:
        nvec = row_spec(env).nvec.tolist()
        return ActionHead(sum(nvec), MultiCategorical.of(nvec), mask_key=mask_key)
    if isinstance(spec, specs.Binary) and num_dims == 1:
        return ActionHead(spec.shape[-1], partial(Bernoulli, dtype=spec.dtype))
    if not is_real or num_dims != 1:
        hint = "Networks for other actions are composed in Python."
        raise ConfigError(explain("networks", expected="discrete actions or a vector of floats", got=spec, hint=hint))
    if settings.gsde and settings.distribution != "normal":
        raise ConfigError(explain("--gsde", expected="--distribution=normal", got=settings.distribution))
    if settings.gsde:
        return ActionHead(spec.shape[-1], GSDENormal)
    module = NormalHead(spec.shape[-1], init_log_std=settings.init_log_std)
    if settings.distribution == "normal":
        return ActionHead(spec.shape[-1], Normal, module)
    if not isinstance(spec, Bounded):
        raise ConfigError(explain(f"--distribution={settings.distribution}", expected="bounded actions", got=spec))
    row = row_spec(env)
    return ActionHead(spec.shape[-1], SQUASHED[settings.distribution].within(row.low, row.high), module)


# ---- networks of several parts ---------------------------------------------------------------------------------------


def make_actor_critic(
    settings: MemoryNetworks,
    env: Env,
    head: ActionHead,
    normalizer: ObservationNormalizer | None,
    generator: torch.Generator | None = None,
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    """Build an actor and a critic that remember, or of which one's hidden layers are also another's input.

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
    for name in ("shared_mapping", "gsde"):
        if getattr(settings, name):
            expected = f"--memory=none, or --no-{name}"
            raise ConfigError(explain("--memory", expected=expected, got=f"{settings.memory} with --{name}"))
    networks = []
    for state_key, num_outputs, gain in zip(MEMORY_KEYS, (head.num_inputs, 1), (POLICY_GAIN, VALUE_GAIN), strict=True):
        encoder, num_features = make_encoder(env)
        seen = chain(normalizer, encoder, nn.Identity())
        before = Operator(seen, in_keys=["observation"], out_keys=["features"])
        cell = make_memory(settings, num_features, in_keys=["features"], state_key=state_key)
        activation = ACTIVATIONS[settings.activation]
        layers = MLP(settings.memory_size, num_outputs, num_cells=settings.num_cells, activation=activation)
        if settings.orthogonal_init:
            orthogonal_init_(layers, last_gain=gain)
        networks.append((before, cell, layers))
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


def make_memory(settings: MemoryNetworks, num_features: int, **options: object) -> Memory:
    """Build the module that remembers, of the kind and size in the settings.

    >>> make_memory(MemoryNetworks(memory="lstm", memory_size=8), 4).state_shape
    torch.Size([1, 2, 8])

    Args:
        settings: with ``memory``.
        num_features: numbers that it reads.
        **options: of :class:`~torchrl.modules.Memory`.
    """
    if settings.memory == "transformer":
        options["window"] = settings.window
    return MEMORIES[settings.memory](num_features, settings.memory_size, **options)


def initial_memory(settings: MemoryNetworks, keys: Iterable[str] = MEMORY_KEYS) -> TensorDict:
    """Return the state that actor and critic start an episode from, for the primer of the environment.

    >>> sorted(initial_memory(MemoryNetworks(memory="gru")).keys())
    ['critic_memory', 'memory']

    Args:
        settings: with ``memory`` and ``memory_size``.
        keys: of the states; without a critic that remembers, the actor's alone.
    """
    state = TensorDict()
    with initial_weights(0):  # of modules that are only asked for their shapes
        for key in keys:
            state.update(make_memory(settings, 1, state_key=key).initial_state())
    return state


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
