"""Soft actor-critic (Haarnoja et al., 2018), from flags and a config file.

    python examples/sac/sac.py --config=examples/sac/configs/pendulum.txt
    python examples/sac/sac.py --config=examples/sac/configs/halfcheetah.txt
    python examples/sac/sac.py --config=examples/sac/configs/cheetah.txt
    python examples/sac/sac.py --config=examples/sac/configs/cartpole.txt
    python examples/sac/sac.py --config=examples/sac/configs/pendulum_memory.txt
    python examples/sac/sac.py --config=examples/sac/configs/cartpole_swingup_pixels.txt

What it shows: an actor that explores by its own entropy, for vectors and choices, and a temperature that is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from torchrl import recipes
from torchrl.agents import Agent
from torchrl.devices import find_device
from torchrl.errors import ConfigError, explain
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import DiscreteSACLoss, SACLoss
from torchrl.recipes.settings import Fraction, PositiveFloat, PositiveInt, Real
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between"
    temperature: PositiveFloat = 1.0
    "weight of the entropy; with --learn_temperature its first value"
    learn_temperature: bool = True
    "adapt it to --target_entropy"
    target_entropy: Real | None = None
    """entropy in nats to aim at; none takes minus the number of action entries, in units of half their range, or 98 %
    of the greatest where actions are discrete; needs --learn_temperature"""
    num_q_values: PositiveInt = 2
    "critics"
    state_value: bool = False
    "a network of the state's value, as in the first version"


@dataclass(frozen=True)
class SAC:
    """Train a policy by soft actor-critic."""

    environment: recipes.Environment = recipes.Environment(num_envs=1)
    networks: recipes.SquashedMemoryNetworks = recipes.SquashedMemoryNetworks(num_cells=(256, 256))
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(init_random_frames=100)
    replay: recipes.SequenceReplay = recipes.SequenceReplay(buffer_size=1_000_000, batch_size=256)
    hindsight: recipes.Hindsight = recipes.Hindsight()
    loss: Loss = Loss()
    updates: recipes.ActorUpdates = recipes.ActorUpdates(actor_interval=1, start_frames=100)
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-4, max_grad_norm=None)
    recording: recipes.SeedsRecording = recipes.SeedsRecording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        return partial(recipes.make_env, self.environment, gamma=self.loss.gamma, networks=self.networks)


def make_agent(settings: SAC) -> Agent:
    """Build every part of a run."""
    settings, in_sequences = recipes.with_sequences(settings)  # the same settings without --memory
    networks, options = settings.networks, settings.loss
    names = ("environment", "policy", "encoder", "actor", "critic", "value", "loss", "random", "replay")
    seeds = named_seeds(settings.recording.seed, *names)
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)
    has_choices = recipes.is_choice(env)
    if has_choices and options.state_value:
        raise ConfigError(explain("--state_value", expected="continuous actions", got=env.action_spec))
    recipes.refuse_beside_memory(networks, state_value=options.state_value, share_encoder=networks.share_encoder)

    with recipes.initial_weights(seeds["encoder"]):
        shared = recipes.make_shared_encoder(networks, env)  # the convolutions with --share_encoder, or None
    if shared is not None and options.state_value:
        raise ConfigError(explain("--share_encoder", expected="--no-state_value", got="--state_value"))

    # The actor: over choices, or over a vector squashed into its bounds. `policy` acts and `actor` is trained: the same
    # object, except with --gsde, where `policy` adds a noise that the loss does not use. Networks see the observation,
    # or with --memory what is remembered of it, the actor in a memory of its own and the critics in another.
    generator = torch.Generator().manual_seed(seeds["policy"])
    with recipes.initial_weights(seeds["actor"]):
        if has_choices and not networks.gsde:
            network = recipes.make_mlp(networks, env, env.action_spec.n, shared=shared)
            options_of_actor = {"log_prob_key": None, "mask_key": env.action_mask_key, "generator": generator}
            options_of_actor["in_keys"] = [recipes.seen_key(networks)]
            actor = ProbabilisticActor(network, recipes.choice_distribution(env), **options_of_actor)
            policy = actor = recipes.put_memory_before(networks, env, actor)
        else:
            policy, actor = recipes.make_squashed_actors(networks, env, generator, shared=shared)

    # The critics value every choice, or an observation with an action.
    with recipes.initial_weights(seeds["critic"]):
        critics = recipes.make_critics(networks, env, options.num_q_values, shared=shared)
        critics = recipes.put_memory_before(networks, env, critics, state_key="critic_memory")
    value = None
    if options.state_value:
        with recipes.initial_weights(seeds["value"]):
            value = ValueOperator(recipes.make_mlp(networks, env, 1))

    options_of_loss = {
        "gamma": options.gamma,
        "distance": options.loss_function,
        "temperature": options.temperature,
        "learn_temperature": options.learn_temperature,
        "target_entropy": "auto" if options.target_entropy is None else options.target_entropy,
        "action_spec": recipes.row_spec(env),
        **in_sequences,
    }
    if has_choices:
        loss = DiscreteSACLoss(actor, critics, **options_of_loss)
    else:
        generator = torch.Generator().manual_seed(seeds["loss"])
        loss = SACLoss(actor, critics, value=value, generator=generator, **options_of_loss)
    loss.to(find_device(settings.optimising.device))  # the networks with it, before the collector copies them

    policy = recipes.warm_up(settings.collecting, env, policy, seed=seeds["random"])
    collector = recipes.make_collector(settings, env, policy, seed=seeds["environment"])
    buffer = recipes.make_replay_buffer(settings, env, seed=seeds["replay"])
    updates = recipes.make_replay_updates(settings, loss, buffer, gamma=options.gamma)
    hooks = recipes.make_hooks(settings, updates, buffer)
    hindsight = recipes.make_hindsight(settings.hindsight, settings, env, seed=seeds["replay"])
    store = recipes.Store(settings.replay, buffer, loss, gamma=options.gamma, hindsight=hindsight)
    pace = {"log_interval": settings.updates.log_interval, "keep_learning": settings.updates.keep_learning}
    return Agent(collector, updates, store=store, evaluator=recipes.make_evaluator(settings), hooks=hooks, **pace)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("sac", SAC, make_agent, flags)


if __name__ == "__main__":
    main()
