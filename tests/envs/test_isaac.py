"""Worlds that restart rows inside step: transitions by hand, what is not told, and what is refused."""

import gymnasium
import pytest
import torch
from tensordict import TensorDict

from cases.isaac_worlds import LENGTHS, IsaacWorld, PartlyReset, RslWorld, SeededRslWorld
from torchrl.agents import Evaluator
from torchrl.collectors import Collector
from torchrl.data.specs import Bounded, Unbounded
from torchrl.envs import IsaacEnv, TransformedEnv, check_env
from torchrl.envs.transforms import CatTensors, StepCounter
from torchrl.errors import ConfigError, EnvError, SpecError

WORLDS = {"isaac": IsaacWorld, "parts": PartlyReset, "rsl": RslWorld, "seeded": SeededRslWorld}
every_world = pytest.mark.parametrize("kind", WORLDS.values(), ids=WORLDS)


def by_hand(row, num_steps):
    """What a row counts: one dict for each step."""
    episode, step, total = 0, 0, 0.0
    for _ in range(num_steps):
        ends, is_time = step + 1 == LENGTHS[(row + episode) % 3], episode % 2 == 1
        total += 11 + step
        yield {
            "count": step,
            "is_init": step == 0,
            "length": step,
            "next count": step + 1,  # the last one of the episode, too
            "reward": 11 + step,
            "terminated": ends and not is_time,
            "truncated": ends and is_time,
            "return": total,
        }
        episode, step, total = (episode + 1, 0, 0.0) if ends else (episode, step + 1, total)


def played(env, num_steps):
    """Return the transitions ``[B, T]`` of actions at random, and where the world's first observations were."""
    root, steps = env.reset(), []
    for _ in range(num_steps):
        transition, root = env.step_and_reset(env.act_at_random(root))
        steps.append(transition.clone())
    return torch.stack(steps, 1)


@every_world
def test_every_transition_is_the_one_written_by_hand(kind):
    batch = played(IsaacEnv(kind()), 12)
    for row in range(3):
        for time, expected in enumerate(by_hand(row, 12)):
            step, outcome = batch[row, time], batch[row, time]["next"]
            assert step["critic", "height"].item() == step["policy"][1].item() == expected["count"]
            assert outcome["critic", "height"].item() == outcome["policy"][1].item() == expected["next count"]
            assert outcome["policy"][0] == step["policy"][0]  # of the same episode
            assert (step["is_init"].item(), step["episode_length"].item()) == (expected["is_init"], expected["length"])
            for key in ("reward", "terminated", "truncated"):
                assert outcome[key].item() == expected[key], (row, time, key)
            assert outcome["done"].item() == (expected["terminated"] or expected["truncated"])
            assert outcome["episode_return"].item() == expected["return"]
    starts = batch["policy"][..., 0]
    assert starts.unique().numel() == int(batch["is_init"].sum())  # every episode has a start of its own


@pytest.mark.parametrize("kind", [IsaacWorld, PartlyReset, SeededRslWorld])
def test_they_keep_the_contract(kind):
    check_env(IsaacEnv(kind()), num_steps=30)
    check_env(TransformedEnv(IsaacEnv(kind()), StepCounter()), num_steps=30)


def test_tensors_are_handed_on_without_a_copy():
    world = IsaacWorld(2)
    env = IsaacEnv(world)
    root = env.reset()
    action = torch.zeros(2, 2)
    transition, root = env.step_and_reset(root.set("action", action))  # row 1 ends
    assert world.actions[0].data_ptr() == action.data_ptr()
    assert transition["next", "reward"].data_ptr() == world.rewards.data_ptr()
    seen = []
    world.observed = lambda: seen.append(IsaacWorld.observed(world)) or seen[-1]
    transition, root = env.step_and_reset(root.set("action", action))  # nobody ends
    assert not transition["next", "done"].any()
    assert transition["next", "policy"].data_ptr() == root["policy"].data_ptr() == seen[-1]["policy"].data_ptr()


def test_observations_that_are_written_over_are_refused():
    env = IsaacEnv(IsaacWorld(2, in_place=True))
    root = env.reset()
    with pytest.raises(EnvError, match="new tensors from step, got those of the step before, written over.*clones"):
        env.step(env.act_at_random(root))


@every_world
def test_a_last_observation_that_is_not_told_is_refused(kind):
    env = IsaacEnv(kind(tells=False))
    root = env.reset()
    with pytest.raises(
        EnvError, match=r'expected extras\["final_obs"\] where a row ended.*compute_final_obs=True.*previous'
    ):
        env.step(env.act_at_random(root))  # row 1 ends


