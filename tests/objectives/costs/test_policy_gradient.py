"""What losses with an advantage share: reductions, the trunk, the entropy, their networks' own container."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn

from cases.losses import KINDS, Net, make_critic, make_rows
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    ActorValueOperator,
    Categorical,
    Distribution,
    Operator,
    ProbabilisticActor,
    Sequence,
    ValueOperator,
)
from torchrl.objectives import (
    A2CLoss,
    ClippedSurrogate,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    PolicyGradientLoss,
    PolicyObjective,
    ReinforceLoss,
    total_loss,
)


@pytest.fixture
def discrete():
    return KINDS["discrete"].make_actor(), make_critic(), make_rows(KINDS["discrete"], 3, 4)


LOG_2 = math.log(2.0)
PLAIN = {
    "a2c": lambda actor, critic, **options: A2CLoss(actor, critic, **options),
    "reinforce with a baseline": lambda actor, critic, **options: ReinforceLoss(actor, critic, **options),
    "reinforce": lambda actor, critic, **options: ReinforceLoss(actor, **options),
}


@pytest.mark.parametrize("name", PLAIN)
class TestPlainPolicyGradient:
    def test_values_by_hand(self, by_hand, name):
        actor, critic, batch = by_hand
        terms = PLAIN[name](actor, critic, entropy_coef=0.25, critic_coef=2.0)(batch)
        expected = {
            # -log π A, with -log π = log 2, 2 log 2, 2 log 2, log 2
            "loss_objective": (2.0 + 4.0 - 4.0 - 4.0) * LOG_2 / 4,
            "loss_critic": 2.0 * (0.0 + 1.0 + 4.0 + 1.0) / 4,
            "loss_entropy": -0.25 * 1.5 * LOG_2,
            "entropy": 1.5 * LOG_2,
        }
        if name == "reinforce":
            del expected["loss_critic"]
        assert set(terms.keys()) == set(expected)
        for key, value in expected.items():
            assert terms[key].item() == pytest.approx(value, rel=1e-12), key

    def test_gradients_by_hand(self, by_hand, name):
        """d(-log π A)/d logits = -A (e_a - π): Σ A e_a = (-2, 2, -2) and Σ A = -2, with π = (½, ¼, ¼)."""
        actor, critic, batch = by_hand
        terms = PLAIN[name](actor, critic, entropy_coef=0.25)(batch)
        terms["loss_objective"].backward(retain_graph=True)
        expected = -torch.tensor([-2.0 + 1.0, 2.0 + 0.5, -2.0 + 0.5], dtype=torch.float64) / 4
        torch.testing.assert_close(actor.module.row.grad, expected)
        actor.module.row.grad = None
        # dH/d logits = -π (log π + H), with log π + H = (½, -½, -½) log 2
        terms["loss_entropy"].backward()
        expected = 0.25 * torch.tensor([1 / 4, -1 / 8, -1 / 8], dtype=torch.float64) * LOG_2
        torch.testing.assert_close(actor.module.row.grad, expected)
        if "loss_critic" in terms:
            terms["loss_critic"].backward()
            expected = torch.tensor([0.5 * 2 * (0.0 - 1.0 - 2.0 + 1.0) / 4], dtype=torch.float64)
            torch.testing.assert_close(critic.module.row.grad, expected)

    def test_reads_no_more_than_it_needs(self, by_hand, name):
        """Not what the acting policy thought, and no target without a critic."""
        actor, critic, batch = by_hand
        loss = PLAIN[name](actor, critic)
        keys = ["observation", "action", "advantage", *([] if name == "reinforce" else ["value_target"])]
        assert loss(batch.select(*keys)).to_dict() == loss(batch).to_dict()
        with pytest.raises(KeyMissing, match=f"Loss: expected the key '{keys[-1]}'"):
            loss(batch.exclude(keys[-1]))

    def test_a_row_of_advantages_is_refused(self, by_hand, name):
        actor, critic, batch = by_hand
        with pytest.raises(SpecError, match=r"advantage of shape \[4, 1\].*got \[4\]"):
            PLAIN[name](actor, critic)(batch.set("advantage", batch["advantage"].squeeze(-1)))


def test_defaults_of_a2c():
    default = {name: parameter.default for name, parameter in inspect.signature(A2CLoss).parameters.items()}
    assert (default["entropy_coef"], default["critic_coef"], default["normalize_advantage"]) == (0.01, 0.5, False)


class TestReduction:
    def test_none_keeps_the_rows(self, by_hand):
        actor, critic, batch = by_hand
        options = {"entropy_coef": 0.5, "critic_coef": 2.0, "normalize_advantage": False, "clip_epsilon": 0.25}
        rows = ClipPPOLoss(actor, critic, reduction="none", **options)(batch)
        assert rows["loss_objective"].tolist() == pytest.approx([-2.0, -2.5, 1.5, 4.0])
        assert rows["loss_critic"].tolist() == [0.0, 2.0, 8.0, 2.0]
        assert rows["loss_entropy"].tolist() == pytest.approx([-0.5 * 1.5 * math.log(2.0)] * 4)
        mean = ClipPPOLoss(actor, critic, **options)(batch)
        for key in mean.keys():
            torch.testing.assert_close(rows[key].mean(), mean[key])
            assert rows[key].shape == ((4,) if key.startswith("loss_") else ())

    def test_sum(self, by_hand):
        actor, critic, batch = by_hand
        options = {"entropy_coef": 0.5, "normalize_advantage": False}
        total, mean = (ClipPPOLoss(actor, critic, reduction=x, **options)(batch) for x in ("sum", "mean"))
        for key in mean.keys():
            torch.testing.assert_close(total[key], mean[key] * (4 if key.startswith("loss_") else 1))

    def test_none_and_batch_dimensions_and_masks(self, discrete):
        actor, critic, batch = discrete
        loss = A2CLoss(actor, critic, reduction="none")
        terms = loss(batch)
        assert all(terms[key].shape == (3, 4) for key in terms.keys() if key.startswith("loss_"))
        mask = torch.arange(12).reshape(3, 4) % 3 != 1
        masked = loss(batch.set(("collector", "mask"), mask))
        for key in (key for key in terms.keys() if key.startswith("loss_")):
            torch.testing.assert_close(masked[key], terms[key][mask])

    def test_rows_are_not_summed_in_silence(self, discrete):
        actor, critic, batch = discrete
        with pytest.raises(SpecError, match=r"total_loss.*\[3, 4\].*reduction=\"none\""):
            total_loss(A2CLoss(actor, critic, reduction="none")(batch))

    def test_mistake(self, discrete):
        with pytest.raises(ConfigError, match="A2CLoss: .*'none'.*got 'max'"):
            A2CLoss(*discrete[:2], reduction="max")


class Counted(nn.Linear):
    """Counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def on_a_trunk(trunk, actor_net, critic_net, **options):
    common = Operator(trunk, in_keys=["observation"], out_keys=["hidden"])
    actor = ProbabilisticActor(actor_net, Categorical, in_keys=["hidden"], **options)
    return ActorValueOperator(common, actor, ValueOperator(critic_net, in_keys=["hidden"]))


