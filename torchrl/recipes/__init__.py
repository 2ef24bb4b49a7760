"""From command lines to objects: each file adds the flags of one part and builds the part from them."""

from torchrl.recipes.agents import (
    add_minibatch_arguments,
    add_optimise_arguments,
    make_optimise,
    make_optimizer,
    make_schedules,
    make_single_step,
)
from torchrl.recipes.collectors import add_collector_arguments, make_collector
from torchrl.recipes.config import ConfigParser, default_of, exit_on_mistake, load_config, make_parser, save_config
from torchrl.recipes.costs import (
    add_a2c_arguments,
    add_ppo_arguments,
    add_reinforce_arguments,
    make_a2c_loss,
    make_advantage,
    make_ppo_loss,
    make_ppo_schedules,
    make_reinforce_loss,
    make_returns,
)
from torchrl.recipes.envs import add_env_arguments, make_env, task_name
from torchrl.recipes.networks import ActorCritic, add_network_arguments, make_actor_critic
from torchrl.recipes.record import (
    add_record_arguments,
    announce,
    make_evaluator,
    make_logger,
    make_record_hooks,
    make_reporter,
    make_run_folder,
    report,
    report_saved,
    resume,
    with_saved_config,
)
from torchrl.recipes.run import run

__all__ = [
    "ActorCritic",
    "ConfigParser",
    "add_a2c_arguments",
    "add_collector_arguments",
    "add_env_arguments",
    "add_minibatch_arguments",
    "add_network_arguments",
    "add_optimise_arguments",
    "add_ppo_arguments",
    "add_record_arguments",
    "add_reinforce_arguments",
    "announce",
    "default_of",
    "exit_on_mistake",
    "load_config",
    "make_a2c_loss",
    "make_actor_critic",
    "make_advantage",
    "make_collector",
    "make_env",
    "make_evaluator",
    "make_logger",
    "make_optimise",
    "make_optimizer",
    "make_parser",
    "make_ppo_loss",
    "make_ppo_schedules",
    "make_record_hooks",
    "make_reinforce_loss",
    "make_reporter",
    "make_returns",
    "make_run_folder",
    "make_schedules",
    "make_single_step",
    "report",
    "report_saved",
    "resume",
    "run",
    "save_config",
    "task_name",
    "with_saved_config",
]
