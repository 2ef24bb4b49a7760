"""The names that other libraries use for our flags, for hints in error messages; no flag can be set by them."""

from __future__ import annotations

from collections.abc import Collection

# Of several, the first that a command has.
_NAMES = {
    "env_name": "env env_id gym_id environment environment_name environment_id game task_id",
    "env_task": "task task_name",
    "env_kwargs": "env_args env_config env_params environment_kwargs make_kwargs kwargs map_name is_slippery "
    "render_mode",
    "num_envs": "n_envs n_env num_environments num_env_per_collector env_per_collector num_procs n_eval_envs",
    "num_workers": "num_collectors n_workers workers num_actors num_rollout_workers num_env_runners num_learners "
    "num_processes n_procs procs n_jobs jobs num_cpus n_cpu n_cpus cpus subproc num_cores",
    "env_workers": "num_env_workers vec_env",
    "frame_skip": "action_repeat frameskip",
    "max_noops": "noop_max noops num_noops max_random_noops",
    "episodic_life": "terminal_on_life_loss episode_life life_done terminate_on_lost_life",
    "fire_reset": "use_fire_reset fire_on_reset",
    "sign_rewards": "clip_rewards clip_reward reward_clipping sign_reward",
    "max_episode_steps": "time_limit max_ep_len max_steps_per_episode max_frames_per_traj horizon max_episode_length "
    "max_episode_len episode_length episode_len",
    "frames_per_batch": "n_steps num_steps steps_per_epoch rollout_steps rollout_length batch_frames train_batch_size "
    "train_freq nsteps rollout_fragment_length train_frequency batch_steps",
    "total_frames": "total_timesteps num_timesteps timesteps total_steps num_frames max_frames max_steps "
    "max_timesteps collector_total_frames n_timesteps num_env_steps n_steps_total env_steps train_steps "
    "training_steps max_env_steps",
    "lr": "learning_rate step_size actor_lr critic_lr policy_lr q_lr optim_lr lr_actor lr_critic lr_policy lr_q "
    "alpha_lr base_lr initial_lr",
    "lr_schedule": "anneal_lr learning_rate_schedule lr_scheduler lr_decay linear_lr_decay",
    "folder": "log_dir logdir log_path log_folder tensorboard_log output_dir output_folder out_dir save_dir save_path "
    "run_dir results_dir tensorboard_dir out output outdir dir path video_folder storage_path",
    "name": "run_name exp_name experiment experiment_name tb_log_name run_id wandb_run_name",
    "loggers": "logger logger_backend log_backend track tensorboard wandb csv wandb_project wandb_project_name "
    "use_wandb use_tensorboard",
    "entropy_coef": "ent_coef ent_coeff entropy_coeff entropy_coefficient entropy_weight",
    "temperature": "ent_coef ent_coeff alpha alpha_init init_alpha entropy_coef",
    "learn_temperature": "autotune auto_alpha fixed_alpha",
    "critic_coef": "vf_coef vf_coeff value_coef value_loss_coef critic_coeff value_coefficient",
    "minibatch_size": "batch_size mini_batch_size sub_batch_size num_minibatches sgd_minibatch_size num_mini_batch "
    "nminibatches",
    "batch_size": "minibatch_size mini_batch_size sub_batch_size",
    "num_epochs": "n_epochs ppo_epochs ppo_epoch update_epochs epochs num_sgd_iter optim_steps_per_batch noptepochs "
    "num_epoch",
    "clip_epsilon": "clip_range clip clip_coef clip_param clip_ratio eps_clip cliprange",
    "value_clip": "clip_range_vf clip_vloss vf_clip_param clip_value",
    "normalize_advantage": "norm_adv normalize_advantages advantage_norm",
    "gae_lambda": "lambda lam lmbda gae_lam gae_tau lambda_",
    "gamma": "discount discount_factor",
    "max_grad_norm": "clip_grad_norm grad_clip gradient_clip_norm grad_norm",
    "target_kl": "desired_kl max_kl",
    "buffer_size": "memory_size replay_size replay_buffer_size replay_capacity buffer_capacity capacity "
    "replay_memory_size replay_memory",
    "start_frames": "learning_starts start_steps warmup_steps train_start",
    "init_random_frames": "learning_starts random_steps random_frames start_timesteps",
    "updates_per_frame": "gradient_steps utd utd_ratio replay_ratio num_updates train_freq train_frequency",
    "tau": "polyak polyak_tau target_tau soft_update_eps critic_target_tau target_network_tau",
    "target_update_interval": "target_network_frequency target_network_update_freq hard_update_freq target_update "
    "target_update_freq target_update_frequency",
    "actor_interval": "policy_delay policy_frequency policy_freq actor_update_freq actor_update_interval "
    "policy_update_freq",
    "target_noise": "target_policy_noise policy_noise",
    "noise_clip": "target_noise_clip",
    "num_q_values": "n_critics num_critics num_qvalue_nets",
    "eps_start": "exploration_initial_eps epsilon_start eps_init epsilon start_e initial_epsilon epsilon_initial",
    "eps_end": "exploration_final_eps epsilon_end end_e final_epsilon min_epsilon epsilon_final epsilon_min",
    "annealing_frames": "exploration_fraction annealing_num_steps epsilon_decay eps_decay epsilon_decay_steps "
    "epsilon_timesteps eps_decay_steps anneal_steps",
    "n_steps_return": "n_step nstep n_steps n_step_returns multi_step_n",
    "prb": "prioritized per use_per prioritized_replay",
    "prb_alpha": "alpha per_alpha prioritized_replay_alpha",
    "prb_beta": "beta per_beta prioritized_replay_beta prioritized_replay_beta0 beta0",
    "atoms": "n_atoms num_atoms n_quantiles num_quantiles",
    "value_low": "v_min vmin",
    "value_high": "v_max vmax",
    "num_cells": "net_arch hidden_sizes hidden_size hidden_dim hidden_dims hidden_units num_units hidden_layers "
    "layers net_size mlp_units",
    "activation": "activation_fn",
    "gsde": "use_sde",
    "gsde_every": "sde_sample_freq",
    "record_interval": "eval_freq eval_interval evaluation_interval eval_iter eval_every test_interval log_freq",
    "record_episodes": "n_eval_episodes num_eval_episodes evaluation_episodes",
    "record_video": "save_video capture_video video film render record",
    "progress_bar": "progress verbose quiet silent no_progress",
    "num_threads": "threads torch_threads torch_num_threads",
    "device": "cuda gpu learner_device num_gpus n_gpus use_gpu use_cuda device_id device_ids",
    "collection_devices": "collector_device collector_devices policy_device collection_device",
    "target_return": "target_reward reward_threshold solved_at stop_reward stop_return",
    "resume": "load load_from load_model resume_from checkpoint restore",
    "evaluate": "eval test play enjoy",
    "clip_schedule": "anneal_clip_epsilon anneal_clip",
    "kl_target": "kl_coeff kl_coef kl_beta",
    "norm_observations": "obs_norm norm_obs normalize_obs normalize_observations observation_norm normalize_input",
    "norm_rewards": "normalize_reward reward_norm norm_reward",
    "normalize_rewards_online": "normalize_reward reward_norm norm_reward normalize_rewards",
    "reward_scaling": "reward_scale scale_reward",
    "orthogonal_init": "ortho_init",
    "shared_mapping": "share_network shared_network vf_share_layers share_features_extractor",
    "noise_start": "exploration_noise expl_noise action_noise noise_std sigma noise_sigma",
    "double": "double_dqn double_q ddqn",
    "distributional": "categorical c51",
    "quantiles": "qr_dqn qrdqn",
    "noisy": "noisy_net noisy_nets noisy_linear",
    "seed": "random_seed rng_seed random_state",
    "eval_episodes": "num_test_episodes test_episodes",
    "frame_stack": "num_stack n_stack stack framestack",
    "from_pixels": "pixels image_obs",
}


def same_meaning(name: str, known: Collection[str]) -> str | None:
    """Return the flag of ours, among ``known``, that means the same as another library's ``name``, or None.

    Of a name with dots the last part is looked up, too. Otherwise the flag counts whose name (ours or another's) has
    at least two words, all of them in ``name``: ``agent_target_tau`` has those of ``target_tau``. Most words win.
    """
    plain = name.lower().replace("-", "_").strip("_")
    for one in (plain.replace(".", "_"), plain.rpartition(".")[2]):
        if one in known:
            return one
        for ours, theirs in _NAMES.items():
            if ours in known and one in theirs.split():
                return ours
    words = set(plain.replace(".", "_").split("_"))
    parts = [
        (len(part), ours)
        for ours in known
        for part in (set(other.split("_")) for other in [ours, *_NAMES.get(ours, "").split()])
        if 1 < len(part) <= len(words) and part <= words
    ]
    return max(parts, key=lambda part: part[0], default=(0, None))[1]