class TestSharedTrunk:
    @pytest.fixture
    def nets(self):
        return Counted(4, 5), nn.Linear(5, 3), nn.Linear(5, 1)

    @pytest.mark.parametrize("loss", [A2CLoss, ClipPPOLoss, ReinforceLoss])
    def test_is_computed_once_and_trained_by_both(self, nets, loss):
        trunk, actor_net, critic_net = nets
        whole = on_a_trunk(*nets)
        apart = (
            ProbabilisticActor(nn.Sequential(trunk, actor_net), Categorical),
            ValueOperator(nn.Sequential(trunk, critic_net)),
        )
        batch = make_rows(KINDS["discrete"], 16)
        results = []
        for networks, calls in (((whole.actor, whole.critic), 1), (apart, 2)):
            trunk.calls = 0
            module = loss(*networks)
            module.zero_grad()
            total_loss(terms := module(batch)).backward()
            assert trunk.calls == calls
            assert len(module.trainable_parameters()) == 6
            results.append((terms.detach().to_dict(), [x.grad.clone() for net in nets for x in net.parameters()]))
        torch.testing.assert_close(*results)

    def test_of_several_modules(self, nets):
        trunk = [
            Operator(nets[0], in_keys=["observation"], out_keys=["hidden"]),
            Operator(nn.Tanh(), in_keys=["hidden"], out_keys=["hidden"]),
        ]
        middle = Operator(nn.Linear(5, 5), in_keys=["hidden"], out_keys=["hidden"])
        head = ProbabilisticActor(nets[1], Categorical, in_keys=["hidden"])
        value = ValueOperator(nets[2], in_keys=["hidden"])
        actor = Sequence(*trunk, middle, head, out_keys=head.out_keys)
        critic = Sequence(*trunk, value, out_keys=value.out_keys)
        batch = make_rows(KINDS["discrete"], 16)
        loss = A2CLoss(actor, critic)
        terms = loss(batch)
        assert nets[0].calls == 1
        hidden = nets[0](batch["observation"]).tanh()
        log_prob = Categorical(nets[1](middle.module(hidden))).log_prob(batch["action"])
        torch.testing.assert_close(terms["loss_objective"], -(log_prob * batch["advantage"].squeeze(-1)).mean())
        # the actor's middle layer wrote over "hidden" where the critic does not see it
        expected = (nets[2](hidden) - batch["value_target"]).square().mean() * 0.5
        torch.testing.assert_close(terms["loss_critic"], expected)

    def test_is_saved_and_copied_in_one_piece(self, nets):
        whole, batch = on_a_trunk(*nets), make_rows(KINDS["discrete"], 16)
        loss = A2CLoss(whole.actor, whole.critic)
        names = {name.partition(".")[0] for name in loss.state_dict()}
        assert names == {"actor", "critic", "_entropy_coef", "_critic_coef"}
        other = copy.deepcopy(loss)
        with torch.no_grad():
            for parameter in other.trainable_parameters():
                parameter.zero_()
        assert other(batch)["loss_objective"] != loss(batch)["loss_objective"]
        torch.testing.assert_close(other(batch)["loss_critic"], batch["value_target"].square().mean() * 0.5)
        total_loss(other(batch)).backward()
        assert all(parameter.grad is None for parameter in loss.parameters())

    def test_compiles_to_one_graph(self, nets):
        torch._dynamo.reset()
        whole, batch = on_a_trunk(nn.Linear(4, 5), *nets[1:]), make_rows(KINDS["discrete"], 16)
        loss = ClipPPOLoss(whole.actor, whole.critic)
        graphs = torch._dynamo.utils.counters["stats"]
        before = graphs["unique_graphs"]
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(batch).detach().to_dict(), loss(batch).detach().to_dict())
        compiled(make_rows(KINDS["discrete"], 16, seed=1))
        assert graphs["unique_graphs"] == before + 1

    def test_what_networks_write_hides_nothing_from_the_loss(self, nets):
        """A trunk that writes under a name that the batch uses for something else."""
        batch = make_rows(KINDS["discrete"], 16)
        expected = A2CLoss(*(on_a_trunk(*nets).get_submodule(name) for name in ("actor", "critic")))(batch)
        common = Operator(nets[0], in_keys=["observation"], out_keys=["advantage"])
        actor = ProbabilisticActor(nets[1], Categorical, in_keys=["advantage"])
        critic = ValueOperator(nets[2], in_keys=["advantage"], out_keys=["value_target"])
        whole = ActorValueOperator(common, actor, critic)
        got = A2CLoss(whole.actor, whole.critic)(batch)
        torch.testing.assert_close(got.to_dict(), expected.to_dict())


