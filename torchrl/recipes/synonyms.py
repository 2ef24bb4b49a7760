"""What other libraries call our flags. For hints alone: nobody can set a flag by another name."""

from __future__ import annotations

from collections.abc import Collection

# Of several, the first that a command has.
_NAMES = {
    "env_name": "env env_id gym_id environment environment_name environment_id game task_id",
    "env_task": "task task_name",
    "env_kwargs": "env_args env_config env_params environment_kwargs make_kwargs kwargs",
    "num_envs": "n_envs n_env num_environments num_env_per_collector env_per_collector num_procs",
    "num_workers": "num_collectors n_workers workers num_actors",
    "env_workers": "num_env_workers vec_env",
    "frame_skip": "action_repeat frameskip",
    "max_episode_steps": "time_limit max_ep_len max_steps_per_episode max_frames_per_traj horizon",
    "frames_per_batch": "n_steps num_steps steps_per_epoch rollout_steps rollout_length batch_frames train_batch_size "
    "train_freq",
    "total_frames": "total_timesteps num_timesteps timesteps total_steps num_frames max_frames max_steps max_timesteps "
    "collector_total_frames",
    "lr": "learning_rate step_size actor_lr critic_lr policy_lr q_lr optim_lr",
    "lr_schedule": "anneal_lr learning_rate_schedule",
    "folder": "log_dir logdir log_path log_folder tensorboard_log output_dir output_folder out_dir save_dir save_path "
    "run_dir results_dir",
    "name": "run_name exp_name experiment experiment_name tb_log_name run_id",
    "loggers": "logger logger_backend log_backend track tensorboard wandb csv",
    "entropy_coef": "ent_coef ent_coeff entropy_coeff entropy_coefficient entropy_weight",
    "temperature": "ent_coef ent_coeff alpha alpha_init init_alpha entropy_coef",
    "learn_temperature": "autotune auto_alpha fixed_alpha",
    "critic_coef": "vf_coef vf_coeff value_coef value_loss_coef critic_coeff value_coefficient",
    "minibatch_size": "batch_size mini_batch_size sub_batch_size num_minibatches sgd_minibatch_size",
    "batch_size": "minibatch_size mini_batch_size sub_batch_size",
    "num_epochs": "n_epochs ppo_epochs ppo_epoch update_epochs epochs num_sgd_iter optim_steps_per_batch",
    "clip_epsilon": "clip_range clip clip_coef clip_param clip_ratio eps_clip",
    "value_clip": "clip_range_vf clip_vloss vf_clip_param clip_value",
    "normalize_advantage": "norm_adv normalize_advantages advantage_norm",
    "gae_lambda": "lambda lam lmbda gae_lam gae_tau",
    "gamma": "discount discount_factor",
    "max_grad_norm": "clip_grad_norm grad_clip gradient_clip_norm grad_norm",
    "target_kl": "desired_kl max_kl",
    "buffer_size": "memory_size replay_size replay_buffer_size replay_capacity buffer_capacity capacity",
    "start_frames": "learning_starts start_steps warmup_steps train_start",
    "init_random_frames": "learning_starts random_steps random_frames start_timesteps",
    "updates_per_frame": "gradient_steps utd utd_ratio replay_ratio num_updates train_freq",
    "tau": "polyak polyak_tau target_tau soft_update_eps",
    "target_update_interval": "target_network_frequency target_network_update_freq hard_update_freq",
    "actor_interval": "policy_delay policy_frequency policy_freq",
    "target_noise": "target_policy_noise policy_noise",
    "noise_clip": "target_noise_clip",
    "num_q_values": "n_critics num_critics num_qvalue_nets",
    "eps_start": "exploration_initial_eps epsilon_start eps_init epsilon start_e",
    "eps_end": "exploration_final_eps epsilon_end end_e final_epsilon",
    "annealing_frames": "exploration_fraction annealing_num_steps epsilon_decay eps_decay",
    "n_steps_return": "n_step nstep n_steps n_step_returns multi_step_n",
    "prb": "prioritized per use_per prioritized_replay",
    "prb_alpha": "alpha per_alpha",
    "prb_beta": "beta per_beta",
    "atoms": "n_atoms num_atoms n_quantiles num_quantiles",
    "value_low": "v_min vmin",
    "value_high": "v_max vmax",
    "num_cells": "net_arch hidden_sizes hidden_size hidden_dim hidden_dims hidden_units num_units",
    "activation": "activation_fn",
    "gsde": "use_sde",
    "gsde_every": "sde_sample_freq",
    "record_interval": "eval_freq eval_interval evaluation_interval eval_iter eval_every",
    "record_episodes": "n_eval_episodes num_eval_episodes evaluation_episodes",
    "record_video": "save_video capture_video video film",
    "progress_bar": "progress verbose",
    "num_threads": "threads torch_threads torch_num_threads",
    "device": "cuda gpu learner_device",
    "collection_devices": "collector_device collector_devices policy_device collection_device",
    "target_return": "target_reward reward_threshold solved_at",
    "resume": "load load_from load_model resume_from checkpoint restore",
    "evaluate": "eval test play enjoy",
}


def same_meaning(name: str, known: Collection[str]) -> str | None:
    """Return the flag among ``known`` that other libraries call ``name``, or None."""
    plain = name.lower().replace("-", "_").replace(".", "_")
    return next((ours for ours, theirs in _NAMES.items() if ours in known and plain in theirs.split()), None)