@every_world
def test_what_is_taken_instead_of_it(kind):
    told, previous, ended = (
        played(IsaacEnv(kind(tells=tells), last_observation=policy), 12)
        for tells, policy in ((True, "told"), (False, "previous"), (False, "terminated"))
    )
    done = told["next", "done"].squeeze(-1)
    for batch in (previous, ended):
        assert torch.equal(batch["next", "done"].squeeze(-1), done)
        assert torch.equal(batch["next", "policy"][~done], told["next", "policy"][~done])
        assert torch.equal(batch["next", "policy"][done], told["policy"][done])  # where the last step began
        assert torch.equal(batch["policy"], told["policy"]) and torch.equal(
            batch["next", "reward"], told["next", "reward"]
        )
    for key in ("terminated", "truncated"):
        assert torch.equal(previous["next", key], told["next", key])
    assert told["next", "truncated"].any() and not ended["next", "truncated"].any()
    assert torch.equal(ended["next", "terminated"].squeeze(-1), done)


def test_a_world_that_tells_is_believed_whatever_was_chosen():
    for policy in ("previous", "terminated"):
        told, other = played(IsaacEnv(IsaacWorld()), 9), played(IsaacEnv(IsaacWorld(), last_observation=policy), 9)
        for key in (("next", "policy"), ("next", "truncated"), ("next", "terminated")):
            assert torch.equal(told[key], other[key])


def test_ends_without_a_word_on_time_are_refused_but_where_time_is_part_of_the_task():
    env = IsaacEnv(RslWorld(sends_time_outs=False))
    with pytest.raises(
        EnvError, match=r'RslWorld: expected extras\["time_outs"\] where a row is done.*finite_horizon=True'
    ):
        env.step(env.act_at_random(env.reset()))
    batch = played(IsaacEnv(RslWorld(sends_time_outs=False), finite_horizon=True), 12)
    assert batch["next", "terminated"].sum() > 10 and not batch["next", "truncated"].any()


def test_seeds_repeat_a_run():
    for kind in (IsaacWorld, SeededRslWorld):
        env = IsaacEnv(kind())
        runs = [env.reset(seed=seed)["policy"] for seed in (3, 3, 4)]
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
        assert not env.seeds_rows
    with pytest.raises(
        EnvError, match=r"a world that can be seeded, by reset\(seed=...\) or seed\(...\), got RslWorld"
    ):
        IsaacEnv(RslWorld()).set_seed(1)


def test_rows_that_did_not_end_are_restarted_where_the_world_can():
    env = IsaacEnv(PartlyReset())
    assert env.restarts_rows and not IsaacEnv(IsaacWorld()).restarts_rows
    root = env.reset()
    transition, root = env.step_and_reset(env.act_at_random(root))
    start = root["policy"][:, 0].clone()
    root = env.reset(torch.tensor([True, False, False]), root=root)
    assert root["policy"][:, 1].tolist() == [0, 0, 1] and root["episode_length"].flatten().tolist() == [0, 0, 1]
    assert root["policy"][0, 0] != start[0] and torch.equal(root["policy"][1:, 0], start[1:])
    assert root["is_init"].flatten().tolist() == [True, True, False]
    other = IsaacEnv(IsaacWorld())
    _, root = other.step_and_reset(other.act_at_random(other.reset()))
    with pytest.raises(
        EnvError, match="resets of all rows, or of those that ended in the last step.*one of other rows"
    ):
        other.reset(torch.tensor([True, False, False]))
    with pytest.raises(EnvError, match="seeds for some rows, where one seed is for all"):
        env.reset(torch.tensor([True, False, False]), seed=1)


def test_a_world_without_reset_begins_once():
    env = IsaacEnv(RslWorld())
    env.step(env.act_at_random(env.reset()))
    with pytest.raises(EnvError, match=r"a world with reset\(\), or one that was not stepped yet"):
        env.reset()


def test_rows_that_ended_wait_for_their_reset():
    env = IsaacEnv(IsaacWorld())
    env.step(env.act_at_random(env.reset()))
    with pytest.raises(EnvError, match=r"rows \[1\] that have ended.*reset\(mask\)"):
        env.step(env.act_at_random(TensorDict({}, [3])))
    root = env.reset(torch.tensor([False, True, False]))
    assert root["policy"][:, 1].tolist() == [1, 0, 1]
    env.step(env.act_at_random(root))


