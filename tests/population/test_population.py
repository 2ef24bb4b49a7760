"""A member of a population learns what it learns alone: same numbers, same state, own hooks; what cannot is refused."""

import signal
from contextlib import closing

import pytest
import torch
from tensordict import TensorDict

from cases.examples import load, settings_of
from torchrl.agents import LAST, Hook
from torchrl.errors import CheckpointError, ConfigError
from torchrl.modules import Categorical, Operator, ProbabilisticActor
from torchrl.population import Population
from torchrl.population.acting import JointPolicy

SEEDS = (0, 3, 5)
TINY = ["--num_envs=2", "--max_episode_steps=20", "--no-progress_bar", "--num_cells", "8", "8", "--eval_episodes=2"]
TINY += ["--record_interval=1000000", "--record_episodes=2"]
REPLAYED = ["--batch_size=16", "--init_random_frames=20", "--start_frames=20", "--frames_per_batch=4"]
CONSTANT = "--lr_schedule=constant"
RUNS = {
    "ppo": ["--frames_per_batch=32", "--minibatch_size=16", "--num_epochs=2", "--lr_schedule=linear"],
    "ppo_native": [
        "--env_library=native",
        "--env_name=CartPole",
        "--frames_per_batch=32",
        "--minibatch_size=16",
        "--num_epochs=2",
    ],
    "ppo_stacked": ["--frame_stack=2", "--frames_per_batch=16", "--minibatch_size=16", "--num_epochs=1"],
    "a2c": ["--frames_per_batch=10"],
    "dqn": [*REPLAYED, "--annealing_frames=100"],
    "sac": ["--env_name=Pendulum-v1", *REPLAYED],
}


def make(run, seed, *flags):
    """Build the agent of one seed, and what builds envs like its own."""
    algorithm = run.partition("_")[0]
    settings = settings_of(algorithm, "--env_name=CartPole-v1", *TINY, *RUNS[run], *flags, f"--seed={seed}")
    return load(algorithm).make_agent(settings), settings


def population_of(run, *flags, seeds=SEEDS, is_joint=True):
    made = [make(run, seed, *flags) for seed in seeds]
    settings = made[0][1]
    env = settings.make_env(num_envs=2 * len(seeds), training=True) if is_joint else None
    return Population([agent for agent, _ in made], env=env)