class TestNormalization:
    def test_is_over_valid_rows_and_by_choice(self, by_hand):
        actor, critic, batch = by_hand
        batch["advantage"][3] = 1e9
        batch["collector", "mask"] = torch.tensor([True, True, True, False])
        # mean ⅔, deviations 4/3, 4/3, -8/3: variance 32/9; with log π = -(1, 2, 2) log 2
        a, b = (4 / 3) / math.sqrt(32 / 9), (-8 / 3) / math.sqrt(32 / 9)
        expected = (a + 2 * a + 2 * b) * math.log(2.0) / 3
        got = A2CLoss(actor, critic, normalize_advantage=True)(batch)["loss_objective"].item()
        assert got == pytest.approx(expected, rel=1e-6)


class TestEntropy:
    def test_samples_are_drawn_from_the_generator(self, discrete):
        actor, critic, batch = discrete
        generator = torch.Generator().manual_seed(3)
        loss = A2CLoss(actor, critic, num_entropy_samples=4, generator=generator)
        first, second = loss(batch)["entropy"], loss(batch)["entropy"]
        assert first != second
        generator.manual_seed(3)
        assert loss(batch)["entropy"] == first
        before = torch.get_rng_state()
        loss(batch)
        assert torch.equal(torch.get_rng_state(), before)

    def test_many_samples_are_the_formula(self, discrete):
        actor, critic, batch = discrete
        exact = A2CLoss(actor, critic)(batch)["entropy"].item()
        loss = A2CLoss(actor, critic, num_entropy_samples=5000, generator=torch.Generator().manual_seed(0))
        assert loss(batch)["entropy"].item() == pytest.approx(exact, rel=0.02)

    def test_family_without_a_formula_needs_samples(self, discrete):
        class Wild(Categorical):
            entropy = Distribution.entropy

        _, critic, batch = discrete
        actor = ProbabilisticActor(Net(None, (3,)), Wild)
        with pytest.raises(ConfigError, match="A2CLoss: .*formula for `entropy`, got Wild. .*num_entropy_samples=16"):
            A2CLoss(actor, critic)
        assert A2CLoss(actor, critic, num_entropy_samples=2)(batch)["entropy"] > 0

    def test_no_sample(self, discrete):
        with pytest.raises(ConfigError, match="num_entropy_samples=.*at least 1"):
            A2CLoss(*discrete[:2], num_entropy_samples=0)


