"""Actor and critic networks from flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.data import specs
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Env
from torchrl.envs.transforms import GSDENoise
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key
from torchrl.modules import (
    MLP,
    ActorValueOperator,
    Bernoulli,
    Categorical,
    ConvNet,
    Encoded,
    GSDEHead,
    GSDENormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    NormalHead,
    ObservationNormalizer,
    OneHotCategorical,
    Operator,
    ProbabilisticActor,
    Sequence,
    TanhNormal,
    TruncatedNormal,
    ValueOperator,
    orthogonal_init_,
)
from torchrl.recipes.config import ConfigParser, FlagGroup, default_of, positive_int, real
from torchrl.recipes.observations import sees_images

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = 2**0.5, 0.01, 1.0  # Andrychowicz et al. (2021), section 3.2


def add_network_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_actor_critic` reads."""
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--num_cells",
        type=positive_int,
        nargs="+",
        default=default_of(MLP, "num_cells"),
        help="units of each hidden layer, of actor and critic alike",
    )
    group.add_argument(
        "--activation", choices=sorted(ACTIVATIONS), default="tanh", help="activation between the layers"
    )
    group.add_argument(
        "--distribution",
        choices=("normal", "tanh_normal", "truncated_normal"),
        default="normal",
        help="of continuous actions: normal is clipped for the simulator only, the others stay within the bounds",
    )
    group.add_argument(
        "--init_log_std",
        type=real,
        default=default_of(NormalHead, "init_log_std"),
        help="initial log standard deviation of continuous actions",
    )
    group.add_switch(
        "--norm_observations", default=False, help="normalise observations by running statistics, inside the networks"
    )
    group.add_switch("--orthogonal_init", default=True, help="orthogonal weights, small ones in the last layers")
    add_gsde_arguments(group)
    group.add_switch("--shared_mapping", default=False, help="let actor and critic share the hidden layers")


def add_gsde_arguments(group: FlagGroup) -> None:
    """Add the flags of exploration that depends on the state, which :func:`make_env` reads as well."""
    group.add_switch(
        "--gsde",
        default=False,
        help="explore by noise that depends on the state and stays for a while (continuous actions)",
    )
    group.add_argument(
        "--gsde_every",
        type=positive_int,
        default=default_of(GSDENoise, "resample_every"),
        help="frames after which that noise is redrawn; none keeps it for an episode",
    )


@dataclass
class ActorCritic:
    """The networks of an on-policy run.

    Attributes:
        actor: writes ``action`` and its log-probability.
        critic: writes ``state_value``.
        normalizer: first module of both; None where observations are taken as they come.
    """

    actor: TensorDictModuleBase
    critic: TensorDictModuleBase
    normalizer: ObservationNormalizer | None


