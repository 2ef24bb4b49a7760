"""Networks, exploration and losses of off-policy actor-critics from flags: DDPG, TD3, SAC and REDQ."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.data.specs import Bounded, Categorical, OneHot
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules import (
    Actor,
    AdditiveGaussian,
    GSDEHead,
    GSDEMarginal,
    GSDETanhNormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    OneHotCategorical,
    Operator,
    OrnsteinUhlenbeck,
    ProbabilisticActor,
    Sequence,
    StateDependentNormalHead,
    TanhHead,
    TanhNormal,
    TruncatedNormal,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.modules import Categorical as CategoricalDistribution
from torchrl.modules.distributions.mappings import biased_softplus, bounded
from torchrl.objectives import DDPGLoss, DiscreteSACLoss, Loss, REDQLoss, SACLoss, TD3Loss
from torchrl.recipes.config import (
    ConfigParser,
    FlagGroup,
    default_of,
    fraction,
    non_negative_float,
    positive_float,
    positive_int,
    real,
)
from torchrl.recipes.envs import OU_STATE
from torchrl.recipes.networks import ACTIVATIONS, add_gsde_arguments, is_choice, make_network, make_trunk

DISTRIBUTIONS = {"tanh_normal": TanhNormal, "truncated_normal": TruncatedNormal}
CRITIC_KEYS = ("observation", "action")


def add_deterministic_network_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_deterministic_actor` and :func:`make_critics` read."""
    _add_network_arguments(parser, "400 300")


def add_stochastic_network_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_stochastic_actor` and :func:`make_critics` read."""
    group = _add_network_arguments(parser, "256 256")
    group.add_argument(
        "--distribution", choices=sorted(DISTRIBUTIONS), default="tanh_normal", help="of continuous actions"
    )
    group.add_argument(
        "--init_std",
        type=positive_float,
        default=default_of(biased_softplus, "at_zero"),
        help="standard deviation before squashing where the network's output is 0",
    )
    group.add_switch("--tanh_loc", default=False, help="keep the mean before squashing within ±5, by a tanh")
    add_gsde_arguments(group)
    group.add_argument(
        "--gsde_log_std", type=real, default=-3.0, help="initial log standard deviation of each entry of that noise"
    )


def _add_network_arguments(parser: ConfigParser, num_cells: str) -> FlagGroup:
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--num_cells",
        type=positive_int,
        nargs="+",
        default=[int(size) for size in num_cells.split()],
        help="units of each hidden layer, of actor and critics alike",
    )
    group.add_argument(
        "--activation", choices=sorted(ACTIVATIONS), default="relu", help="activation between the layers"
    )
    return group


def add_noise_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_action_noise` reads."""
    group = parser.add_argument_group("exploration")
    for name, option, when in (("noise_start", "start", "at the beginning"), ("noise_end", "end", "in the end")):
        group.add_argument(
            f"--{name}",
            type=non_negative_float,
            default=default_of(AdditiveGaussian, option),
            help=f"noise on actions {when}, in units of half their range",
        )
    group.add_argument(
        "--annealing_frames", type=positive_int, default=1_000_000, help="frames from the first to the second"
    )
    group.add_switch("--ou_exploration", default=False, help="noise that drifts (Ornstein-Uhlenbeck)")
    group.add_argument(
        "--ou_theta",
        type=non_negative_float,
        default=default_of(OrnsteinUhlenbeck, "theta"),
        help="how fast it returns to zero; needs --ou_exploration",
    )
    group.add_argument(
        "--ou_sigma",
        type=non_negative_float,
        default=default_of(OrnsteinUhlenbeck, "sigma"),
        help="how much is added in a unit of time; needs --ou_exploration",
    )


def add_ddpg_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_ddpg_loss` reads."""
    _add_loss_arguments(parser)


def add_td3_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_td3_loss` reads."""
    group = _add_loss_arguments(parser)
    for name, text in (("target_noise", "noise on the target's action"), ("noise_clip", "its limit")):
        group.add_argument(
            f"--{name}",
            type=non_negative_float,
            default=default_of(TD3Loss, name),
            help=f"{text}, in units of half the range",
        )


def add_sac_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_sac_loss` reads."""
    group = _add_soft_arguments(parser)
    group.add_argument("--num_q_values", type=positive_int, default=2, help="critics")
    group.add_switch("--state_value", default=False, help="a network of the state's value, as in the first version")


def add_redq_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_redq_loss` reads."""
    group = _add_soft_arguments(parser)
    group.add_argument("--num_q_values", type=positive_int, default=10, help="critics")
    group.add_argument(
        "--num_sampled", type=positive_int, default=default_of(REDQLoss, "num_sampled"), help="critics in each target"
    )


