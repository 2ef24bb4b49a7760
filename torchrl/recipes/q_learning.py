"""Networks, exploration and losses of deep Q-learning from flags."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.data.specs import OneHot
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules import (
    MLP,
    DistributionalQValueActor,
    DuelingMLP,
    EGreedy,
    NoisyLinear,
    QuantileQValueActor,
    QValueActor,
)
from torchrl.objectives import DistributionalDQNLoss, DQNLoss, Loss, QuantileDQNLoss
from torchrl.recipes.config import ConfigParser, default_of, fraction, positive_int, real
from torchrl.recipes.networks import ACTIVATIONS, behind, is_choice, make_encoder


def add_q_network_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_q_actor` reads."""
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--num_cells",
        type=positive_int,
        nargs="+",
        default=default_of(DuelingMLP, "num_cells"),
        help="units of each hidden layer",
    )
    group.add_argument(
        "--activation", choices=sorted(ACTIVATIONS), default="relu", help="activation between the layers"
    )
    group.add_switch("--dueling", default=False, help="value of the state and advantages of the actions as two streams")
    group.add_switch("--noisy", default=False, help="explore by noise in the last layers, instead of ε")
    group.add_switch("--distributional", default=False, help="a distribution of returns on --atoms (C51)")
    group.add_switch("--quantiles", default=False, help="--atoms quantiles of returns (QR-DQN)")
    group.add_argument("--atoms", type=positive_int, default=51, help="numbers per action of a distribution")
    group.add_argument("--value_low", type=real, default=-10.0, help="return of the first atom (--distributional)")
    group.add_argument("--value_high", type=real, default=10.0, help="return of the last atom (--distributional)")


def add_egreedy_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_egreedy` reads."""
    group = parser.add_argument_group("exploration")
    group.add_argument("--eps_start", type=fraction, default=default_of(EGreedy, "start"), help="ε at the beginning")
    group.add_argument("--eps_end", type=fraction, default=default_of(EGreedy, "end"), help="ε in the end")
    group.add_argument(
        "--annealing_frames", type=positive_int, default=1_000_000, help="frames from the first to the second"
    )


def add_dqn_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_dqn_loss` reads."""
    group = parser.add_argument_group("loss")
    group.add_argument("--gamma", type=fraction, default=default_of(DQNLoss, "gamma"), help="discount of rewards")
    group.add_switch(
        "--double",
        default=default_of(DQNLoss, "double"),
        help="the network in training chooses the next action, its target judges it",
    )
    group.add_argument(
        "--loss_function",
        choices=("l2", "l1", "smooth_l1"),
        default=default_of(DQNLoss, "distance"),
        help="distance of values, where there is no distribution",
    )


def make_q_actor(args: Namespace, env: Env, *, seed: int, generator: torch.Generator | None = None) -> QValueActor:
    """Build the greedy actor of a network that values every action.

    Args:
        args: the parsed flags.
        env: its observation is one vector, or one image, under ``observation``, its action one choice.
        seed: of the initial weights; torch's global stream is left as it was.
        generator: source of the noise of ``--noisy``.

    Raises:
        ConfigError: the environment has other observations or actions, or flags do not go together.
    """
    spec = env.action_spec
    if not is_choice(env):
        hint = "DDPG, TD3 and SAC have continuous actions."
        raise ConfigError(explain("networks", expected="one choice as the action", got=spec, hint=hint))
    if args.distributional and args.quantiles:
        raise ConfigError(explain("--distributional", expected="it or --quantiles", got="both"))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = _network(args, env, generator)
    options = {"one_hot": isinstance(spec, OneHot), "mask_key": env.action_mask_key}
    if args.distributional:
        return DistributionalQValueActor(network, low=args.value_low, high=args.value_high, **options)
    return (QuantileQValueActor if args.quantiles else QValueActor)(network, **options)


def _network(args: Namespace, env: Env, generator: torch.Generator | None) -> nn.Module:
    encoder, num_features = make_encoder(env)
    return behind(encoder, _layers(args, num_features, env.action_spec.n, generator))


def _layers(args: Namespace, num_features: int, num_actions: int, generator: torch.Generator | None) -> nn.Module:
    num_outputs = args.atoms if args.distributional or args.quantiles else None
    activation = ACTIVATIONS[args.activation]
    linear = partial(NoisyLinear, generator=generator) if args.noisy else nn.Linear
    if args.dueling:
        return DuelingMLP(
            num_features,
            num_actions,
            num_outputs=num_outputs,
            num_cells=args.num_cells,
            activation=activation,
            linear=linear,
        )
    *cells, last = args.num_cells
    body = [MLP(num_features, last, num_cells=cells, activation=activation), activation()]
    head = MLP(last, num_actions * (num_outputs or 1), num_cells=(), linear=linear)
    return nn.Sequential(*body, head, *([nn.Unflatten(-1, (num_actions, num_outputs))] if num_outputs else []))


def make_egreedy(args: Namespace, env: Env, actor: QValueActor, *, seed: int) -> TensorDictModuleBase:
    """Build what explores around an actor; the actor itself where its network is noisy.

    Args:
        args: the parsed flags.
        env: says which actions there are.
        actor: greedy.
        seed: of the exploration.
    """
    if args.noisy:
        return actor
    return EGreedy(
        actor,
        env.action_spec[(0,) * len(env.batch_size)],
        start=args.eps_start,
        end=args.eps_end,
        num_frames=args.annealing_frames,
        mask_key=env.action_mask_key,
        generator=torch.Generator().manual_seed(seed),
    )


def make_dqn_loss(args: Namespace, actor: QValueActor) -> Loss:
    """Build the loss of the actor's kind."""
    common = {"gamma": args.gamma, "double": args.double}
    if args.distributional:
        return DistributionalDQNLoss(actor, **common)
    if args.quantiles:
        return QuantileDQNLoss(actor, **common)
    return DQNLoss(actor, distance=args.loss_function, **common)
