"""Proximal policy optimisation (Schulman et al., 2017), from flags and a config file.

    python examples/ppo/ppo.py --config=examples/ppo/configs/cartpole.txt
    python examples/ppo/ppo.py --config=examples/ppo/configs/humanoid.txt --frame_skip=2
    python examples/ppo/ppo.py --evaluate=ppo_logging/CartPole-v1_2026-11-20_12-00-00
    python examples/ppo/ppo.py --resume=ppo_logging/CartPole-v1_2026-11-20_12-00-00 --total_frames=200000

What it shows: an actor and a critic, advantages, and several epochs of minibatches on each batch. The settings stand
first, each with its flag's name, default and meaning; then the parts are built in the order in which data flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from torchrl import recipes
from torchrl.agents import AdaptPenalty, Agent, Anneal, LinearSchedule, MinibatchEpochs, UpdateNormalizer
from torchrl.devices import find_device
from torchrl.modules import ObservationNormalizer, ProbabilisticActor, ValueOperator, orthogonal_init_
from torchrl.objectives import GAE, ClipPPOLoss, KLPenaltyPPOLoss, PPOLoss
from torchrl.recipes.settings import Fraction, Margin, NonNegativeFloat, PositiveFloat
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Loss:
    """How far the policy may move on one batch, and what else is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    gae_lambda: Fraction = 0.95
    "decay of the advantages' trace"
    objective: Literal["clip", "kl_penalty", "plain"] = "clip"
    "keep near the acting policy by a clipped ratio, an adaptive penalty on the divergence, or not at all"
    clip_epsilon: Margin = 0.2
    "how far the probability ratio may move from 1 before it gains nothing; needs --objective=clip"
    clip_schedule: Literal["constant", "linear"] = "constant"
    "linear takes clip_epsilon to 0; needs --objective=clip"
    kl_target: PositiveFloat = 0.01
    "divergence in nats that the penalty adapts to; needs --objective=kl_penalty"
    normalize_advantage: bool = True
    "shift and scale the advantages of each gradient step"
    entropy_coef: NonNegativeFloat = 0.0
    "weight of the entropy bonus"
    critic_coef: NonNegativeFloat = 0.5
    "weight of the value loss"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between"
    value_clip: PositiveFloat | None = None
    "how far a value may move from the collected one before it gains nothing; none clips nothing"


@dataclass(frozen=True)
class PPO:
    """Train a policy by proximal policy optimisation."""

    environment: recipes.Environment = recipes.Environment()
    networks: recipes.MemoryNetworks = recipes.MemoryNetworks()
    collecting: recipes.Collecting = recipes.Collecting(frames_per_batch=2048)
    loss: Loss = Loss()
    minibatches: recipes.SequenceMinibatches = recipes.SequenceMinibatches(num_epochs=10, minibatch_size=256)
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-4, max_grad_norm=0.5)
    recording: recipes.SeedsRecording = recipes.SeedsRecording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        networks, gamma = self.networks, self.loss.gamma
        clips = networks.distribution == "normal"
        return partial(recipes.make_env, self.environment, gamma=gamma, clips_actions=clips, networks=networks)


def make_agent(settings: PPO) -> Agent:
    """Build every part of a run."""
    networks, options = settings.networks, settings.loss
    seeds = named_seeds(settings.recording.seed, "environment", "policy", "weights", "minibatches")
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
    kind, extra = {
        "clip": (ClipPPOLoss, {"clip_epsilon": options.clip_epsilon}),
        "kl_penalty": (KLPenaltyPPOLoss, {"kl_target": options.kl_target}),
        "plain": (PPOLoss, {}),
    }[options.objective]
    loss = kind(
        actor,
        critic,
        **extra,
        normalize_advantage=options.normalize_advantage,
        entropy_coef=options.entropy_coef,
        critic_coef=options.critic_coef,
        critic_distance=options.loss_function,
        value_clip=options.value_clip,
    ).to(find_device(settings.optimising.device))
    advantage = GAE(critic, gamma=options.gamma, lambda_=options.gae_lambda)

    # Gradient steps: epochs of minibatches, with Adam's ε of the first implementations (torch's is 1e-8).
    optimise = MinibatchEpochs(
        loss,
        recipes.make_optimizer(settings.optimising, loss, eps=1e-5),
        num_epochs=settings.minibatches.num_epochs,
        minibatch_size=min(settings.minibatches.minibatch_size, settings.collecting.frames_per_batch),
        sequence_len=recipes.sequence_len_of(settings),
        max_grad_norm=settings.optimising.max_grad_norm,
        max_grad_value=settings.optimising.max_grad_value,
        generator=torch.Generator().manual_seed(seeds["minibatches"]),
        compile=settings.optimising.compile,
        target_kl=settings.minibatches.target_kl,
    )
    hooks = [AdaptPenalty(loss)] if options.objective == "kl_penalty" else []
    if normalizer is not None:
        hooks.append(UpdateNormalizer(normalizer))  # after AdaptPenalty: new statistics would count as divergence
    if options.objective == "clip" and options.clip_schedule == "linear":
        falling = LinearSchedule(options.clip_epsilon, 0.0, settings.collecting.total_frames)
        hooks.append(Anneal(loss, "clip_epsilon", falling))

    policy = recipes.policy_of(actor, critic)  # a critic with memory looks on while the actor acts
    collector = recipes.make_collector(settings, env, policy, seed=seeds["environment"])
    evaluator, hooks = recipes.make_evaluator(settings), [*hooks, *recipes.make_hooks(settings, optimise)]
    return Agent(collector, optimise, advantage=advantage, evaluator=evaluator, hooks=hooks)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("ppo", PPO, make_agent, flags)


if __name__ == "__main__":
    main()