def test_specs_are_those_of_the_world_or_those_given():
    world = IsaacWorld()
    env = IsaacEnv(world)
    assert env.action_spec == Unbounded((3, 2)) and env.observation_spec["critic", "height"] == Unbounded((3, 1))
    world.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,))
    assert IsaacEnv(world).action_spec == Bounded(-1.0, 1.0, (3, 4))
    env = IsaacEnv(world, action_spec=Bounded(-2.0, 2.0, (3, 2)))
    with pytest.raises(SpecError, match=r"an action of shape \[3, 2\], got \[3\]"):
        env.step(env.reset().set("action", torch.zeros(3)))


def test_it_is_collected_and_evaluated():
    env = TransformedEnv(IsaacEnv(IsaacWorld()), CatTensors(["policy", ("critic", "height")], "observation"))
    batch = Collector(env, frames_per_batch=30, seed=0).collect()
    assert batch.shape == (3, 10) and batch["next", "observation"].shape == (3, 10, 3)
    world = IsaacWorld()
    evaluator = Evaluator(IsaacEnv(world), num_episodes=6)
    result = evaluator(lambda root: root.set("action", torch.zeros(3, 2)))
    assert set(result.lengths.tolist()) <= set(LENGTHS)
    evaluator.close()
    assert world.is_closed


def test_a_state_is_refused():
    with pytest.raises(EnvError, match="a state to save, got a world without one. A run that is continued"):
        IsaacEnv(IsaacWorld()).state_dict()


class Odd(IsaacWorld):
    """Returns something else than it should."""

    def __init__(self, mistake):
        super().__init__(2)
        self.mistake = mistake

    def observed(self):
        seen = super().observed()
        if self.mistake == "rows":
            seen["policy"] = seen["policy"][:1]
        elif self.mistake == "list":
            seen["policy"] = seen["policy"].tolist()
        elif self.mistake == "name":
            seen["reward"] = seen.pop("policy")
        return {} if self.mistake == "nothing" else seen

    def step(self, actions):
        results = super().step(actions)
        if self.mistake == "values":
            return results[:3]
        if self.mistake == "rewards":
            return results[0], results[1][:1], *results[2:]
        if self.mistake == "flags":
            return *results[:2], results[2].tolist(), *results[3:]
        return results


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("rows", r"Odd.reset: expected 'policy' as a tensor of shape \[2, '...'\], got \[1, 2\]"),
        ("list", "'policy' as a tensor of shape .*, got list"),
        ("name", r"names that the environment does not use itself, got \['reward'\]. Rename the group"),
        ("nothing", "observations as a dict or TensorDict of tensors, or a tensor, got dict"),
        ("values", r"Odd.step: expected \(observations, rewards, terminated, .*, got 3 values"),
        ("rewards", r"rewards as a tensor of shape \[2\], got \[1\]"),
        ("flags", r"terminated as a tensor of shape \[2\], got list"),
    ],
)
def test_a_mistake_of_the_world_is_named(mistake, message):
    with pytest.raises(EnvError, match=message):
        env = IsaacEnv(Odd(mistake))
        env.step(env.act_at_random(env.reset()))


def test_what_is_no_such_world_is_refused():
    with pytest.raises(EnvError, match="a world with num_envs, as of Isaac Lab or rsl_rl, got CartPoleEnv"):
        IsaacEnv(gymnasium.make("CartPole-v1").unwrapped)
    with pytest.raises(ConfigError, match="last_observation to be one of told, previous, terminated, got 'guess'"):
        IsaacEnv(IsaacWorld(), last_observation="guess")

    class Silent(IsaacWorld):
        @property
        def num_actions(self):
            raise AttributeError

    with pytest.raises(EnvError, match=r"single_action_space or num_actions, got Silent. Pass action_spec="):
        IsaacEnv(Silent())


def test_a_world_of_one_tensor():
    class Plain:
        num_envs, num_actions = 2, 1

        def get_observations(self):
            return torch.zeros(2, 4), {"observations": {}}

        def step(self, actions):
            return torch.ones(2, 4), torch.zeros(2), torch.zeros(2), {}

    batch = IsaacEnv(Plain()).rollout(3)
    assert batch["observation"].shape == (2, 3, 4) and batch["next", "observation"].sum() == 24


def test_a_world_of_rsl_rl_itself():
    """Its abstract class, where it is installed; not among the extras."""
    vec_env = pytest.importorskip("rsl_rl.env").VecEnv

    class World(SeededRslWorld, vec_env):
        pass

    assert vec_env.__abstractmethods__ == {"get_observations", "step"}
    check_env(IsaacEnv(World()), num_steps=30)