class TestObjective:
    def test_of_ones_own(self, by_hand):
        class Squared(PolicyObjective):
            def terms(self, rows):
                return rows.advantage.square(), {"rows": torch.tensor(float(len(rows.batch)))}

        actor, critic, batch = by_hand
        terms = PolicyGradientLoss(actor, critic, Squared())(batch)
        assert terms["loss_objective"].item() == (4 + 4 + 4 + 16) / 4 and terms["rows"].item() == 4

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda *networks: ClipPPOLoss(*networks, clip_epsilon=0.1), "clip_epsilon"),
            (lambda *networks: PolicyGradientLoss(*networks, ClippedSurrogate(0.1)), "clip_epsilon"),
            (lambda *networks: KLPenaltyPPOLoss(*networks, kl_coef=0.1), "kl_coef"),
        ],
    )
    def test_its_numbers_are_saved_beside_the_losss_own(self, discrete, make, name):
        """As checkpoints of the time before objectives have them, alone and inside another module."""
        loss = make(*discrete[:2])
        saved = {key for key in loss.state_dict() if key.startswith("_")}
        assert saved == {"_entropy_coef", "_critic_coef", f"_{name}"}
        whole = nn.ModuleDict({"loss": loss})
        assert f"loss._{name}" in whole.state_dict()
        state = {key: x + 0.25 for key, x in whole.state_dict().items()}
        whole.load_state_dict(state)
        assert getattr(loss.objective, name) == 0.35 and loss.critic_coef == 0.75


class Columns(Categorical):
    """A family of a user's own whose log-probs have a column too much."""

    def log_prob(self, action):
        return super().log_prob(action).unsqueeze(-1)


def test_log_probs_of_another_shape_are_named_and_not_the_advantage(discrete):
    _, critic, batch = discrete
    actor = ProbabilisticActor(nn.Linear(4, 3), Columns)
    with pytest.raises(
        SpecError, match=r"A2CLoss: expected log-probs of shape \[3, 4\] from its actor.*got \[3, 4, 1\]"
    ):
        A2CLoss(actor, critic)(batch)
