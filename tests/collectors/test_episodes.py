"""Whole episodes: which ones, in which order, padded or packed, and that nothing is lost or joined wrongly."""

import pytest
import torch
from recorder import Recorder
from torch import nn

from cases.collecting import Impatient, Unsaveable, counting, info
from fakes import CountingSimulator, FaultySimulator, PlantedError
from torchrl.agents import Agent, MinibatchEpochs
from torchrl.collectors import Collector, EpisodeCollector, PlacedPolicy
from torchrl.data import lengths_of, pack, split_trajectories, stitch, unpack, unpad
from torchrl.data.specs import Unbounded
from torchrl.envs import GymEnv, SerialEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, EnvError, NonFiniteError, SpecError
from torchrl.modules import MLP, Categorical, ProbabilisticActor, RandomPolicy
from torchrl.objectives import DiscountedReturn, ReinforceLoss

MASK, TRAJ_IDS = ("collector", "mask"), ("collector", "traj_ids")
VERSION, ENV_ROW = ("collector", "policy_version"), ("collector", "env_row")


class Policy(nn.Module):
    """Acts 0 and writes how often it was called."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, root):
        self.calls += 1
        root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
        return root.set("call", torch.full(root.batch_size, self.calls))


def of_rows(batch, key):
    """One list per episode, without its padding."""
    return [row[key].squeeze(-1).tolist() if row[key].ndim > 1 else row[key].tolist() for row in unpad(batch)]


def firsts(batch, key):
    return [row[key].flatten()[0].item() for row in unpad(batch)]


# ---- finished="leave" ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SerialEnv, Impatient])
def test_five_episodes_over_two_rows(kind):
    """Row 0 plays 2, 3, 4 … steps, row 1 plays 5, 1 …: at step 2 row 0 begins episode 2, at step 5 both begin."""
    env = counting([2, 3, 4], [5, 1], kind=kind)
    batch = EpisodeCollector(env, Policy(), num_episodes=5).collect()
    assert batch.batch_size == (5, 5) and lengths_of(batch).tolist() == [2, 5, 3, 4, 1]
    assert of_rows(batch, TRAJ_IDS) == [[0] * 2, [1] * 5, [2] * 3, [3] * 4, [4]]
    assert firsts(batch, ENV_ROW) == [0, 1, 0, 0, 1]
    assert of_rows(batch, "observation") == [[*range(n)] for n in (2, 5, 3, 4, 1)]
    assert of_rows(batch, ("next", "observation")) == [[*range(1, n + 1)] for n in (2, 5, 3, 4, 1)]
    assert of_rows(batch, "call") == [[1, 2], [1, 2, 3, 4, 5], [3, 4, 5], [6, 7, 8, 9], [6]]
    assert of_rows(batch, ("next", "done")) == [[False] * (n - 1) + [True] for n in (2, 5, 3, 4, 1)]
    assert of_rows(batch, "is_init") == [[True] + [False] * (n - 1) for n in (2, 5, 3, 4, 1)]


@pytest.mark.parametrize("kind", [SerialEnv, Impatient])
def test_no_long_episode_is_left_out(kind):
    """Row 0 ends ten times while row 1 plays its one."""
    collector = EpisodeCollector(counting(1, 10, kind=kind), Policy(), num_episodes=4)
    for begun in (0, 4):
        batch = collector.collect()
        assert lengths_of(batch).tolist() == [1, 10, 1, 1] and firsts(batch, ENV_ROW) == [0, 1, 0, 0]
        assert firsts(batch, TRAJ_IDS) == [begun, begun + 1, begun + 2, begun + 3]
    assert collector.frames == 26


@pytest.mark.parametrize("kind", [SerialEnv, Impatient])
@pytest.mark.parametrize(("num_episodes", "rows"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2])])
def test_rows_beyond_the_number_of_episodes_do_nothing(kind, num_episodes, rows):
    collector = EpisodeCollector(counting(3, 2, 4, kind=kind), Policy(), num_episodes=num_episodes)
    for _ in range(2):
        batch = collector.collect()
        assert firsts(batch, ENV_ROW) == rows and lengths_of(batch).tolist() == [3, 2, 4][:num_episodes]


def test_a_row_that_left_takes_no_step():
    env = counting(2, 7)
    EpisodeCollector(env, Policy(), num_episodes=2).collect()
    assert env.simulators[0].num_steps == 0 and env.simulators[0].episode == 1  # restarted, and no step since


# ---- finished="restart" ----------------------------------------------------------------------------------------------


def test_episodes_come_in_the_order_in_which_they_end():
    """Row 0 ends at steps 2, 5, 7, 10 …, row 1 at 5, 10 …."""
    collector = EpisodeCollector(counting([2, 3], 5), Policy(), num_episodes=2, finished="restart")
    first, second, third = (collector.collect() for _ in range(3))
    assert firsts(first, TRAJ_IDS) == [0, 2] and of_rows(first, "call") == [[1, 2], [3, 4, 5]]
    assert firsts(second, TRAJ_IDS) == [1, 3] and of_rows(second, "call") == [[1, 2, 3, 4, 5], [6, 7]]
    assert firsts(third, TRAJ_IDS) == [5, 4] and of_rows(third, "call") == [[8, 9, 10], [6, 7, 8, 9, 10]]
    assert collector.frames == 5 + 7 + 8


def test_an_unfinished_episode_is_delivered_whole_with_the_versions_that_played_it():
    collector = EpisodeCollector(counting(2, 5), Policy(), num_episodes=1, finished="restart")
    delivered = []
    for _ in range(4):
        delivered.append(collector.collect())
        collector.update_policy_weights_()
    assert [firsts(batch, TRAJ_IDS)[0] for batch in delivered] == [0, 2, 1, 3]
    assert of_rows(delivered[2], VERSION) == [[0, 0, 1, 1, 2]]
    assert of_rows(delivered[2], "observation") == [[0, 1, 2, 3, 4]] and firsts(delivered[2], ENV_ROW) == [1]


def test_episodes_that_are_over_already_need_no_step():
    policy = Policy()
    collector = EpisodeCollector(counting(3, 3, 3), policy, num_episodes=1, finished="restart")
    ids = [firsts(collector.collect(), TRAJ_IDS)[0] for _ in range(3)]
    assert ids == [0, 1, 2] and policy.calls == 3
    collector.collect()
    assert policy.calls == 6


@pytest.mark.parametrize("num_episodes", [1, 2, 3, 7])
def test_what_is_delivered_is_the_single_long_rollout(num_episodes):
    """However it is cut into batches: every episode of the run, step for step, and none twice."""
    cycles = [2, 3, 1], [5, 1], [4]
    collector = EpisodeCollector(counting(*cycles), Policy(), num_episodes=num_episodes, finished="restart")
    episodes = {}
    for _ in range(24 // num_episodes):
        for row in unpad(collector.collect()):
            assert episodes.setdefault(row[TRAJ_IDS][0].item(), row) is row
    long = Collector(counting(*cycles), Policy(), frames_per_batch=3 * 80).collect()
    reference, is_complete = stitch(long.split(16, 1))
    whole = {
        (row_and_call(row)): row
        for row, complete in zip(unpad(reference), is_complete.tolist(), strict=True)
        if complete
    }
    for row in episodes.values():
        twin = whole[row_and_call(row)]
        for key in ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "done"), "is_init"):
            assert torch.equal(row[key], twin[key])
    ends = [row["call"][-1].item() for row in episodes.values()]
    assert ends == sorted(ends)


def row_and_call(row):
    """What tells an episode of the counting rows above: when it began, and when it ended, and its number there."""
    return row["call"][0].item(), row["call"][-1].item(), row["next", "reward"][0].item()


def test_resetting_drops_what_is_unfinished():
    collector = EpisodeCollector(counting(2, 9), Policy(), num_episodes=1, finished="restart")
    collector.collect()
    collector.reset()
    batches = [collector.collect() for _ in range(2)]
    assert [firsts(batch, TRAJ_IDS)[0] for batch in batches] == [3, 5]
    assert all(batch["observation"].flatten()[0] == 0 for batch in batches)


@pytest.mark.parametrize("finished", ["leave", "restart"])
@pytest.mark.parametrize("ending", ["terminated", "truncated", "both"])
def test_an_episode_is_over_however_it_ends(finished, ending):
    env = SerialEnv([lambda: CountingSimulator(2, ending=ending), lambda: CountingSimulator(3, ending=ending)])
    batch = EpisodeCollector(env, Policy(), num_episodes=2, finished=finished, max_episode_steps=9).collect()
    assert lengths_of(batch).tolist() == [2, 3]


# ---- both ------------------------------------------------------------------------------------------------------------

MODES = pytest.mark.parametrize("finished", ["leave", "restart"])


@MODES
def test_padding_is_zero_and_outside_the_mask(finished):
    batch = EpisodeCollector(counting(2, 3), Policy(), num_episodes=2, finished=finished).collect()
    outside = ~batch[MASK]
    assert outside.any()
    for key, value in batch.items(True, True):
        assert key == MASK or not value[outside].any(), key


@MODES
def test_packed_episodes_are_those_of_the_padded_batch(finished):
    padded, packed = (
        EpisodeCollector(counting([2, 3], 5), Policy(), num_episodes=3, finished=finished, packed=packed)
        for packed in (False, True)
    )
    for _ in range(3):
        one, two = padded.collect(), packed.collect()
        flat, lengths = pack(one)
        assert (flat == two).all() and two.batch_size == (int(lengths.sum()),)
        assert (split_trajectories(two) == one).all() and (unpack(two, lengths) == one).all()
    assert padded.frames == packed.frames > 0


@MODES
def test_state_is_carried_inside_an_episode_and_begins_anew_with_the_next(finished):
    def count(root):
        root.set(("next", "count"), root["count"] + 1)
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))

    env = TransformedEnv(counting([2, 3], 5), TensorDictPrimer({"count": Unbounded((1,))}, defaults={"count": 7.0}))
    collector = EpisodeCollector(env, count, num_episodes=3, finished=finished)
    for _ in range(2):
        for row in unpad(collector.collect()):
            assert row["count"].flatten().tolist() == [7.0 + step for step in range(len(row))]
            assert row["next", "count"].flatten().tolist() == [8.0 + step for step in range(len(row))]


@MODES
def test_iterating_stops_at_the_total_frames(finished):
    collector = EpisodeCollector(counting(3), Policy(), num_episodes=2, total_frames=13, finished=finished)
    assert [int(batch[MASK].sum()) for batch in collector] == [6, 6, 6] and collector.frames == 18


@MODES
def test_batches_are_the_receivers_own(finished):
    collector = EpisodeCollector(counting([2, 3], 5), Policy(), num_episodes=2, finished=finished)
    batches = [collector.collect() for _ in range(3)]
    copies = [batch.clone() for batch in batches]
    collector.collect()
    assert all((batch == copy).all() for batch, copy in zip(batches, copies, strict=True))


@MODES
@pytest.mark.parametrize("num_batches", [0, 1, 2])
def test_a_state_continues_the_run(finished, num_batches):
    def make(policy):
        return EpisodeCollector(counting([2, 3], 5, 4), policy, num_episodes=2, finished=finished, seed=3)

    collector = make(Policy())
    for _ in range(num_batches):
        collector.collect()
        collector.update_policy_weights_()
    state, calls = collector.state_dict(), collector.policy.calls
    other = make(collector.policy)
    other.load_state_dict(state)
    expected = [collector.collect() for _ in range(3)]
    collector.policy.calls = calls
    for batch in expected:
        assert (other.collect() == batch).all()
    assert other.frames == collector.frames and other.policy_version == num_batches


def test_a_state_that_names_the_row_as_it_was_called_before_goes_on():
    collector = EpisodeCollector(counting([2, 3], 5, 4), Policy(), num_episodes=2, finished="restart", seed=3)
    collector.collect()
    state = collector.state_dict()
    state["kept"]["collector"]["slot"] = state["kept"]["collector"].pop("env_row")
    collector.load_state_dict(state)
    assert all(firsts(collector.collect(), ENV_ROW) for _ in range(2))


@MODES
def test_where_the_environment_cannot_be_saved_new_episodes_start_and_it_says_so(finished):
    env = SerialEnv([lambda: Unsaveable(2), lambda: Unsaveable(9)])
    collector = EpisodeCollector(env, Policy(), num_episodes=1, finished=finished, seed=1)
    last = firsts(collector.collect(), TRAJ_IDS)[0]
    state = collector.state_dict()
    with pytest.warns(UserWarning, match="New episodes start after loading: Unsaveable"):
        collector.load_state_dict(state)
    batch = collector.collect()
    assert firsts(batch, TRAJ_IDS)[0] > last and of_rows(batch, "observation") == [[0, 1]]


@MODES
def test_after_an_exception_new_episodes_start_and_nothing_is_joined_wrongly(finished):
    env = SerialEnv(
        [lambda: FaultySimulator(length=2), lambda: FaultySimulator("raises_in_step", from_step=4, length=9)]
    )
    collector = EpisodeCollector(env, Policy(), num_episodes=1, finished=finished)
    if finished == "leave":  # row 1 waits, whatever it would do
        collector.num_episodes = 2
    else:
        collector.collect()
    with pytest.raises(PlantedError):
        for _ in range(3):
            collector.collect()
    env.simulators[1].fault = None
    for row in unpad(collector.collect()):
        assert row["observation"].flatten().tolist() == list(map(float, range(len(row))))


def test_a_nan_is_named_with_environment_and_step():
    env = SerialEnv([lambda: FaultySimulator(length=9), lambda: FaultySimulator("reward_nan", from_step=2, length=9)])
    collector = EpisodeCollector(env, Policy(), num_episodes=2)
    with pytest.raises(NonFiniteError, match=r"nan in environment \[1\] at step 1"):
        collector.collect()
    assert collector.frames == 0


@MODES
def test_an_episode_without_an_end_is_refused_and_one_of_just_that_length_is_not(finished):
    options = {"num_episodes": 2, "finished": finished, "max_episode_steps": 7}
    for _ in range(3):
        EpisodeCollector(counting(3, 7), Policy(), **options).collect()
    with pytest.raises(
        EnvError, match=r"episodes of at most 7 steps, got one that goes on in the rows \[1\] of the environment"
    ):
        collector = EpisodeCollector(counting(3, 8), Policy(), **options)
        for _ in range(3):
            collector.collect()


def test_the_age_of_an_episode_counts_over_batches():
    collector = EpisodeCollector(counting(2, 99), Policy(), num_episodes=1, finished="restart", max_episode_steps=5)
    collector.collect(), collector.collect()
    with pytest.raises(EnvError, match="at most 5 steps"):
        collector.collect()


def test_a_policy_that_changes_what_it_writes_is_refused():
    policy = Policy()
    collector = EpisodeCollector(counting(2), policy, num_episodes=1)
    collector.collect()
    policy.forward = lambda root: root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
    with pytest.raises(SpecError, match="'call' is missing"):
        collector.collect()


def test_arguments_that_make_no_sense_are_refused_by_name():
    env = counting(2)
    with pytest.raises(EnvError, match="EpisodeCollector: expected an Env"):
        EpisodeCollector("CartPole-v1", num_episodes=1)
    for number in (0, -1, 2.5):
        with pytest.raises(ConfigError, match="num_episodes: expected a whole number of at least 1"):
            EpisodeCollector(env, num_episodes=number)
    with pytest.raises(ConfigError, match="finished: expected 'leave' or 'restart', got 'stay'"):
        EpisodeCollector(env, num_episodes=1, finished="stay")
    with pytest.raises(ConfigError, match="max_episode_steps"):
        EpisodeCollector(env, num_episodes=1, max_episode_steps=0)


def test_one_world_without_a_batch_dimension():
    collector = EpisodeCollector(SerialEnv(lambda: CountingSimulator([2, 3])), Policy(), num_episodes=2)
    assert lengths_of(collector.collect()).tolist() == [2, 3]


def test_it_acts_at_random_without_a_policy_and_a_seed_repeats_it():
    def collect():
        collector = EpisodeCollector(GymEnv("CartPole-v1", num_envs=2), num_episodes=3, seed=3)
        assert isinstance(collector.policy, RandomPolicy)
        batch = collector.collect()
        collector.shutdown()
        collector.shutdown()
        return batch

    assert (collect() == collect()).all()


def test_a_postproc_and_a_policy_on_a_device():
    policy = ProbabilisticActor(MLP(4, 2), Categorical)
    env = GymEnv("CartPole-v1", num_envs=2)
    collector = EpisodeCollector(
        env, policy, num_episodes=2, device="cpu", storage_device="cpu", postproc=lambda b: b.select("logits")
    )
    collector._act = PlacedPolicy(policy, torch.device("cpu"))
    before = collector.collect()
    with torch.no_grad():
        policy.module.layers[-1].bias.fill_(9.0)
    assert set(before.keys()) == {"logits"} and collector.collect()["logits"].max() < 5
    collector.update_policy_weights_()
    assert collector.collect()["logits"].max() > 5
    env.close()


@MODES
@pytest.mark.parametrize("packed", [False, True])
def test_an_agent_trains_reinforce_on_whole_episodes(finished, packed):
    torch.manual_seed(0)
    actor = ProbabilisticActor(MLP(4, 2, num_cells=(16,)), Categorical)
    loss = ReinforceLoss(actor)
    env = GymEnv("CartPole-v1", num_envs=3)
    collector = EpisodeCollector(env, actor, num_episodes=4, total_frames=200, finished=finished, packed=packed, seed=1)
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-2)
    recorder = Recorder()
    agent = Agent(
        collector,
        MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=10_000),
        advantage=DiscountedReturn(gamma=0.99),
        logger=recorder,
    )
    before = [parameter.clone() for parameter in actor.parameters()]
    agent.train()
    assert agent.frames == collector.frames >= 200 and collector.policy_version == len(recorder.rows) > 1
    assert all(not torch.equal(old, new) for old, new in zip(before, actor.parameters(), strict=True))
    assert all("train/episode_return" in row and "loss/loss_objective" in row for _, row in recorder.rows)
    env.close()


def test_an_agent_goes_on_from_a_checkpoint(tmp_path):
    def make():
        torch.manual_seed(0)
        actor = ProbabilisticActor(MLP(4, 2), Categorical, generator=torch.Generator().manual_seed(1))
        loss = ReinforceLoss(actor)
        env = GymEnv("CartPole-v1", num_envs=3)
        collector = EpisodeCollector(env, actor, num_episodes=2, total_frames=150, finished="restart", seed=1)
        optimizer = torch.optim.SGD(loss.trainable_parameters(), lr=1e-2)
        optimise = MinibatchEpochs(loss, optimizer, num_epochs=1, minibatch_size=10_000)
        return Agent(collector, optimise, advantage=DiscountedReturn())

    agent = make()
    agent.train()
    agent.save(tmp_path / "agent.pt")
    agent.collector.total_frames = 400
    agent.train()
    other = make()
    other.load(tmp_path / "agent.pt")
    other.collector.total_frames = 400
    other.train()
    assert agent.frames == other.frames
    for key, value in agent.policy.state_dict().items():
        assert torch.equal(value, other.policy.state_dict()[key])


def test_the_parameters_of_the_rows_change_between_batches_and_are_recorded():
    """Row 1 plays on: the policy's change at once, those of the world with its next episode."""
    collector = EpisodeCollector(counting(2, 5), Policy(), num_episodes=1, finished="restart")
    collector.set_info(agent_info=info(skill=[0, 1]), env_info=info(task=[2, 3]))
    collector.collect()
    collector.set_info(agent_info=info(skill=[10, 11]), env_info=info(task=[12, 13]))
    second, first = collector.collect(), collector.collect()
    assert firsts(first, ENV_ROW) == [1] and of_rows(first, "skill") == [[1, 1, 11, 11, 11]]
    assert of_rows(first, ("env_info", "task")) == [[3] * 5]
    assert firsts(second, ENV_ROW) == [0] and of_rows(second, "skill") == [[10, 10]]
    assert of_rows(collector.collect(), ("env_info", "task")) == [[12, 12]]


def test_where_rows_leave_they_change_with_the_next_batch():
    collector = EpisodeCollector(counting(2, 3), Policy(), num_episodes=3)
    for skills in ([0, 1], [2, 3]):
        collector.set_info(agent_info=info(skill=skills), env_info=info(task=skills))
        batch = collector.collect()
        assert firsts(batch, "skill") == firsts(batch, ("env_info", "task")) == [*skills, skills[0]]