def make_actor_critic(args: Namespace, env: Env, *, seed: int, generator: torch.Generator | None = None) -> ActorCritic:
    """Build a probabilistic actor and a state-value critic for ``env``.

    Args:
        args: the parsed flags.
        env: its observation is one vector, or one image, under ``observation``.
        seed: of the initial weights; torch's global stream is left as it was.
        generator: source of the sampled actions.

    Raises:
        ConfigError: the observation is neither, or flags do not go together.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return _build(args, env, generator)


def _build(args: Namespace, env: Env, generator: torch.Generator | None) -> ActorCritic:
    normalizer = ObservationNormalizer(num_features_of(env)) if args.norm_observations else None
    ending = _actor_ending(args, env)
    if not (args.shared_mapping or args.gsde):
        body, value = make_network(args, env, ending.num_inputs), make_network(args, env, 1)
        _initialise(args, (body, POLICY_GAIN), (value, VALUE_GAIN))
        actor = ending.actor(_chain(normalizer, body, ending.head), ["observation"], generator)
        return ActorCritic(actor, ValueOperator(_chain(normalizer, value)), normalizer)

    # The hidden layers are an operator of their own: for the critic to share, or for the noise to act on.
    trunk, num_hidden = make_trunk(args, env), args.num_cells[-1]
    if args.gsde:
        body = GSDEHead(num_hidden, ending.num_inputs, init_log_std=args.init_log_std)
        keys = ["hidden", "gsde_noise"]
    else:
        linear = MLP(num_hidden, ending.num_inputs, num_cells=())
        body, keys = _chain(linear, ending.head), ["hidden"]
    _initialise(args, (trunk, HIDDEN_GAIN), (body, POLICY_GAIN))
    common = Operator(_chain(normalizer, trunk), in_keys=["observation"], out_keys=["hidden"])
    actor = ending.actor(body, keys, generator)
    if not args.shared_mapping:
        value = make_network(args, env, 1)
        _initialise(args, (value, VALUE_GAIN))
        whole = Sequence(common, actor, out_keys=actor.out_keys)
        return ActorCritic(whole, ValueOperator(_chain(normalizer, value)), normalizer)
    value = MLP(num_hidden, 1, num_cells=())
    _initialise(args, (value, VALUE_GAIN))
    both = ActorValueOperator(common, actor, ValueOperator(value, in_keys=["hidden"]))
    return ActorCritic(both.actor, both.critic, normalizer)


def make_network(args: Namespace, env: Env, num_outputs: int, *, beside: int = 0) -> nn.Module:
    """Build a network of the observation: hidden layers, behind convolutions where it is an image.

    Args:
        args: the parsed flags.
        env: its observation is one vector, or one image, under ``observation``.
        num_outputs: numbers per row.
        beside: size of a second input, such as an action.

    Raises:
        ConfigError: the observation is neither, or an image too small for the convolutions.
    """
    encoder, num_features = make_encoder(env)
    activation = ACTIVATIONS[args.activation]
    network = MLP(num_features + beside, num_outputs, num_cells=args.num_cells, activation=activation)
    return behind(encoder, network)


def make_trunk(args: Namespace, env: Env) -> nn.Module:
    """Build the hidden layers of :func:`make_network`, the last activation included."""
    *cells, num_hidden = args.num_cells
    encoder, num_features = make_encoder(env)
    activation = ACTIVATIONS[args.activation]
    layers = MLP(num_features, num_hidden, num_cells=cells, activation=activation)
    return behind(encoder, nn.Sequential(layers, activation()))


def make_encoder(env: Env) -> tuple[nn.Module | None, int]:
    """Build the convolutions before the hidden layers; return them, None for a vector, and the size of what comes out.

    Raises:
        ConfigError: the observation is neither a vector nor an image.
    """
    if not sees_images(env):
        return None, num_features_of(env)
    channels, height, width = env.observation_spec["observation"].shape[-3:]
    encoder = ConvNet(channels)
    try:
        return encoder, encoder.num_features(height, width)
    except SpecError as error:
        raise ConfigError(explain("--image_size", expected="an image for the convolutions", got=error)) from error


def is_choice(env: Env) -> bool:
    """Answer whether an action is one choice: an index ``[*B]``, or a one-hot vector ``[*B, n]``."""
    spec = env.action_spec
    num_dims = len(spec.shape) - len(env.batch_size)
    return isinstance(spec, specs.Categorical if num_dims == 0 else specs.OneHot) and num_dims <= 1


def behind(encoder: nn.Module | None, network: nn.Module) -> nn.Module:
    """Put a network behind an encoder, if there is one."""
    return network if encoder is None else Encoded(encoder, network)


def num_features_of(env: Env) -> int:
    """Return the size of the one vector that is the observation.

    Raises:
        ConfigError: there is another.
    """
    spec = env.observation_spec.get("observation")
    is_vector = isinstance(spec, LeafSpec) and len(spec.shape) == len(env.batch_size) + 1
    if not is_vector or spec.dtype != torch.float32:
        hint = "Networks for other observations are composed in Python."
        expected = "one vector of floats, or one image of bytes, under 'observation'"
        raise ConfigError(explain("networks", expected=expected, got=env.observation_spec, hint=hint))
    return spec.shape[-1]


@dataclass
class _ActorEnding:
    """What follows the hidden layers of an actor.

    Attributes:
        num_inputs: numbers per row that it takes.
        head: turns them into the parameters of the distribution; None where they are those.
        distribution: of the actions.
        mask_key: the observation that says which actions are legal, if the environment has one.
    """

    num_inputs: int
    head: nn.Module | None
    distribution: Callable
    mask_key: Key | None = None

    def actor(self, module: nn.Module, in_keys: list, generator: torch.Generator | None) -> ProbabilisticActor:
        return ProbabilisticActor(
            module, self.distribution, in_keys=in_keys, mask_key=self.mask_key, generator=generator
        )


def _actor_ending(args: Namespace, env: Env) -> _ActorEnding:
    """Choose by the environment's actions."""
    spec, mask_key = env.action_spec, env.action_mask_key
    num_dims = len(spec.shape) - len(env.batch_size)
    is_real = isinstance(spec, LeafSpec) and spec.dtype.is_floating_point
    if not is_real and args.distribution != "normal":
        hint = "Discrete actions have a distribution of their own."
        raise ConfigError(
            explain(f"--distribution={args.distribution}", expected="continuous actions", got=spec, hint=hint)
        )
    if isinstance(spec, specs.Categorical) and num_dims == 0:
        return _ActorEnding(spec.n, None, Categorical if mask_key is None else MaskedCategorical, mask_key)
    if isinstance(spec, specs.OneHot) and num_dims == 1:
        return _ActorEnding(spec.n, None, OneHotCategorical if mask_key is None else MaskedOneHotCategorical, mask_key)
    if isinstance(spec, specs.MultiCategorical) and num_dims == 1:
        nvec = spec[(0,) * len(env.batch_size)].nvec.tolist()
        return _ActorEnding(sum(nvec), None, MultiCategorical.of(nvec), mask_key)
    if isinstance(spec, specs.Binary) and num_dims == 1:
        return _ActorEnding(spec.shape[-1], None, partial(Bernoulli, dtype=spec.dtype))
    if not isinstance(spec, LeafSpec) or not spec.dtype.is_floating_point or num_dims != 1:
        hint = "Networks for other actions are composed in Python."
        raise ConfigError(explain("networks", expected="discrete actions or a vector of floats", got=spec, hint=hint))
    num_actions = spec.shape[-1]
    if args.gsde:
        if args.distribution != "normal":
            raise ConfigError(explain("--gsde", expected="--distribution=normal", got=args.distribution))
        return _ActorEnding(num_actions, None, GSDENormal)
    head = NormalHead(num_actions, init_log_std=args.init_log_std)
    if args.distribution == "normal":
        return _ActorEnding(num_actions, head, Normal)
    if not isinstance(spec, specs.Bounded):
        raise ConfigError(explain(f"--distribution={args.distribution}", expected="bounded actions", got=spec))
    row = spec[(0,) * len(env.batch_size)]
    family = TanhNormal if args.distribution == "tanh_normal" else TruncatedNormal
    return _ActorEnding(num_actions, head, family.within(row.low, row.high))


def _initialise(args: Namespace, *networks: tuple[nn.Module, float]) -> None:
    if args.orthogonal_init:
        for network, last_gain in networks:
            orthogonal_init_(network, last_gain=last_gain)


def _chain(*modules: nn.Module | None) -> nn.Module:
    present = [module for module in modules if module is not None]
    return present[0] if len(present) == 1 else nn.Sequential(*present)
