"""Actor and critic networks from flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.data.specs import Bounded
from torchrl.data.specs import Categorical as CategoricalSpec
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules import (
    MLP,
    ActorValueOperator,
    Categorical,
    Normal,
    NormalHead,
    ObservationNormalizer,
    Operator,
    ProbabilisticActor,
    TanhNormal,
    ValueOperator,
    orthogonal_init_,
)
from torchrl.recipes.config import ConfigParser, default_of, positive_int, real

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
POLICY_GAIN, VALUE_GAIN = 0.01, 1.0  # of the last layers, Andrychowicz et al. (2021), section 3.2


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
        choices=("normal", "tanh_normal"),
        default="normal",
        help="of continuous actions: normal is clipped for the simulator only, tanh_normal squashed into the bounds",
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
    group.add_switch("--shared_mapping", default=False, help="let actor and critic share the hidden layers")


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
        env: its observation is one vector under ``observation``.
        seed: of the initial weights; torch's global stream is left as it was.
        generator: source of the sampled actions.

    Raises:
        ConfigError: the observation is no vector.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return _build(args, env, generator)


def _build(args: Namespace, env: Env, generator: torch.Generator | None) -> ActorCritic:
    num_features = _num_features(env)
    normalizer = ObservationNormalizer(num_features) if args.norm_observations else None
    num_outputs, head, distribution = _action_head(args, env)

    if args.shared_mapping:
        *trunk_cells, num_hidden = args.num_cells
        activation = ACTIVATIONS[args.activation]
        trunk = nn.Sequential(MLP(num_features, num_hidden, num_cells=trunk_cells, activation=activation), activation())
        body, value = MLP(num_hidden, num_outputs, num_cells=()), MLP(num_hidden, 1, num_cells=())
        _initialise(args, (trunk, 2**0.5), (body, POLICY_GAIN), (value, VALUE_GAIN))
        both = ActorValueOperator(
            Operator(_chain(normalizer, trunk), in_keys=["observation"], out_keys=["hidden"]),
            ProbabilisticActor(_chain(body, head), distribution, in_keys=["hidden"], generator=generator),
            ValueOperator(value, in_keys=["hidden"]),
        )
        return ActorCritic(both.actor, both.critic, normalizer)

    common = {"num_cells": args.num_cells, "activation": ACTIVATIONS[args.activation]}
    body, value = MLP(num_features, num_outputs, **common), MLP(num_features, 1, **common)
    _initialise(args, (body, POLICY_GAIN), (value, VALUE_GAIN))
    actor = ProbabilisticActor(_chain(normalizer, body, head), distribution, generator=generator)
    return ActorCritic(actor, ValueOperator(_chain(normalizer, value)), normalizer)


def _num_features(env: Env) -> int:
    spec = env.observation_spec.get("observation")
    is_vector = isinstance(spec, LeafSpec) and len(spec.shape) == len(env.batch_size) + 1
    if not is_vector or not spec.dtype.is_floating_point:
        hint = "Networks for other observations are composed in Python."
        raise ConfigError(
            explain(
                "networks", expected="one vector of floats under 'observation'", got=env.observation_spec, hint=hint
            )
        )
    return spec.shape[-1]


def _action_head(args: Namespace, env: Env) -> tuple[int, nn.Module | None, Callable]:
    """Number of outputs of the network, the head after it, and the distribution, by the environment's actions."""
    spec = env.action_spec
    if isinstance(spec, CategoricalSpec):
        return spec.n, None, Categorical
    if not isinstance(spec, LeafSpec) or not spec.dtype.is_floating_point or len(spec.shape) != len(env.batch_size) + 1:
        raise ConfigError(explain("networks", expected="one discrete action or one vector of floats", got=spec))
    num_actions = spec.shape[-1]
    head = NormalHead(num_actions, init_log_std=args.init_log_std)
    if args.distribution == "normal":
        return num_actions, head, Normal
    if not isinstance(spec, Bounded):
        raise ConfigError(explain("--distribution=tanh_normal", expected="bounded actions", got=spec))
    row = spec[(0,) * len(env.batch_size)]
    return num_actions, head, TanhNormal.within(row.low, row.high)


def _initialise(args: Namespace, *networks: tuple[nn.Module, float]) -> None:
    if args.orthogonal_init:
        for network, last_gain in networks:
            orthogonal_init_(network, last_gain=last_gain)


def _chain(*modules: nn.Module | None) -> nn.Module:
    present = [module for module in modules if module is not None]
    return present[0] if len(present) == 1 else nn.Sequential(*present)