def leaves(value, path=""):
    """Yield every entry of a nested state that is no time, by path."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key != "seconds":
                yield from leaves(entry, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            yield from leaves(entry, f"{path}/{index}")
    else:
        yield path, value


def require_same(member, alone, tolerance=0.0):
    ours, theirs = dict(leaves(member)), dict(leaves(alone))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        value, other = (torch.as_tensor(x) if hasattr(x, "shape") else x for x in (value, theirs[path]))
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance, equal_nan=True, msg=path)
        elif path != "/configuration":
            assert value == other, path


class At(Hook):
    """Call a function of the agent at a batch, by its frames."""

    def __init__(self, frames, act):
        self.frames, self.act = frames, act

    def on_batch_end(self, agent, report):
        if agent.frames == self.frames:
            self.act(agent)


@pytest.mark.parametrize(("run", "is_joint"), [*((run, True) for run in RUNS), ("ppo", False), ("dqn", False)])
def test_a_member_ends_in_the_state_of_its_own_run(run, is_joint):
    flags = ["--total_frames=80"]
    with closing(population_of(run, *flags, is_joint=is_joint)) as population:
        population.train()
        states = [agent.state_dict() for agent in population.agents]
    for seed, state in zip(SEEDS, states, strict=True):
        agent, _ = make(run, seed, *flags)
        with closing(agent):
            agent.train()
            alone = agent.state_dict()
        del state["torch_rng"], alone["torch_rng"]
        require_same(state, alone, tolerance=1e-4)


UPDATES = {
    "ppo": ["--total_frames=1600"],  # 50 batches of 4 steps
    "ppo_native": ["--total_frames=320"],
    "a2c": ["--total_frames=2000"],
    "dqn": ["--total_frames=420", "--updates_per_frame=0.5"],
}
SLOW = ("a2c", "dqn")


def widen(agent):
    """Let the networks of an agent compute in float64: what they read is float32."""
    for operator in agent.loss.double().modules():
        if isinstance(operator, Operator):
            operator.module.register_forward_pre_hook(lambda _, inputs: tuple(x.double() for x in inputs))
    return agent


@pytest.mark.parametrize("run", [pytest.param(run, marks=[pytest.mark.learn] * (run in SLOW)) for run in UPDATES])
def test_200_updates_by_one_program_are_those_of_single_runs(run, traced):
    made = [make(run, seed, *UPDATES[run], "--compile") for seed in SEEDS[:2]]
    env = made[0][1].make_env(num_envs=4, training=True)
    with closing(Population([widen(agent) for agent, _ in made], env=env)) as population:
        population.train()
        states = [agent.state_dict() for agent in population.agents]
    assert traced
    for seed, state in zip(SEEDS, states, strict=False):
        agent = widen(make(run, seed, *UPDATES[run])[0])
        with closing(agent):
            agent.train()
            alone = agent.state_dict()
        for part in ("networks", "optimizer", "collector"):
            require_same(state[part], alone[part], tolerance=1e-8)


def test_sac_steps_by_one_program_as_single_runs_do(traced):
    with closing(population_of("sac", "--total_frames=60", "--compile", seeds=SEEDS[:2])) as population:
        population.train()
        weights = population.agents[1].loss.state_dict()
    agent, _ = make("sac", SEEDS[1], "--total_frames=60")
    with closing(agent):
        agent.train()
        require_same(weights, agent.loss.state_dict(), tolerance=1e-4)  # its actions are float32
    assert traced


def test_a_policy_that_is_no_single_graph_acts_member_by_member():
    class Branching(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > -1e9 else x

    def actors():
        torch.manual_seed(0)
        for seed in (0, 1):
            generator = torch.Generator().manual_seed(seed)
            yield ProbabilisticActor(Branching(4, 2), Categorical, generator=generator)

    root = TensorDict({"observation": torch.randn(6, 4)}, [6])
    alone = torch.cat([actor(rows)["action"] for actor, rows in zip(actors(), root.clone().split(3), strict=True)])
    assert torch.equal(JointPolicy(list(actors()))(root.clone())["action"], alone)
    with pytest.raises(ConfigError, match="one graph of tensors"):
        JointPolicy(list(actors()), compile=True)(root.clone())


def test_a_checkpoint_of_a_member_goes_on_in_a_run_of_its_own(tmp_path):
    with closing(population_of("ppo", "--total_frames=64", CONSTANT)) as population:
        for agent, seed in zip(population.agents, SEEDS, strict=True):
            agent.folder = tmp_path / str(seed)
        population.train()
    states = []
    for path in (tmp_path / "3" / LAST, None):
        agent, _ = make("ppo", 3, "--total_frames=96", CONSTANT)
        with closing(agent):
            if path is not None:
                agent.load(path)
            agent.train()
            states.append(agent.state_dict())
    require_same(*states)


def test_a_member_that_stops_is_left_alone(tmp_path):
    with closing(population_of("ppo", "--total_frames=96")) as population:
        first, second, _ = population.agents
        second.folder, second.hooks = tmp_path, (*second.hooks, At(32, lambda agent: agent.stop()))
        population.train()
        assert [agent.frames for agent in population.agents] == [96, 32, 96]
        weights = second.loss.state_dict()
    agent, _ = make("ppo", SEEDS[1], "--total_frames=96")
    with closing(agent):
        agent.load(tmp_path / LAST)
        require_same(weights, agent.loss.state_dict())
    assert sum(first.seconds.values()) > 0


def test_ctrl_c_ends_all_members_after_the_batch(tmp_path):
    with closing(population_of("ppo", "--total_frames=96")) as population:
        for number, agent in enumerate(population.agents):
            agent.folder = tmp_path / str(number)
        population.agents[0].hooks = (At(32, lambda agent: signal.raise_signal(signal.SIGINT)),)
        population.train()
        assert [agent.frames for agent in population.agents] == [32, 32, 32]
    assert all((tmp_path / str(number) / LAST).is_file() for number in range(3))


def test_an_error_in_one_member_ends_all_and_each_is_saved(tmp_path):
    def fail(agent):
        raise ValueError("broken")

    with closing(population_of("ppo", "--total_frames=96")) as population:
        for number, agent in enumerate(population.agents):
            agent.folder = tmp_path / str(number)
        population.agents[1].hooks = (At(32, fail),)
        with pytest.raises(ValueError, match="broken"):
            population.train()
    assert all((tmp_path / str(number) / LAST).is_file() for number in range(3))


def test_members_share_the_seconds_of_what_they_do_together():
    with closing(population_of("ppo", "--total_frames=32")) as population:
        population.train()
        collect = {agent.seconds["collect"] for agent in population.agents}
    assert len(collect) == 1 and 0 < collect.pop() < 5


def test_a_member_in_one_env_of_all_neither_trains_nor_loads_alone():
    with closing(population_of("ppo", "--total_frames=32")) as population:
        agent = population.agents[0]
        with pytest.raises(ConfigError, match="population.train"):
            agent.train()
        with pytest.raises(CheckpointError, match="train it alone"):
            agent.load_state_dict(agent.state_dict())


@pytest.mark.parametrize(
    ("run", "flags", "text"),
    [
        ("ppo", ["--norm_rewards"], "RewardNorm, which learns"),
        ("ppo", ["--memory=gru", "--sequence_len=16"], "a policy's state"),
        ("sac", ["--gsde"], "GSDENoise, which draws"),
    ],
)
def test_what_would_mix_members_is_refused_and_works_apart(run, flags, text):
    flags = [*flags, "--total_frames=32", "--frames_per_batch=32"]
    agents = [make(run, seed, *flags)[0] for seed in SEEDS[:2]]
    settings = make(run, 0, *flags)[1]
    with closing(Population(agents)) as population, closing(settings.make_env(num_envs=4, training=True)) as env:
        with pytest.raises(ConfigError, match=text):
            Population(agents, env=env)
        population.train()
        assert [agent.frames for agent in agents] == [32, 32]


def test_other_mistakes_are_refused():
    agent, settings = make("ppo", 0, "--total_frames=32")
    other, _ = make("ppo", 1, "--total_frames=32", "--frames_per_batch=64")
    with closing(agent), closing(other), closing(settings.make_env(num_envs=3, training=True)) as env:
        with pytest.raises(ConfigError, match="each once"):
            Population([])
        with pytest.raises(ConfigError, match="twice"):
            Population([agent, agent])
        with pytest.raises(ConfigError, match=r"an env of \[2\] rows"):
            Population([agent], env=env)
        with pytest.raises(ConfigError, match="as many rows"):
            Population([agent, other], env=env)
        agent.keep_learning = True
        with pytest.raises(ConfigError, match="keep_learning"):
            Population([agent])
        agent.keep_learning = False
        agent.train()
        with pytest.raises(ConfigError, match="members at the start"):
            Population([agent], env=env)
