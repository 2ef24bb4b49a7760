"""Advantage actor-critic (Mnih et al., 2016), from flags and a config file.

    python examples/a2c/a2c.py --config=examples/a2c/configs/cartpole.txt
    python examples/a2c/a2c.py --config=examples/a2c/configs/pendulum.txt --seed=1
    python examples/a2c/a2c.py --evaluate=a2c_logging/CartPole-v1_2026-11-20_12-00-00

What it shows: one gradient step on each short batch, of the log-probability itself. All else is as in PPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from torchrl import recipes
from torchrl.agents import Agent, MinibatchEpochs, UpdateNormalizer
from torchrl.devices import find_device
from torchrl.modules import ObservationNormalizer, ProbabilisticActor, ValueOperator, orthogonal_init_
from torchrl.objectives import GAE, A2CLoss
from torchrl.recipes.settings import Fraction, NonNegativeFloat
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    gae_lambda: Fraction = 1.0
    "decay of the advantages' trace"
    normalize_advantage: bool = False
    "shift and scale the advantages of each gradient step"
    entropy_coef: NonNegativeFloat = 0.01
    "weight of the entropy bonus"
    critic_coef: NonNegativeFloat = 0.5
    "weight of the value loss"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between"


@dataclass(frozen=True)
class A2C:
    """Train a policy by advantage actor-critic."""

    environment: recipes.Environment = recipes.Environment()
    networks: recipes.MemoryNetworks = recipes.MemoryNetworks()
    collecting: recipes.Collecting = recipes.Collecting(frames_per_batch=40)
    loss: Loss = Loss()
    optimising: recipes.Optimising = recipes.Optimising(optimizer="rmsprop", lr=7e-4, max_grad_norm=0.5)
    recording: recipes.SeedsRecording = recipes.SeedsRecording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        networks, gamma = self.networks, self.loss.gamma
        clips = networks.distribution == "normal"
        return partial(recipes.make_env, self.environment, gamma=gamma, clips_actions=clips, networks=networks)


def make_agent(settings: A2C) -> Agent:
    """Build every part of a run."""
    networks, options = settings.networks, settings.loss
    seeds = named_seeds(settings.recording.seed, "environment", "policy", "weights")
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)

    # Networks: two; with --memory, --shared_mapping or --gsde, hidden layers with the actor's last layer on them.
    generator = torch.Generator().manual_seed(seeds["policy"])
    with recipes.initial_weights(seeds["weights"]):
        normalizer = ObservationNormalizer(recipes.num_features_of(env)) if networks.norm_observations else None
        head = recipes.make_action_head(networks, env)  # the distribution, by the kind of the actions
        if networks.memory or networks.shared_mapping or networks.gsde:
            actor, critic = recipes.make_actor_critic(networks, env, head, normalizer, generator)
        else:
            body, value = (recipes.make_mlp(networks, env, num_outputs) for num_outputs in (head.num_inputs, 1))
            if networks.orthogonal_init:
                orthogonal_init_(body, last_gain=0.01)
                orthogonal_init_(value, last_gain=1.0)
            body = recipes.chain(normalizer, body, head.module)
            actor = ProbabilisticActor(body, head.distribution, mask_key=head.mask_key, generator=generator)
            critic = ValueOperator(recipes.chain(normalizer, value))

    # Loss and advantages. The loss moves the networks to their device, so it comes before the collector copies them.
    loss = A2CLoss(
        actor,
        critic,
        normalize_advantage=options.normalize_advantage,
        entropy_coef=options.entropy_coef,
        critic_coef=options.critic_coef,
        critic_distance=options.loss_function,
    ).to(find_device(settings.optimising.device))
    advantage = GAE(critic, gamma=options.gamma, lambda_=options.gae_lambda)

    # One gradient step on the whole batch, with the ε of the first implementations (torch's is 1e-8).
    optimise = MinibatchEpochs(
        loss,
        recipes.make_optimizer(settings.optimising, loss, eps=1e-5),
        num_epochs=1,
        minibatch_size=settings.collecting.frames_per_batch,
        sequence_len=recipes.whole_sequence_len(settings),
        max_grad_norm=settings.optimising.max_grad_norm,
        max_grad_value=settings.optimising.max_grad_value,
        generator=torch.Generator(),
        compile=settings.optimising.compile,
    )
    hooks = [] if normalizer is None else [UpdateNormalizer(normalizer)]

    policy = recipes.policy_of(actor, critic)  # a critic with memory looks on while the actor acts
    collector = recipes.make_collector(settings, env, policy, seed=seeds["environment"])
    evaluator, hooks = recipes.make_evaluator(settings), [*hooks, *recipes.make_hooks(settings, optimise)]
    return Agent(collector, optimise, advantage=advantage, evaluator=evaluator, hooks=hooks)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("a2c", A2C, make_agent, flags)


if __name__ == "__main__":
    main()
