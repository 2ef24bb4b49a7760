"""Build parts of networks: encoders that fit the env's observations, and last layers that fit its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.data import specs
from torchrl.data.specs import Bounded, TensorSpec, Unbounded
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Env
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key
from torchrl.modules import (
    MLP,
    Bernoulli,
    Categorical,
    ConvNet,
    Detached,
    Encoded,
    GSDENormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    NormalHead,
    OneHotCategorical,
    Operator,
    ResidualConvNet,
    Sequence,
    TanhNormal,
    TruncatedNormal,
    ValueEnsemble,
)
from torchrl.modules.models.image_encoder import ImageEncoder
from torchrl.recipes.memory_parts import remembers, seen_key
from torchrl.recipes.network_parts import ActorCriticNetworks, Networks, SquashedNetworks
from torchrl.recipes.observations import sees_images

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
ENCODERS = {
    "drq": (partial(ConvNet, kernel_sizes=(3, 3, 3, 3), strides=(2, 1, 1, 1)), (32, 32, 32, 32)),
    "impala": (ResidualConvNet, (16, 32, 32)),
    "nature": (ConvNet, (32, 64, 64)),
}
SQUASHED = {"tanh_normal": TanhNormal, "truncated_normal": TruncatedNormal}


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


def make_mlp(
    settings: Networks, env: Env, num_outputs: int, *, beside: int = 0, shared: nn.Module | None = None
) -> nn.Module:
    """Build a network that maps the observation to ``num_outputs`` numbers: an MLP, behind convolutions for an image.

    With ``memory`` in the settings it maps what the memory remembers instead.

    >>> make_mlp(Networks(num_cells=(8,)), env, 3)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])

    Args:
        settings: the hidden layers.
        env: its observation is one vector, or one image, under ``observation``.
        num_outputs: numbers per row.
        beside: size of a second input, such as an action.
        shared: convolutions that another network trains; None makes some of the network's own.

    Raises:
        ConfigError: the observation is neither, or an image too small for the convolutions.
    """
    if shared is None:
        encoder, num_features = make_front(settings, env)
    else:
        encoder, num_features = chain(Detached(shared), _reduction(settings, env, shared)), settings.image_features
    activation = ACTIVATIONS[settings.activation]
    network = MLP(num_features + beside, num_outputs, num_cells=settings.num_cells, activation=activation)
    return behind(encoder, network)


def make_trunk(settings: Networks, env: Env) -> nn.Module:
    """Build the network of :func:`make_mlp` without its last linear layer: it ends with an activation.

    >>> make_trunk(Networks(num_cells=(8, 6)), env)(torch.zeros(5, 4)).shape
    torch.Size([5, 6])
    """
    *cells, num_hidden = settings.num_cells
    encoder, num_features = make_encoder(settings, env)
    activation = ACTIVATIONS[settings.activation]
    layers = MLP(num_features, num_hidden, num_cells=cells, activation=activation)
    return behind(encoder, nn.Sequential(layers, activation()))


def make_front(settings: Networks, env: Env) -> tuple[nn.Module | None, int]:
    """Return what stands before a network's layers, as :func:`make_encoder`; behind a memory nothing does.

    >>> from torchrl.recipes import MemoryNetworks
    >>> make_front(Networks(), env), make_front(MemoryNetworks(memory="gru", memory_size=8), env)
    ((None, 4), (None, 8))

    Args:
        settings: perhaps with ``memory``.
        env: its observation is one vector, or one image, under ``observation``.

    Raises:
        ConfigError: as :func:`make_encoder`.
    """
    if remembers(settings):
        return None, settings.memory_size
    return make_encoder(settings, env)


def make_encoder(settings: Networks, env: Env) -> tuple[nn.Module | None, int]:
    """Return the convolutions for an image (None for a vector), and how many features they give to the next layer.

    >>> make_encoder(Networks(encoder="impala"), env)
    (None, 4)

    Args:
        settings: which convolutions, and how wide.
        env: its observation is one vector, or one image, under ``observation``.

    Raises:
        ConfigError: the observation is neither a vector nor an image, or the image is too small for the convolutions.
    """
    if not sees_images(env):
        return None, num_features_of(env)
    channels, height, width = env.observation_spec["observation"].shape[-3:]
    make, num_cells = ENCODERS[settings.encoder]
    encoder = make(channels, num_cells=[max(round(num * settings.encoder_width), 1) for num in num_cells])
    try:
        return encoder, encoder.num_features(height, width)
    except SpecError as error:
        raise ConfigError(explain("--image_size", expected="an image for the convolutions", got=error)) from error


def make_shared_encoder(settings: SquashedNetworks, env: Env) -> nn.Module | None:
    """Return convolutions that actor and critics share, or None where settings or vectors ask for none.

    >>> make_shared_encoder(SquashedNetworks(share_encoder=True), env) is None  # a vector
    True

    Yarats et al., "Improving Sample Efficiency in Model-Free Reinforcement Learning from Images" (2021),
    https://arxiv.org/abs/1910.01741, section 4; what reduces the features is in appendix B.1.

    Raises:
        ConfigError: state-dependent noise, which acts on layers of its own.
    """
    if settings.share_encoder and settings.gsde:
        raise ConfigError(explain("--share_encoder", expected="--no-gsde", got="--gsde"))
    return make_encoder(settings, env)[0] if settings.share_encoder else None


def make_critics(
    settings: SquashedNetworks, env: Env, num: int, *, shared: nn.Module | None = None
) -> TensorDictModuleBase:
    """Build critics of every choice, or of an observation with an action, as one module.

    >>> make_critics(SquashedNetworks(num_cells=(8,)), env, 2)(env.reset())["action_value"].shape  # [B, A, E]
    torch.Size([2, 2, 2])

    Args:
        settings: the hidden layers, and the convolutions; with ``memory`` they read what it remembers.
        env: its observation is one vector, or one image, under ``observation``.
        num: E, how many critics.
        shared: convolutions that all critics train together; None gives each its own.
    """
    num_outputs, beside, actions = 1, 0, []
    if is_choice(env):
        num_outputs = env.action_spec.n
    else:
        beside, actions = env.action_spec.shape[-1], ["action"]
    if shared is None:
        make = partial(make_mlp, settings, env, num_outputs, beside=beside)
        return ValueEnsemble(make, num, in_keys=[seen_key(settings), *actions])
    encoder = chain(shared, _reduction(settings, env, shared))
    sizes = {"num_cells": settings.num_cells, "activation": ACTIVATIONS[settings.activation]}
    make = partial(MLP, settings.image_features + beside, num_outputs, **sizes)
    judge = ValueEnsemble(make, num, in_keys=["features", *actions])
    return Sequence(Operator(encoder, in_keys=["observation"], out_keys=["features"]), judge, out_keys=judge.out_keys)


def _reduction(settings: SquashedNetworks, env: Env, encoder: ImageEncoder) -> nn.Module:
    """Return the layers that reduce the features of an encoder to ``image_features`` numbers between -1 and 1."""
    num = settings.image_features
    num_features = encoder.num_features(*env.observation_spec["observation"].shape[-2:])
    return nn.Sequential(nn.Linear(num_features, num), nn.LayerNorm(num), nn.Tanh())


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
        if isinstance(spec, Unbounded):
            hint = "Actions without bounds are learned by the examples ppo, a2c, impala and reinforce."
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