def _add_loss_arguments(parser: ConfigParser) -> FlagGroup:
    group = parser.add_argument_group("loss")
    group.add_argument("--gamma", type=fraction, default=default_of(DDPGLoss, "gamma"), help="discount of rewards")
    group.add_argument(
        "--loss_function",
        choices=("l2", "l1", "smooth_l1"),
        default=default_of(DDPGLoss, "distance"),
        help="distance of the critics' loss",
    )
    return group


def _add_soft_arguments(parser: ConfigParser) -> FlagGroup:
    group = _add_loss_arguments(parser)
    group.add_argument(
        "--temperature",
        type=positive_float,
        default=default_of(SACLoss, "temperature"),
        help="weight of the entropy, or what it begins with",
    )
    group.add_switch(
        "--learn_temperature", default=default_of(SACLoss, "learn_temperature"), help="adapt it to --target_entropy"
    )
    group.add_argument(
        "--target_entropy", type=real, help="entropy in nats to aim at; none takes that of the action's range"
    )
    return group


def make_deterministic_actor(args: Namespace, env: Env, *, seed: int) -> Actor:
    """Build an actor without chance, whose actions lie within their bounds.

    Args:
        args: the parsed flags.
        env: its observation is one vector, or one image, under ``observation``, its action a vector with finite bounds.
        seed: of the initial weights; torch's global stream is left as it was.
    """
    spec = _bounded_row(env)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = make_network(args, env, spec.shape[-1])
    return Actor(nn.Sequential(network, TanhHead(spec.low, spec.high)))


