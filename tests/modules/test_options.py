"""Options: which one acts when, the log-probability of option and action, where gradient goes, and the state."""

import math
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.recurrent import make_env
from torchrl.collectors import Collector, EpisodeCollector, MultiSyncCollector
from torchrl.envs import CartPole, GymEnv, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    LSTM,
    MLP,
    Categorical,
    ExplorationType,
    MaskedCategorical,
    NormalHead,
    Operator,
    Options,
    PerOption,
    ProbabilisticActor,
    Sequence,
    TanhNormal,
    ValueEnsemble,
    ValueOperator,
    replay_policy,
    set_exploration_type,
)
from torchrl.modules.options import OptionAndAction
from torchrl.objectives import (
    GAE,
    A2CLoss,
    BehaviourCloningLoss,
    ClipPPOLoss,
    DiscreteSACLoss,
    KLPenaltyPPOLoss,
    SACLoss,
    VTrace,
)

INDEX, RUNNING, AGE, BEGINS = (("option", name) for name in ("index", "running", "age", "begins"))
ENDING = ("option", "termination")
READS = ["observation", INDEX]


class Fixed(nn.Module):
    """The same numbers for every row, which can be trained."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers, dtype=torch.float32))

    def forward(self, x):
        return self.numbers.expand(*x.shape[:-1], -1)


def logit(p):
    return math.log(p) - math.log(1 - p)


def fixed_policy(**options):
    """Three options; the chooser takes them by 1/2, 1/4 and 1/4; they end by 1/2, 1/4 and 1/5; two actions each."""
    chooser = Fixed(math.log(0.5), math.log(0.25), math.log(0.25))
    worker = ProbabilisticActor(PerOption(Fixed(0, 0, math.log(3), 0, 0, math.log(7)), 3), Categorical, in_keys=READS)
    return Options(3, chooser, worker, **options)


def fixed_endings():
    return Fixed(logit(0.5), logit(0.25), logit(0.2))


def step(running, *, index=None, action=None, age=1):
    """Rows of which the given options run, and perhaps what was decided."""
    num = len(running)
    rows = TensorDict({"observation": torch.zeros(num, 1)}, [num])
    rows[RUNNING], rows[AGE] = torch.tensor(running), torch.full((num,), age)
    if index is not None:
        rows[INDEX], rows["action"] = torch.tensor(index), torch.tensor(action)
    return rows


def make_policy(num_actions=2, **options):
    """Three options of small networks for CartPole."""
    options.setdefault("termination", MLP(4, 3, num_cells=(8,)))
    network = PerOption(MLP(4, 3 * num_actions, num_cells=(8,)), 3)
    worker = ProbabilisticActor(network, Categorical, in_keys=READS)
    return Options(3, MLP(4, 3, num_cells=(8,)), worker, **options)


def make_critic():
    return ValueOperator(PerOption(MLP(4, 3 + 1), 3 + 1), in_keys=["observation", RUNNING])


def cartpole(policy, **options):
    return make_env(3, primer=TensorDictPrimer(policy.initial_state()), **options)


def collect(policy, num_steps, **options):
    """Steps of three rows, which go on in another episode where one has ended."""
    return Collector(cartpole(policy, **options), policy, frames_per_batch=3 * num_steps, seed=0).collect()


class TestPerOption:
    def test_takes_the_numbers_of_the_option(self):
        network = PerOption(Fixed(1, 2, 3, 4, 5, 6), 3)
        assert network(torch.zeros(3, 1), torch.tensor([2, 0, 1])).tolist() == [[5, 6], [1, 2], [3, 4]]

    def test_takes_them_from_each_of_several_tensors_and_rows_in_time(self):
        network = PerOption(nn.Sequential(Fixed(1, 2), NormalHead(2)), 2)
        loc, scale = network(torch.zeros(2, 3, 1), torch.tensor([[0, 1, 0], [1, 1, 0]]))
        assert loc.squeeze(-1).tolist() == [[1, 2, 1], [2, 2, 1]] and scale.shape == (2, 3, 1)

    def test_outputs_that_cannot_be_shared_out_are_refused(self):
        with pytest.raises(SpecError, match="multiple of the 3 options, got 4"):
            PerOption(Fixed(1, 2, 3, 4), 3)(torch.zeros(1, 1), torch.tensor([0]))
        with pytest.raises(ConfigError, match="num_options"):
            PerOption(Fixed(1), 0)


class TestLogProb:
    """The hand numbers: π_Ω = (1/2, 1/4, 1/4), β = (1/2, 1/4, 1/5), and of action 0: 1/2, 3/4, 1/8."""

    @pytest.mark.parametrize(
        ("running", "index", "action", "option", "pair"),
        [
            (3, 1, 0, 1 / 4, 3 / 16),  # none runs: π_Ω alone
            (0, 0, 0, 1 / 2 + 1 / 2 * 1 / 2, 3 / 8),  # goes on, or ends and is chosen again
            (0, 2, 0, 1 / 2 * 1 / 4, 1 / 64),
            (1, 1, 1, 3 / 4 + 1 / 4 * 1 / 4, 13 / 64),
            (2, 0, 1, 1 / 5 * 1 / 2, 1 / 20),
        ],
    )
    def test_is_that_of_option_and_action_together(self, running, index, action, option, pair):
        policy = fixed_policy(termination=fixed_endings())
        built = policy.build(step([running], index=[index], action=[action]))
        assert built.parts["option"].log_prob(torch.tensor([index])).exp().item() == pytest.approx(option)
        assert built.log_prob(torch.tensor([action])).exp().item() == pytest.approx(pair)

    def test_without_endings_an_option_that_runs_goes_on(self):
        built = fixed_policy(every=9).build(step([1, 3], index=[1, 1], action=[0, 0]))
        assert built.log_prob(torch.tensor([0, 0])).exp().tolist() == pytest.approx([3 / 4, 3 / 16])
        assert built.parts["option"].log_prob(torch.tensor([0, 0])).exp().tolist() == pytest.approx([0, 1 / 2])

    def test_entropy_and_divergence_are_sums_and_finite_where_nothing_is_left_to_chance(self):
        policy = fixed_policy(every=9)
        built = policy.build(step([1, 3], index=[1, 0], action=[0, 0]))
        of_action = [-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), math.log(2)]
        assert built.entropy().tolist() == pytest.approx([of_action[0], of_action[1] + 1.5 * math.log(2)])
        assert built.kl(built).tolist() == pytest.approx([0, 0])
        built.entropy().sum().backward()
        assert all(x.grad.isfinite().all() for x in policy.parameters())

    def test_what_was_acted_on_is_what_is_built(self):
        policy = make_policy(every=4)
        batch = cartpole(policy).rollout(12, policy)
        built = policy.build(batch)
        torch.testing.assert_close(built.log_prob(batch["action"]), batch["action_log_prob"])
        log_prob = built.parts["option"].log_prob(batch[INDEX])
        torch.testing.assert_close(log_prob, batch["option", "log_prob"])

    def test_draws_have_these_probabilities(self):
        policy = fixed_policy(termination=fixed_endings(), generator=torch.Generator().manual_seed(0))
        rows = policy(step([0] * 40_000))
        share = torch.bincount(rows[INDEX], minlength=3) / 40_000
        assert share.tolist() == pytest.approx([3 / 4, 1 / 8, 1 / 8], abs=0.01)
        assert (rows[ENDING] == 0.5).all() and (rows[BEGINS] == (rows[INDEX] != 0)).all()

    def test_an_option_that_was_not_chosen_yet_is_named(self):
        with pytest.raises(KeyMissing, match="Options.build, for the option that was chosen"):
            fixed_policy().build(step([3]))


class TestGradient:
    def gradients(self, policy, **rows):
        running, (index, action) = rows["running"], rows["chosen"]
        policy.build(step([running], index=[index], action=[action])).log_prob(torch.tensor([action])).sum().backward()
        parts = {"chooser": policy.chooser, "worker": policy.worker, "termination": policy.termination}
        numbers = {name: next(part.parameters()).grad for name, part in parts.items() if part is not None}
        return {name: None if grad is None else grad.tolist() for name, grad in numbers.items()}

    def test_an_option_that_ends_trains_chooser_ending_and_its_own_actions(self):
        found = self.gradients(fixed_policy(termination=fixed_endings()), running=2, chosen=(0, 1))
        assert found["termination"] == pytest.approx([0, 0, 0.8])  # d log β = 1 - β of the option that ran
        assert found["chooser"] == pytest.approx([0.5, -0.25, -0.25])  # 1[o] - π_Ω
        assert found["worker"] == pytest.approx([-0.5, 0.5, 0, 0, 0, 0])

    def test_an_option_that_goes_on_is_less_likely_to_end(self):
        found = self.gradients(fixed_policy(termination=fixed_endings()), running=1, chosen=(1, 0))
        # p = 1 - β (1 - π) = 13/16; dp/dβ = -3/4; dβ/dlogit = 3/16
        assert found["termination"] == pytest.approx([0, -0.75 * 3 / 16 / (13 / 16), 0])
        assert found["worker"] == pytest.approx([0, 0, 0.25, -0.25, 0, 0])

    def test_where_none_ran_no_ending_is_trained(self):
        found = self.gradients(fixed_policy(termination=fixed_endings()), running=3, chosen=(0, 1))
        assert found["termination"] == pytest.approx([0, 0, 0])
        assert found["chooser"] == pytest.approx([0.5, -0.25, -0.25])

    def test_an_option_that_must_go_on_does_not_train_the_chooser(self):
        found = self.gradients(fixed_policy(every=5), running=1, chosen=(1, 0))
        assert found["chooser"] == [0, 0, 0] and found["worker"] == pytest.approx([0, 0, 0.25, -0.25, 0, 0])


class Scripted(nn.Module):
    """Logits from the observation: what the script says for its number, certain."""

    def __init__(self, script):
        super().__init__()
        self.register_buffer("script", torch.tensor(script, dtype=torch.float32))

    def forward(self, x):
        return self.script[x.squeeze(-1).long()] * 100.0


class TestSequence:
    def test_endings_are_obeyed(self):
        # at steps 0, 1, 2, ... the chooser wants 0, 1, 1, 0, 2, 2; an ending comes at steps 2 and 4 alone
        wanted = [nn.functional.one_hot(torch.tensor(o), 3).tolist() for o in (0, 1, 1, 0, 2, 2)]
        endings = [[1.0 if time in (2, 4) else -1.0] * 3 for time in range(6)]
        worker = ProbabilisticActor(PerOption(Fixed(*[0.0] * 6), 3), Categorical, in_keys=READS)
        policy = Options(3, Scripted(wanted), worker, termination=Scripted(endings))
        rows = step([3], age=0)
        seen = {"index": [], "begins": [], "age": [], "running": []}
        for time in range(6):
            rows["observation"] = torch.full((1, 1), float(time))
            rows = policy(rows)
            for name, numbers in seen.items():
                numbers.append(rows["option", name].item())
            rows = step([0]).update(rows["next"]).update({"observation": rows["observation"]})
        assert seen["running"] == [3, 0, 0, 1, 1, 2]
        assert seen["index"] == [0, 0, 1, 1, 2, 2]
        assert seen["begins"] == [True, False, True, False, True, False]
        assert seen["age"] == [0, 1, 2, 1, 2, 1]

    def test_every_k_steps_another_is_chosen(self):
        policy = fixed_policy(every=2)
        rows, seen = step([3], age=0), []
        for _ in range(5):
            rows = policy(rows)
            seen.append((rows[RUNNING].item(), rows[AGE].item(), rows[BEGINS].item(), rows[ENDING].item()))
            rows = step([0]).update(rows["next"])
        assert [begins for _, _, begins, _ in seen] == [True, False, True, False, True]
        state = [(running == 3, age, ending) for running, age, _, ending in seen]
        assert state == [(True, 0, 1), (False, 1, 0), (True, 0, 1), (False, 1, 0), (True, 0, 1)]

    def test_an_option_lasts_an_episode_if_nothing_ends_it(self):
        policy = make_policy(termination=None)
        batch = collect(policy, 40)
        starts = batch["is_init"].squeeze(-1)
        assert starts[:, 1:].any() and torch.equal(batch[BEGINS], starts)

    def test_no_option_passes_an_ending(self):
        policy = make_policy(every=7)
        batch = collect(policy, 40, max_episode_steps=5)
        starts, later = batch["is_init"].squeeze(-1), ~batch["is_init"].squeeze(-1)[:, 1:]
        assert (batch[RUNNING][starts] == 3).all() and (batch[AGE][starts] == 0).all() and batch[BEGINS][starts].all()
        after = batch["next", "option", "running"][:, :-1]
        assert torch.equal(batch[RUNNING][:, 1:][later], after[later])
        ended = batch["next", "done"].squeeze(-1)
        assert (batch["next", "option", "running"][ended] == batch[INDEX][ended]).all()  # the successor's, not 3

    def test_the_most_probable_option_is_taken_without_chance(self):
        policy = fixed_policy(termination=fixed_endings())
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            rows = policy(step([3, 0, 1, 2]))
        assert rows[INDEX].tolist() == [0, 0, 1, 2] and rows["action"].tolist() == [0, 0, 0, 1]
        expected = [1 / 2 * 1 / 2, 3 / 4 * 1 / 2, 13 / 16 * 3 / 4, 17 / 20 * 7 / 8]
        assert rows["action_log_prob"].exp().tolist() == pytest.approx(expected)


class TestState:
    def test_says_where_episodes_start(self):
        initial = make_policy().initial_state()
        assert initial[RUNNING].item() == 3 and initial[AGE].item() == 0
        assert initial[RUNNING].dtype is torch.int64

    def test_a_folder_of_another_name(self):
        worker = ProbabilisticActor(
            PerOption(MLP(4, 4), 2), Categorical, in_keys=["observation", ("plan", "a", "index")]
        )
        policy = Options(2, MLP(4, 2), worker, every=3, state_key=("plan", "a"))
        env = TransformedEnv(GymEnv("CartPole-v1", num_envs=2), TensorDictPrimer(policy.initial_state()))
        batch = env.rollout(4, policy)
        assert batch["plan", "a", "index"].shape == (2, 4) and batch["next", "plan", "a", "age"].shape == (2, 4)

    def test_an_environment_that_does_not_carry_it_is_refused(self):
        with pytest.raises(KeyMissing, match=r"TensorDictPrimer\(policy.initial_state\(\)\)"):
            GymEnv("CartPole-v1", num_envs=2).rollout(3, make_policy())

    def test_wrong_parts_are_refused(self):
        worker = ProbabilisticActor(MLP(4, 2), Categorical)
        with pytest.raises(ConfigError, match=r"reads \('option', 'index'\).*PerOption"):
            Options(3, MLP(4, 3), worker)
        with pytest.raises(ConfigError, match="every"):
            make_policy(every=0)
        with pytest.raises(ConfigError, match="num_options"):
            Options(0, MLP(4, 3), worker)
        with pytest.raises(SpecError, match="3 logits of option.termination"):
            fixed_policy(termination=Fixed(0, 0))(step([3]))
        policy = make_policy(num_actions=3)
        with pytest.raises(SpecError, match="3"):
            cartpole(policy).rollout(2, policy)


def test_actions_of_real_numbers_and_masks_of_legal_ones():
    worker = Sequence(
        Operator(PerOption(MLP(3, 2 * 1), 2), in_keys=READS, out_keys=["hidden"]),
        ProbabilisticActor(NormalHead(1), partial(TanhNormal, low=-2.0, high=2.0), in_keys=["hidden"]),
    )
    policy = Options(2, MLP(3, 2), worker, every=3)
    env = TransformedEnv(GymEnv("Pendulum-v1", num_envs=2), TensorDictPrimer(policy.initial_state()))
    batch = env.rollout(5, policy)
    assert batch["action"].shape == (2, 5, 1) and "hidden" in batch.keys()
    torch.testing.assert_close(policy.build(batch).log_prob(batch["action"]), batch["action_log_prob"])
    worker = ProbabilisticActor(PerOption(Fixed(*[0.0] * 6), 2), MaskedCategorical, in_keys=READS, mask_key="legal")
    policy = Options(2, Fixed(0, 0), worker)
    assert "legal" in policy.in_keys
    rows = step([2] * 50).set("legal", torch.tensor([[False, True, False]]).expand(50, 3))
    assert (policy(rows)["action"] == 1).all()


class TestCollecting:
    def policy(self):
        torch.manual_seed(0)
        return make_policy(every=6)

    def test_processes_and_one_process_agree(self, leaves_nothing):
        policy = self.policy()
        make = partial(make_env, 2, primer=TensorDictPrimer(policy.initial_state()))
        collector = MultiSyncCollector(make, policy, num_workers=2, frames_per_batch=64, seed=0)
        try:
            batch = collector.collect()
        finally:
            collector.shutdown()
        replayed = replay_policy(policy, batch)
        torch.testing.assert_close(replayed["action_log_prob"], batch["action_log_prob"])

    @pytest.mark.parametrize("at_once", [False, True])
    def test_replay_gives_the_log_probs_of_then(self, at_once):
        policy = self.policy()
        batch = collect(policy, 40)
        replayed = replay_policy(policy, batch, at_once=at_once)
        torch.testing.assert_close(replayed["action_log_prob"], batch["action_log_prob"])
        assert torch.equal(replayed["next", "option", "age"], batch["next", "option", "age"])
        replayed["action_log_prob"].sum().backward()
        assert all(x.grad is not None for x in policy.parameters())

    def test_replay_of_padded_episodes(self):
        policy = self.policy()
        batch = EpisodeCollector(cartpole(policy), policy, num_episodes=4, seed=0).collect()
        mask = batch["collector", "mask"]
        replayed = replay_policy(policy, batch)["action_log_prob"]
        torch.testing.assert_close(replayed[mask], batch["action_log_prob"][mask])
        assert (replayed[~mask] == 0).all()

    def test_behind_a_memory(self):
        torch.manual_seed(0)
        worker = ProbabilisticActor(PerOption(nn.Linear(8, 6), 3), Categorical, in_keys=["hidden", INDEX])
        options = Options(3, nn.Linear(8, 3), worker, termination=nn.Linear(8, 3), in_keys=["hidden"])
        policy = Sequence(LSTM(4, 8), options, out_keys=options.out_keys)
        assert set(policy.initial_state().keys(True, True)) == {"memory", RUNNING, AGE}
        batch = collect(policy, 30)
        torch.testing.assert_close(replay_policy(policy, batch)["action_log_prob"], batch["action_log_prob"])
        critic = make_critic()
        loss = ClipPPOLoss(policy, critic)
        terms = loss(GAE(critic)(batch))
        assert terms["approx_kl"].abs() < 1e-5
        VTrace(policy, critic)(batch)


class TestLosses:
    def batch(self, policy, critic):
        return GAE(critic)(collect(policy, 20))

    def test_a_policy_gradient_trains_all_parts(self):
        policy, critic = make_policy(every=6), make_critic()
        batch = self.batch(policy, critic)
        terms = A2CLoss(policy, critic, entropy_coef=0.0, critic_coef=0.0)(batch)
        expected = -(batch["action_log_prob"] * batch["advantage"].squeeze(-1)).mean()
        torch.testing.assert_close(terms["loss_objective"], expected)
        terms["loss_objective"].backward()
        assert all(x.grad.isfinite().all() and x.grad.any() for x in policy.termination.parameters())
        assert all(x.grad.isfinite().all() and x.grad.any() for x in policy.chooser.parameters())

    def test_ratios_are_one_before_the_first_step(self):
        policy, critic = make_policy(every=6), make_critic()
        terms = ClipPPOLoss(policy, critic)(self.batch(policy, critic))
        assert terms["approx_kl"].abs() < 1e-6 and terms["clip_fraction"] == 0

    def test_masked_rows_reach_nothing(self):
        policy, critic = make_policy(every=6), make_critic()
        batch = self.batch(policy, critic)
        batch["collector", "mask"] = torch.arange(20).expand(3, 20) < torch.tensor([[20], [7], [1]])
        clean = A2CLoss(policy, critic)(batch)
        for value in batch.values(True, True):
            if value.is_floating_point():
                value[~batch["collector", "mask"]] = float("nan")
            elif value.dtype is torch.int64:
                value[~batch["collector", "mask"]] = -7
        dirty = A2CLoss(policy, critic)(batch)
        assert all(torch.equal(clean[key], dirty[key]) for key in clean.keys())

    def test_others_that_read_stored_actions(self):
        policy, critic = make_policy(every=6), make_critic()
        batch = self.batch(policy, critic)
        loss = BehaviourCloningLoss(policy)(batch)["loss_objective"]
        torch.testing.assert_close(loss, -batch["action_log_prob"].mean())
        assert VTrace(policy, critic)(batch)["advantage"].isfinite().all()

    def test_the_value_of_the_option_that_runs(self):
        critic = ValueOperator(PerOption(Fixed(1, 2, 3, 4), 4), in_keys=["observation", RUNNING])
        assert critic(step([0, 3, 1]))["state_value"].squeeze(-1).tolist() == [1, 4, 2]

    def test_a_penalty_on_the_divergence_is_refused(self):
        with pytest.raises(ConfigError, match="an actor that writes its parameters, got Options"):
            KLPenaltyPPOLoss(make_policy(), make_critic())

    @pytest.mark.parametrize("kind", [SACLoss, DiscreteSACLoss])
    def test_losses_that_draw_new_actions_refuse_it(self, kind):
        keys = ["observation", "action"] if kind is SACLoss else ["observation"]
        critics = ValueEnsemble(lambda: MLP(4, 2), 2, in_keys=keys)
        with pytest.raises(ConfigError):
            kind(make_policy(), critics)


def test_a_sample_of_the_pair():
    pair = OptionAndAction(
        Categorical(torch.tensor([[0.0, -math.inf]])), torch.tensor([0]), Categorical(torch.zeros(1, 2))
    )
    assert pair.sample()["option"].tolist() == [0] and pair.mode["action"].tolist() == [0]


def test_acts_and_learns_in_one_compiled_graph():
    policy, critic = make_policy(every=6), make_critic()
    root = cartpole(policy).reset().select(*policy.in_keys)
    with torch.no_grad():
        acted = torch.compile(policy, fullgraph=True, backend="aot_eager")(root.clone())
        assert [key for key in policy.out_keys if acted.get(key, None) is None] == []
        torch.testing.assert_close(policy.build(acted).log_prob(acted["action"]), acted["action_log_prob"])
        for key, value in policy.state_after(acted).items():
            assert torch.equal(acted[key], value)
    batch = GAE(critic)(collect(policy, 8))
    loss = A2CLoss(policy, critic)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch)["loss_objective"], loss(batch)["loss_objective"])


@pytest.mark.parametrize("size", [(), (2, 3)])
def test_batches_of_no_and_of_two_dimensions(size):
    policy = make_policy(every=6)
    env = TransformedEnv(CartPole(size or None), TensorDictPrimer(policy.initial_state()))
    batch = env.rollout(5, policy)
    assert batch[INDEX].shape == (*size, 5)
    torch.testing.assert_close(policy.build(batch).log_prob(batch["action"]), batch["action_log_prob"])
