"""Options: a policy of two levels, trained by PPO (Bacon et al., 2017; Zhang and Whiteson, 2019).

    python examples/hierarchical/hierarchical.py --config=examples/hierarchical/configs/four_rooms.txt
    python examples/hierarchical/hierarchical.py --config=examples/hierarchical/configs/cartpole.txt --seed=1
    python examples/hierarchical/hierarchical.py --env_name=Acrobot-v1 --every=10 --no-learn_termination
    python examples/hierarchical/hierarchical.py --evaluate=hierarchical_logging/CartPole-v1_2026-11-30_12-00-00

What it shows: a chooser picks an option, which acts until it ends, by a learned probability or after some steps. Which
option runs is the policy's state, and read by the critic. The decision of a step is option and action together: the
loss is PPO's. The log shows how long options last (loss/termination: the mean probability of an ending).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchrl import recipes
from torchrl.agents import Agent, MinibatchEpochs
from torchrl.devices import find_device
from torchrl.envs import TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules import (
    Operator,
    Options,
    PerOption,
    ProbabilisticActor,
    Sequence,
    ValueOperator,
    no_option,
    orthogonal_init_,
)
from torchrl.objectives import GAE, ClipPPOLoss, JointLoss, TerminationLoss
from torchrl.recipes.settings import Fraction, Margin, NonNegativeFloat, PositiveInt
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Networks(recipes.Networks):
    """The chooser of options, their policies and endings, and the critic."""

    num_options: PositiveInt = 4
    "options to choose from"
    every: PositiveInt | None = None
    "steps after which an option ends in any case; none sets no limit"
    learn_termination: bool = True
    "learn with which probability an option ends; without it, it ends by --every alone"


@dataclass(frozen=True)
class Loss:
    """How far the policy may move on one batch, and what else is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    gae_lambda: Fraction = 0.95
    "decay of the advantages' trace"
    clip_epsilon: Margin = 0.2
    "how far the probability ratio of option and action may move from 1 before it gains nothing"
    entropy_coef: NonNegativeFloat = 0.0
    "weight of the entropy bonus, of choices and actions"
    critic_coef: NonNegativeFloat = 0.5
    "weight of the value loss"
    termination_coef: NonNegativeFloat = 0.01
    "price of an ending, so that options last; needs --learn_termination"


@dataclass(frozen=True)
class Hierarchical:
    """Train a policy of options by proximal policy optimisation."""

    environment: recipes.Environment = recipes.Environment()
    networks: Networks = Networks(num_cells=(64, 64), activation="tanh")
    collecting: recipes.Collecting = recipes.Collecting(frames_per_batch=2048)
    loss: Loss = Loss()
    minibatches: recipes.Minibatches = recipes.Minibatches(num_epochs=10, minibatch_size=256)
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-4, max_grad_norm=0.5)
    recording: recipes.Recording = recipes.Recording()

    def make_env(self, **options):
        """Build an environment whose roots carry the option that runs; none runs where an episode begins."""
        env = recipes.make_env(self.environment, gamma=self.loss.gamma, clips_actions=True, **options)
        return TransformedEnv(env, TensorDictPrimer(no_option(self.networks.num_options)))


def make_agent(settings: Hierarchical) -> Agent:
    """Build every part of a run."""
    networks, options, n = settings.networks, settings.loss, settings.networks.num_options
    seeds = named_seeds(settings.recording.seed, "environment", "policy", "weights", "minibatches")
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)

    # Networks: of choices, endings, the actions of all options, and the values of each and of the state without one.
    generator = torch.Generator().manual_seed(seeds["policy"])
    with recipes.initial_weights(seeds["weights"]):
        head = recipes.make_action_head(recipes.ActorCriticNetworks(), env)  # by the kind of the actions
        sizes = (n, n, n * head.num_inputs, n + 1)
        chooser, termination, actions, values = (recipes.make_mlp(networks, env, size) for size in sizes)
        for network, gain in ((chooser, 0.01), (termination, 0.01), (actions, 0.01), (values, 1.0)):
            orthogonal_init_(network, last_gain=gain)
        body = Operator(PerOption(actions, n), in_keys=["observation", ("option", "index")], out_keys=["hidden"])
        choice = {"in_keys": ["hidden"], "mask_key": head.mask_key, "generator": generator}
        draw = ProbabilisticActor(head.module or torch.nn.Identity(), head.distribution, **choice)
        worker = Sequence(body, draw, out_keys=draw.out_keys)
        ends = {"termination": termination if networks.learn_termination else None, "every": networks.every}
        actor = Options(n, chooser, worker, **ends, generator=generator)
        critic = ValueOperator(PerOption(values, n + 1), in_keys=["observation", ("option", "running")])

    # Losses and advantages. The loss moves the networks to their device, so it comes before the collector copies them.
    coefficients = {name: getattr(options, name) for name in ("clip_epsilon", "entropy_coef", "critic_coef")}
    loss = ClipPPOLoss(actor, critic, normalize_advantage=True, **coefficients)
    if networks.learn_termination:
        loss = JointLoss(loss, TerminationLoss(actor, coef=options.termination_coef))
    loss.to(find_device(settings.optimising.device))
    advantage = GAE(critic, gamma=options.gamma, lambda_=options.gae_lambda)

    optimise = MinibatchEpochs(
        loss,
        recipes.make_optimizer(settings.optimising, loss, eps=1e-5),
        num_epochs=settings.minibatches.num_epochs,
        minibatch_size=min(settings.minibatches.minibatch_size, settings.collecting.frames_per_batch),
        max_grad_norm=settings.optimising.max_grad_norm,
        max_grad_value=settings.optimising.max_grad_value,
        generator=torch.Generator().manual_seed(seeds["minibatches"]),
        compile=settings.optimising.compile,
        target_kl=settings.minibatches.target_kl,
    )
    collector = recipes.make_collector(settings, env, actor, seed=seeds["environment"])
    evaluator, hooks = recipes.make_evaluator(settings), recipes.make_hooks(settings, optimise)
    return Agent(collector, optimise, advantage=advantage, evaluator=evaluator, hooks=hooks)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("hierarchical", Hierarchical, make_agent, flags)


if __name__ == "__main__":
    main()
