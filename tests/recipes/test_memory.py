"""Commands whose networks remember: they train, are resumed bit for bit, and refuse what does not go with memory."""

import pytest
import torch

from cases.examples import ALONE, load, settings_of
from torchrl import recipes
from torchrl.agents.checkpoint import load_checkpoint
from torchrl.errors import ConfigError
from torchrl.recipes.sense import remarks


class TestMemory:
    FLAGS = ("--num_envs=4", "--memory_size=8", "--num_cells", "8")

    @pytest.mark.parametrize("memory", ["gru", "lstm", "transformer"])
    @pytest.mark.parametrize("algorithm", ["a2c", "impala", "ppo"])
    def test_an_agent_whose_networks_remember_trains(self, algorithm, memory):
        flags = [*self.FLAGS, f"--memory={memory}", "--frames_per_batch=64", "--total_frames=128"]
        flags += ["--num_epochs=1", "--minibatch_size=32", "--sequence_len=8"] if algorithm == "ppo" else []
        flags += ALONE.get(algorithm, [])
        agent = load(algorithm).make_agent(settings_of(algorithm, *flags, "--eval_episodes=1", "--record_interval=64"))
        before = {name: x.clone() for name, x in agent.optimise.loss.state_dict().items()}
        agent.train()
        moved = {name for name, x in agent.optimise.loss.state_dict().items() if not torch.equal(x, before[name])}
        remembers = {name for name in before if ".parts.1." in name and "weight" in name}
        assert remembers and remembers <= moved
        assert agent.optimise.loss.state_keys == ["memory", "critic_memory"]

    def test_a_sequence_of_a_workers_batch_is_all_that_it_has_of_an_environment(self):
        flags = [*self.FLAGS, "--memory=gru", "--frames_per_batch=64"]
        assert recipes.whole_sequence_len(settings_of("impala", *flags, "--num_workers=2")) == 32
        assert recipes.whole_sequence_len(settings_of("impala", *flags, *ALONE["impala"])) == 16
        assert recipes.whole_sequence_len(settings_of("a2c", *flags)) == 16

    def test_normalised_pictures_are_not_needed_but_normalised_vectors_are_remembered(self):
        settings = settings_of("ppo", *self.FLAGS, "--memory=lstm", "--norm_observations")
        agent = load("ppo").make_agent(settings)
        assert agent.policy.initial_state()["critic_memory"].shape == (1, 2, 8)

    def test_memory_and_what_shares_layers_are_refused(self):
        for flag, name in (("--shared_mapping", "shared_mapping"), ("--gsde", "gsde")):
            settings = settings_of("ppo", *self.FLAGS, "--memory=lstm", flag, "--env_name=Pendulum-v1")
            with pytest.raises(ConfigError, match=f"--memory: expected --memory=none, or --no-{name}, got lstm"):
                load("ppo").make_agent(settings)

    def test_without_memory_the_saved_settings_are_read_again(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        flags = ["--num_envs=2", "--frames_per_batch=64", "--total_frames=64", "--eval_episodes=1", "--num_epochs=1"]
        load("ppo").main([*flags, "--memory=none", "--folder=one"])
        (folder,) = (tmp_path / "one").iterdir()
        assert "memory = none" in (folder / "config.txt").read_text()
        load("ppo").main([f"--evaluate={folder}", "--eval_episodes=1"])
        with pytest.raises(SystemExit):
            load("ppo").main(["--memory=ltsm"])
        assert "--memory: invalid choice: 'ltsm'" in capsys.readouterr().err

    def test_a_run_is_resumed_and_evaluated(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        flags = [*self.FLAGS, "--memory=lstm", "--frames_per_batch=64", "--num_epochs=1", "--minibatch_size=32"]
        flags += ["--sequence_len=8", "--loggers=csv", "--lr_schedule=constant", "--eval_episodes=1"]
        load("ppo").main([*flags, "--total_frames=128", "--folder=half"])
        load("ppo").main([*flags, "--total_frames=256", "--folder=whole"])
        (half,), (whole,) = (tuple((tmp_path / name).iterdir()) for name in ("half", "whole"))
        load("ppo").main([f"--resume={half}", "--total_frames=256", "--folder=rest"])
        (rest,) = (tmp_path / "rest").iterdir()
        one, other = (load_checkpoint(folder / "last.pt")["networks"]["loss"] for folder in (rest, whole))
        assert all(torch.equal(one[key], other[key]) for key in one)
        load("ppo").main([f"--evaluate={rest}", "--eval_episodes=2"])
        assert "evaluation return" in capsys.readouterr().out

    @pytest.mark.parametrize(("length", "fit"), [(7, 4), (64, 16), (24, 16)])
    def test_sequences_that_do_not_fit_are_refused_by_their_flag(self, length, fit):
        settings = settings_of("ppo", *self.FLAGS, "--memory=gru", "--frames_per_batch=64", f"--sequence_len={length}")
        message = rf"--sequence_len: expected a divisor of the 16 steps of a batch.*got {length}. Use {fit}\."
        with pytest.raises(ConfigError, match=message):
            load("ppo").make_agent(settings)


class TestReplay:
    """dqn and sac, whose samples of replay are sequences."""

    FLAGS = ("--num_cells", "8", "--memory_size=8", "--window=4", "--sequence_len=8", "--burn_in=2", "--batch_size=32")
    FLAGS += ("--frames_per_batch=32", "--total_frames=96", "--start_frames=48", "--updates_per_frame=0.125")
    CASES = {
        "dqn": ["--num_envs=4", "--multi_step", "--prb", "--dueling"],
        "dqn of quantiles": ["--num_envs=4", "--quantiles", "--noisy"],
        "sac": ["--env_name=Pendulum-v1", "--mask_velocity"],
        "sac of choices": ["--num_envs=4", "--prb"],
    }

    @pytest.mark.parametrize("memory", ["gru", "lstm", "transformer"])
    @pytest.mark.parametrize("case", CASES)
    def test_an_agent_whose_networks_remember_trains(self, case, memory):
        algorithm, *_ = case.split()
        flags = [*self.FLAGS, *self.CASES[case], f"--memory={memory}", "--eval_episodes=1", "--max_episode_steps=16"]
        agent = load(algorithm).make_agent(settings_of(algorithm, *flags))
        before = {name: x.clone() for name, x in agent.loss.named_parameters()}
        agent.train()
        networks = ["actor"] if algorithm == "dqn" else ["actor", "critic", "target_critic"]
        for network in networks:
            moved = [not x.equal(before[name]) for name, x in agent.loss.named_parameters() if name.startswith(network)]
            assert moved and all(moved)
        assert agent.loss.state_keys == ["memory", "critic_memory"][: 2 - (algorithm == "dqn")]
        assert (agent.loss.burn_in, agent.loss.zero_state) == (2, True)
        sample = agent.optimise.buffer.sample(32)
        assert sample.batch_size == (4, 8) and "memory" not in sample.keys()

    def test_sums_of_rewards_lie_inside_the_sequences(self):
        flags = [*self.FLAGS, "--memory=gru", "--multi_step", "--n_steps_return=4", "--num_envs=4"]
        agent = load("dqn").make_agent(settings_of("dqn", *flags))
        assert agent.loss.n_steps == 4 and agent.store.stream is None

    @pytest.mark.parametrize(("algorithm", "flags"), [("dqn", ["--num_envs=4"]), ("sac", ["--env_name=Pendulum-v1"])])
    def test_a_run_is_resumed_and_evaluated(self, algorithm, flags, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        flags = [*flags, *self.FLAGS, "--memory=lstm", "--loggers=csv", "--save_buffer", "--max_episode_steps=16"]
        flags += ["--eval_episodes=1", "--record_interval=32"]
        load(algorithm).main([*flags, "--total_frames=96", "--folder=half"])
        load(algorithm).main([*flags, "--total_frames=160", "--folder=whole"])
        (half,), (whole,) = (tuple((tmp_path / name).iterdir()) for name in ("half", "whole"))
        load(algorithm).main([f"--resume={half}", "--total_frames=160", "--folder=rest"])
        (rest,) = (tmp_path / "rest").iterdir()
        one, other = (load_checkpoint(folder / "last.pt")["networks"]["loss"] for folder in (rest, whole))
        assert any(".cells." in key for key in one) and all(torch.equal(one[key], other[key]) for key in one)
        capsys.readouterr()
        load(algorithm).main([f"--evaluate={rest}", "--eval_episodes=2"])
        assert "last.pt: return" in capsys.readouterr().out
        with pytest.raises(SystemExit):
            load(algorithm).main([f"--evaluate={rest}", "--memory=gru"])
        message = f"run {rest}: expected networks of --memory=lstm, got --memory=gru. Leave these flags out"
        assert message in capsys.readouterr().err

    def test_sequences_without_memory_have_no_effect(self):
        settings = settings_of("sac", "--env_name=Pendulum-v1", "--sequence_len=8", "--burn_in=2")
        told = remarks(settings, ["--sequence_len=8", "--burn_in=2"])
        assert {f"no effect: --{name}, which needs --memory" for name in ("sequence_len", "burn_in")} <= set(told)
