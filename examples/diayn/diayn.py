"""Diversity is all you need: skills learned at once, without the reward of the task (Eysenbach et al., 2018).

    python examples/diayn/diayn.py --config=examples/diayn/configs/plane.txt
    python examples/diayn/diayn.py --env_library=gym --env_name=Pendulum-v1 --num_skills=4 --num_envs=8
    python examples/diayn/diayn.py --evaluate=diayn_logging/Plane_2026-11-30_12-00-00

What it shows: every row of a batch plays a skill of its own, a parameter of the row that the policy reads as a key. A
discriminator tells the skill from the state that was reached (loss/accuracy in the log), and the policy is paid for
r = log q(skill | next state) - log p(skill). Nothing learns from the task's own reward, which evaluations report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from tensordict import TensorDict

from torchrl import recipes
from torchrl.agents import Agent, MinibatchEpochs
from torchrl.devices import find_device
from torchrl.errors import ConfigError, explain
from torchrl.modules import Operator, ProbabilisticActor, Sequence, ValueOperator
from torchrl.objectives import GAE, A2CLoss
from torchrl.recipes.settings import Fraction, NonNegativeFloat, PositiveInt
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Networks(recipes.Networks):
    """Actor and critic, which read the skill, and the discriminator, which guesses it."""

    num_skills: PositiveInt = 5
    "skills; each row plays one of them"


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.95
    "discount of rewards"
    gae_lambda: Fraction = 0.95
    "decay of the advantages' trace"
    entropy_coef: NonNegativeFloat = 1e-3
    "weight of the entropy bonus"
    critic_coef: NonNegativeFloat = 0.5
    "weight of the value loss"
    discriminator_coef: NonNegativeFloat = 1.0
    "weight of the discriminator's cross-entropy"


@dataclass(frozen=True)
class DIAYN:
    """Train skills that can be told apart by where they lead."""

    environment: recipes.Environment = recipes.Environment(env_library="native", env_name="Plane", num_envs=20)
    networks: Networks = Networks(num_cells=(64, 64), activation="tanh")
    collecting: recipes.Collecting = recipes.Collecting(frames_per_batch=400, total_frames=80_000)
    loss: Loss = Loss()
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-3, max_grad_norm=None)
    recording: recipes.Recording = recipes.Recording()

    def make_env(self, *, num_envs: int, **options):
        """Build an environment whose rows play the skills in turn, so that all are equally likely."""
        options |= {"gamma": self.loss.gamma, "clips_actions": True}
        env = recipes.make_env(self.environment, num_envs=num_envs, **options)
        skill = torch.eye(self.networks.num_skills)[torch.arange(num_envs) % self.networks.num_skills]  # one-hot
        env.set_info_(agent_info=TensorDict({"skill": skill}, [num_envs]))
        return env


class SkillLoss(A2CLoss):
    """The loss of A2C and the cross-entropy of a discriminator, which reads the state that was reached."""

    def __init__(self, actor, critic, discriminator, *, discriminator_coef: float, **options) -> None:
        super().__init__(actor, critic, **options)
        self.discriminator, self.discriminator_coef = discriminator, discriminator_coef
        self.in_keys += [("next", "observation")]

    def trainable_parameters(self):
        """List the parameters of all three."""
        return [*super().trainable_parameters(), *self.discriminator.parameters()]

    def log_q(self, batch):
        """Return log q(skill | next state) of the skill that was played, ``[*B, 1]``, and whether q guessed it."""
        log_q, skill = self.discriminator(batch["next", "observation"]).log_softmax(-1), batch["skill"]
        return (log_q * skill).sum(-1, keepdim=True), (log_q.argmax(-1) == skill.argmax(-1)).float()

    def terms(self, rows):
        """Compute what A2C does, the cross-entropy, and the share of states whose skill was guessed."""
        log_q, is_right = self.log_q(rows)
        mean = -self.discriminator_coef * log_q.mean()
        return super().terms(rows) | {"loss_discriminator": mean, "accuracy": is_right.mean()}


def make_agent(settings: DIAYN) -> Agent:
    """Build every part of a run."""
    networks, options, num_envs = settings.networks, settings.loss, settings.environment.num_envs
    if num_envs // max(settings.collecting.num_workers, 1) % (num_skills := networks.num_skills):
        expected = f"a multiple of the {num_skills} of --num_skills in each process"
        raise ConfigError(explain("--num_envs", expected=expected, got=num_envs))
    seeds = named_seeds(settings.recording.seed, "environment", "policy", "weights")
    env = settings.make_env(num_envs=num_envs, training=True)

    generator, inputs = torch.Generator().manual_seed(seeds["policy"]), ["observation", "skill"]
    with recipes.initial_weights(seeds["weights"]):
        head = recipes.make_action_head(recipes.ActorCriticNetworks(), env)  # by the kind of the actions
        make = partial(recipes.make_mlp, networks, env)
        trunk = Operator(make(head.num_inputs, beside=num_skills), in_keys=inputs, out_keys=["hidden"])
        choice = {"in_keys": ["hidden"], "mask_key": head.mask_key, "generator": generator}
        chooser = ProbabilisticActor(head.module or torch.nn.Identity(), head.distribution, **choice)
        actor = Sequence(trunk, chooser, out_keys=chooser.out_keys)
        critic = ValueOperator(make(1, beside=num_skills), in_keys=inputs)
        discriminator = make(num_skills)

    coefficients = {name: getattr(options, name) for name in ("entropy_coef", "critic_coef", "discriminator_coef")}
    loss = SkillLoss(actor, critic, discriminator, normalize_advantage=True, **coefficients)
    loss.to(find_device(settings.optimising.device))  # it comes before the collector, which copies the networks
    gae = GAE(critic, gamma=options.gamma, lambda_=options.gae_lambda)

    @torch.no_grad()
    def advantage(batch):
        """Pay each step for what its state says of the skill, in place of the task's reward."""
        return gae(batch.set(("next", "reward"), loss.log_q(batch)[0] + math.log(num_skills)))

    optimise = MinibatchEpochs(
        loss,
        recipes.make_optimizer(settings.optimising, loss, eps=1e-5),
        num_epochs=1,
        minibatch_size=settings.collecting.frames_per_batch,
        max_grad_norm=settings.optimising.max_grad_norm,
        max_grad_value=settings.optimising.max_grad_value,
        generator=torch.Generator(),
        compile=settings.optimising.compile,
    )
    collector = recipes.make_collector(settings, env, actor, seed=seeds["environment"])
    evaluator, hooks = recipes.make_evaluator(settings), recipes.make_hooks(settings, optimise)
    return Agent(collector, optimise, advantage=advantage, evaluator=evaluator, hooks=hooks)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("diayn", DIAYN, make_agent, flags)


if __name__ == "__main__":
    main()
