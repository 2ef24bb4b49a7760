"""REINFORCE (Williams, 1992) with or without a baseline, from flags and a config file.

    python examples/reinforce/reinforce.py --config=examples/reinforce/configs/cartpole.txt
    python examples/reinforce/reinforce.py --config=examples/reinforce/configs/cartpole.txt --no-baseline
    python examples/reinforce/reinforce.py --config=examples/reinforce/configs/cartpole.txt --episodes_per_batch=16

What it shows: the oldest policy gradient, from whole returns; the critic, if there is one, is a baseline alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from torchrl import recipes
from torchrl.agents import Agent, MinibatchEpochs, UpdateNormalizer
from torchrl.devices import find_device
from torchrl.modules import ObservationNormalizer, ProbabilisticActor, ValueOperator, orthogonal_init_
from torchrl.objectives import DiscountedReturn, ReinforceLoss
from torchrl.recipes.settings import Fraction, NonNegativeFloat
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Networks(recipes.ActorCriticNetworks):
    """A probabilistic actor and a baseline."""

    shared_mapping: bool = False
    "let actor and critic share the hidden layers; needs --baseline"


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    baseline: bool = True
    "subtract a learned value from the returns; without it, episodes that a batch cuts are left out"
    normalize_advantage: bool = False
    "shift and scale the advantages of each gradient step"
    entropy_coef: NonNegativeFloat = 0.0
    "weight of the entropy bonus"
    critic_coef: NonNegativeFloat = 0.5
    "weight of the value loss; needs --baseline"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between; needs --baseline"


@dataclass(frozen=True)
class Reinforce:
    """Train a policy by REINFORCE."""

    environment: recipes.Environment = recipes.Environment()
    networks: Networks = Networks()
    collecting: recipes.EpisodeCollecting = recipes.EpisodeCollecting(frames_per_batch=4096)
    loss: Loss = Loss()
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-3, max_grad_norm=0.5)
    recording: recipes.Recording = recipes.Recording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        networks, gamma = self.networks, self.loss.gamma
        clips = networks.distribution == "normal"
        return partial(recipes.make_env, self.environment, gamma=gamma, clips_actions=clips, networks=networks)


def make_agent(settings: Reinforce) -> Agent:
    """Build every part of a run."""
    networks, options = settings.networks, settings.loss
    seeds = named_seeds(settings.recording.seed, "environment", "policy", "weights")
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)

    # Networks: two; with --shared_mapping or --gsde, hidden layers of their own with the actor's last layer on them.
    generator = torch.Generator().manual_seed(seeds["policy"])
    with recipes.initial_weights(seeds["weights"]):
        normalizer = ObservationNormalizer(recipes.num_features_of(env)) if networks.norm_observations else None
        head = recipes.make_action_head(networks, env)  # the distribution, by the kind of the actions
        if networks.shared_mapping or networks.gsde:
            actor, critic = recipes.make_trunk_actor_critic(networks, env, head, normalizer, generator)
        else:
            body, value = (recipes.make_mlp(networks, env, num_outputs) for num_outputs in (head.num_inputs, 1))
            if networks.orthogonal_init:
                orthogonal_init_(body, last_gain=0.01)
                orthogonal_init_(value, last_gain=1.0)
            body = recipes.chain(normalizer, body, head.module)
            actor = ProbabilisticActor(body, head.distribution, mask_key=head.mask_key, generator=generator)
            critic = ValueOperator(recipes.chain(normalizer, value))

    # Loss and returns. The loss moves the networks to their device, so it comes before the collector copies them.
    baseline = critic if options.baseline else None
    loss = ReinforceLoss(
        actor,
        baseline,
        normalize_advantage=options.normalize_advantage,
        entropy_coef=options.entropy_coef,
        critic_coef=options.critic_coef,
        critic_distance=options.loss_function,
    ).to(find_device(settings.optimising.device))
    advantage = DiscountedReturn(baseline, gamma=options.gamma)

    # One gradient step on the whole batch, with the ε of the first implementations (torch's is 1e-8). Whole episodes
    # have any number of frames; each frame counts alike.
    has_episodes = settings.collecting.episodes_per_batch is not None
    optimise = MinibatchEpochs(
        loss,
        recipes.make_optimizer(settings.optimising, loss, eps=1e-5),
        num_epochs=1,
        minibatch_size=sys.maxsize if has_episodes else settings.collecting.frames_per_batch,
        max_grad_norm=settings.optimising.max_grad_norm,
        max_grad_value=settings.optimising.max_grad_value,
        generator=torch.Generator(),
        compile=settings.optimising.compile,
    )
    hooks = [] if normalizer is None else [UpdateNormalizer(normalizer)]

    collector = recipes.make_collector(settings, env, actor, seed=seeds["environment"])
    evaluator, hooks = recipes.make_evaluator(settings), [*hooks, *recipes.make_hooks(settings, optimise)]
    return Agent(collector, optimise, advantage=advantage, evaluator=evaluator, hooks=hooks)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("reinforce", Reinforce, make_agent, flags)


if __name__ == "__main__":
    main()