def make_stochastic_actor(
    args: Namespace, env: Env, *, seed: int, generator: torch.Generator | None = None
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    """Build a policy with a distribution, over a vector within its bounds or over choices.

    Args:
        args: the parsed flags.
        env: its observation is one vector, or one image, under ``observation``.
        seed: of the initial weights; torch's global stream is left as it was.
        generator: source of the sampled actions.

    Returns:
        What acts, and what a loss trains: the same, but for ``--gsde``, where a loss does not see the noise of the
        moment.

    Raises:
        ConfigError: flags that do not go together.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        if args.gsde:
            return _gsde_actors(args, env, generator)
        actor = _choosing_actor(args, env, generator) if is_choice(env) else _squashed_actor(args, env, generator)
        return actor, actor


def _choosing_actor(args: Namespace, env: Env, generator: torch.Generator | None) -> ProbabilisticActor:
    families = {
        (Categorical, False): CategoricalDistribution,
        (Categorical, True): MaskedCategorical,
        (OneHot, False): OneHotCategorical,
        (OneHot, True): MaskedOneHotCategorical,
    }
    mask_key = env.action_mask_key
    family = families[type(env.action_spec), mask_key is not None]
    network = make_network(args, env, env.action_spec.n)
    return ProbabilisticActor(network, family, log_prob_key=None, mask_key=mask_key, generator=generator)


def _squashed_actor(args: Namespace, env: Env, generator: torch.Generator | None) -> ProbabilisticActor:
    spec = _bounded_row(env)
    head = StateDependentNormalHead(
        scale_mapping=biased_softplus(args.init_std), loc_mapping=bounded(5.0) if args.tanh_loc else None
    )
    network = nn.Sequential(make_network(args, env, 2 * spec.shape[-1]), head)
    family = DISTRIBUTIONS[args.distribution].within(spec.low, spec.high)
    return ProbabilisticActor(network, family, log_prob_key=None, generator=generator)


def _gsde_actors(
    args: Namespace, env: Env, generator: torch.Generator | None
) -> tuple[TensorDictModuleBase, TensorDictModuleBase]:
    spec = _bounded_row(env)
    if args.distribution != "tanh_normal":
        raise ConfigError(explain("--gsde", expected="--distribution=tanh_normal", got=args.distribution))
    num_hidden = args.num_cells[-1]
    common = Operator(make_trunk(args, env), in_keys=["observation"], out_keys=["hidden"])
    head = GSDEHead(num_hidden, spec.shape[-1], init_log_std=args.gsde_log_std)
    options = {"log_prob_key": None, "generator": generator}
    acting = GSDETanhNormal.within(spec.low, spec.high)
    acts = ProbabilisticActor(head, acting, in_keys=["hidden", "gsde_noise"], **options)
    learning = TanhNormal.within(spec.low, spec.high)
    learns = ProbabilisticActor(GSDEMarginal(head), learning, in_keys=["hidden"], **options)
    return tuple(Sequence(common, actor, out_keys=actor.out_keys) for actor in (acts, learns))


def make_critics(args: Namespace, env: Env, num: int, *, seed: int) -> ValueEnsemble:
    """Build critics of observation and action, or, for choices, of all actions of an observation.

    Args:
        args: the parsed flags.
        env: its observation is one vector, or one image, under ``observation``.
        num: how many.
        seed: of the initial weights; torch's global stream is left as it was.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        if is_choice(env):
            return ValueEnsemble(partial(make_network, args, env, env.action_spec.n), num, in_keys=["observation"])
        make = partial(make_network, args, env, 1, beside=env.action_spec.shape[-1])
        return ValueEnsemble(make, num, in_keys=CRITIC_KEYS)


def make_state_value(args: Namespace, env: Env, *, seed: int) -> ValueOperator:
    """Build a network of the state's value; see :func:`make_critics`."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return ValueOperator(make_network(args, env, 1))


def make_action_noise(args: Namespace, env: Env, actor: Actor, *, seed: int) -> TensorDictModuleBase:
    """Build what explores around an actor without chance.

    Args:
        args: the parsed flags.
        env: says how far actions reach.
        actor: the policy.
        seed: of the noise.
    """
    options = {
        "start": args.noise_start,
        "end": args.noise_end,
        "num_frames": args.annealing_frames,
        "generator": torch.Generator().manual_seed(seed),
    }
    if args.ou_exploration:
        options |= {"theta": args.ou_theta, "sigma": args.ou_sigma, "state_key": OU_STATE}
        return OrnsteinUhlenbeck(actor, _bounded_row(env), **options)
    return AdditiveGaussian(actor, _bounded_row(env), **options)


def make_ddpg_loss(args: Namespace, actor: Actor, critics: ValueEnsemble) -> DDPGLoss:
    """Build the loss of DDPG."""
    return DDPGLoss(actor, critics, gamma=args.gamma, distance=args.loss_function)


def make_td3_loss(args: Namespace, env: Env, actor: Actor, critics: ValueEnsemble, *, seed: int) -> TD3Loss:
    """Build the loss of TD3.

    Args:
        args: the parsed flags.
        env: says how far actions reach.
        actor: what is trained.
        critics: two of them.
        seed: of the noise on the target's action.
    """
    return TD3Loss(
        actor,
        critics,
        action_spec=_bounded_row(env),
        gamma=args.gamma,
        distance=args.loss_function,
        target_noise=args.target_noise,
        noise_clip=args.noise_clip,
        generator=torch.Generator().manual_seed(seed),
    )


def make_sac_loss(
    args: Namespace,
    env: Env,
    actor: TensorDictModuleBase,
    critics: ValueEnsemble,
    value: ValueOperator | None,
    *,
    seed: int,
) -> Loss:
    """Build the loss of SAC, for choices or for vectors.

    Args:
        args: the parsed flags.
        env: says what actions there are.
        actor: what is trained.
        critics: usually two.
        value: of states, for the first version; None for the second.
        seed: of the actions that the loss draws.

    Raises:
        ConfigError: ``--state_value`` with choices.
    """
    if not is_choice(env):
        return SACLoss(actor, critics, value=value, **_soft_options(args, env, seed))
    if value is not None:
        raise ConfigError(explain("--state_value", expected="continuous actions", got=env.action_spec))
    options = _soft_options(args, env, seed)
    del options["generator"]
    return DiscreteSACLoss(actor, critics, **options)


def make_redq_loss(
    args: Namespace, env: Env, actor: TensorDictModuleBase, critics: ValueEnsemble, *, seed: int
) -> REDQLoss:
    """Build the loss of REDQ; see :func:`make_sac_loss`.

    Raises:
        ConfigError: the environment has other actions than a vector with bounds.
    """
    _bounded_row(env)
    return REDQLoss(actor, critics, num_sampled=args.num_sampled, **_soft_options(args, env, seed))


def _soft_options(args: Namespace, env: Env, seed: int) -> dict:
    return {
        "gamma": args.gamma,
        "distance": args.loss_function,
        "temperature": args.temperature,
        "learn_temperature": args.learn_temperature,
        "target_entropy": "auto" if args.target_entropy is None else args.target_entropy,
        "action_spec": env.action_spec[(0,) * len(env.batch_size)],
        "generator": torch.Generator().manual_seed(seed),
    }


def _bounded_row(env: Env) -> Bounded:
    spec = env.action_spec
    if not isinstance(spec, Bounded) or not spec.dtype.is_floating_point:
        expected = "a task with a vector of bounded actions"
        hint = "Choices are learned by the examples dqn, sac, ppo, a2c and reinforce."
        raise ConfigError(explain("--env_name", expected=expected, got=spec, hint=hint))
    return spec[(0,) * len(env.batch_size)]
