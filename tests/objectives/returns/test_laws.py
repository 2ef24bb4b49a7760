"""What holds for every estimator of returns, on the policy and off it, with a critic and without."""

import inspect

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.devices import needs_cuda
from cases.padding import MASK, poisoned
from torchrl import objectives
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.functional import reaches_ending
from torchrl.objectives import GAE, TD0, DiscountedReturn, NStepReturn, ReturnEstimator, TDLambda, VTrace

ON_POLICY = {
    "GAE": lambda actor, critic, **options: GAE(critic, **options),
    "TD0": lambda actor, critic, **options: TD0(critic, **options),
    "TDLambda": lambda actor, critic, **options: TDLambda(critic, **options),
    "NStepReturn": lambda actor, critic, **options: NStepReturn(critic, 3, **options),
    "DiscountedReturn": lambda actor, critic, **options: DiscountedReturn(critic, **options),
}
OFF_POLICY = {
    "VTrace": lambda actor, critic, **options: VTrace(actor, critic, rho_clip=1.2, **options),
    "GAE of another policy": lambda actor, critic, **options: GAE(critic, actor=actor, **options),
    "TDLambda of another policy": lambda actor, critic, **options: TDLambda(critic, actor=actor, **options),
    "NStepReturn of another policy": lambda actor, critic, **options: NStepReturn(critic, actor=actor, **options),
    "DiscountedReturn of another policy": lambda actor, critic, **options: DiscountedReturn(
        critic, actor=actor, **options
    ),
}
WITHOUT_CRITIC = {
    "DiscountedReturn without a critic": lambda actor, critic, **options: DiscountedReturn(**options),
    "DiscountedReturn of another policy without a critic": lambda actor, critic, **options: DiscountedReturn(
        actor=actor, **options
    ),
}
ESTIMATORS = ON_POLICY | OFF_POLICY | WITHOUT_CRITIC


def test_every_public_estimator_is_among_the_cases(make_actor, make_critic):
    public = [getattr(objectives, name) for name in objectives.__all__]
    estimators = {
        x for x in public if inspect.isclass(x) and issubclass(x, ReturnEstimator) and not inspect.isabstract(x)
    }
    assert estimators == {type(make(make_actor(), make_critic())) for make in ESTIMATORS.values()}


class Estimators:
    """Makes estimators of one kind, all with the same networks, and says what they write."""

    def __init__(self, name, actor, critic):
        self.name, self.actor, self.critic = name, actor, critic
        self.has_critic = name not in WITHOUT_CRITIC
        self.has_actor = "policy" in name or name == "VTrace"
        self.written = (*(["state_value"] if self.has_critic else [MASK]), "advantage", "value_target")

    def __call__(self, *, critic=None, **options):
        return ESTIMATORS[self.name](self.actor, critic or self.critic, **options)

    def assert_equal(self, got, expected):
        for key in self.written:
            torch.testing.assert_close(got[key], expected[key], msg=lambda message, key=key: f"{key}: {message}")


@pytest.fixture(params=ESTIMATORS)
def estimators(request, make_actor, make_critic):
    return Estimators(request.param, make_actor(), make_critic())


class Constant(nn.Module):
    """Values every state at 10."""

    in_keys, out_keys = ["observation"], ["state_value"]

    def forward(self, tensordict):
        return TensorDict({"state_value": torch.full((*tensordict.shape, 1), 10.0)}, tensordict.shape)


class TestWhatIsWritten:
    @pytest.mark.parametrize("shape", [(1,), (8,), (3, 8), (2, 3, 4)])
    def test_its_keys_and_nothing_else(self, estimators, make_series, shape):
        batch = make_series(*shape)
        kept = batch.clone()
        tensors = {key: batch[key] for key in batch.keys(True, True)}
        assert estimators()(batch) is batch
        for key in estimators.written:
            due = shape if key == MASK else (*shape, 1)
            assert batch[key].shape == due and not batch[key].requires_grad
        rest = batch.exclude(*estimators.written)
        rest = rest.exclude("collector") if MASK in estimators.written else rest
        assert (rest == kept).all() and set(rest.keys(True)) == set(kept.keys(True))
        assert all(batch[key] is tensor for key, tensor in tensors.items())  # no entry was put in another's place

    def test_batch_dimensions_do_not_matter(self, estimators, make_series):
        batch = make_series(2, 3, 10)
        flat = estimators()(batch.clone().reshape(6, 10))
        estimators.assert_equal(estimators()(batch), flat.reshape(2, 3, 10))
        row = make_series(4, 10)[2]
        estimators.assert_equal(estimators()(row.clone()), estimators()(row.clone().unsqueeze(0)).squeeze(0))

    def test_again_is_the_same(self, estimators, make_series):
        """What an estimator wrote does not enter what it writes next."""
        batch, estimator = make_series(3, 12), estimators()
        once = estimator(batch).clone()
        estimators.assert_equal(estimator(batch), once)


class TestEndings:
    def test_concatenated_trajectories_equal_each_alone(self, estimators, make_series):
        """Alone, a trajectory ends with the data; together, its flag is all that tells where it ends."""
        estimator = estimators(gamma=0.9)
        alone = [make_series(1, length, seed=length, ending=0.0).exclude("is_init") for length in (1, 4, 9, 2, 3)]
        flags = [("terminated",), ("truncated",), ("terminated", "truncated"), ("truncated",), ()]
        for batch, ending in zip(alone, flags, strict=True):
            for name in ending:
                batch["next", name][:, -1] = True
        together = estimator(torch.cat(alone, dim=1))
        separate = torch.cat([estimator(batch) for batch in alone], dim=1)
        estimators.assert_equal(together, separate)
        assert (together["value_target"][:, :16] != 0).all()

    def test_a_reset_in_mid_episode_is_an_edge(self, estimators, make_series):
        estimator = estimators()
        first, second = make_series(2, 4, seed=1, ending=0.0), make_series(2, 5, seed=2, ending=0.0)
        second["next", "terminated"][:, 2] = True
        together = estimator(torch.cat([first, second], dim=1))
        separate = torch.cat([estimator(first), estimator(second)], dim=1)
        estimators.assert_equal(together, separate)
        assert (together["value_target"][:, 4:7] != 0).all()

    def test_flags_mean_what_the_table_says(self, estimators, make_series):
        """V = 10 everywhere, γ = ½: an ordinary step and a time limit are worth 5 more than the end of a task.

        Without a critic a step has no return, and a time limit counts as an end.
        """
        batch = make_series(4, 1)
        batch["action_log_prob"] = estimators.actor.build(batch).log_prob(batch["action"]).detach()  # weights of 1
        batch["next", "reward"][:] = 1.0
        batch["next", "terminated"] = torch.tensor([0, 1, 0, 1], dtype=torch.bool).reshape(4, 1, 1)
        batch["next", "truncated"] = torch.tensor([0, 0, 1, 1], dtype=torch.bool).reshape(4, 1, 1)
        estimators(critic=Constant(), gamma=0.5)(batch)
        target, advantage = batch["value_target"].flatten().tolist(), batch["advantage"].flatten().tolist()
        if estimators.has_critic:
            assert target == [6.0, 1.0, 6.0, 1.0] and advantage == [-4.0, -9.0, -4.0, -9.0]
        else:
            assert target == advantage == [0.0, 1.0, 1.0, 1.0]
            assert batch[MASK].flatten().tolist() == [False, True, True, True]


class TestPadding:
    def test_masked_rows_reach_nothing(self, estimators, make_series):
        estimator = estimators()
        batch = make_series(3, 10, ending=0.1)
        batch["next", "truncated"][:, 8] = True
        mask = torch.ones(3, 10, dtype=torch.bool)
        mask[0, 6:], mask[1, 2:4], mask[2, 0] = False, False, False
        # The reference: the valid stretches as batches of their own, which end with the data.
        stretches = [(0, 0, 6), (1, 0, 2), (1, 4, 10), (2, 1, 10)]
        separate = [estimator(batch[row : row + 1, start:stop].clone()) for row, start, stop in stretches]
        together = estimator(poisoned(batch, mask))
        for (row, start, stop), expected in zip(stretches, separate, strict=True):
            estimators.assert_equal(together[row : row + 1, start:stop], expected)
        for key in estimators.written:
            assert (together[key][~mask] == 0).all()

    @pytest.mark.parametrize("option", [{"standardize": True}, {"average_reward": "batch", "gamma": 1.0}])
    def test_masked_rows_reach_no_statistic(self, estimators, make_series, option):
        """Whatever the masked rows hold, the others are the same."""
        batch = make_series(3, 10)
        batch["next", "terminated"][:, 4] = True
        mask = torch.ones(3, 10, dtype=torch.bool)
        mask[0, 6:], mask[1, 8:], mask[2, 0] = False, False, False
        masked = estimators(**option)(poisoned(batch, mask))
        batch[MASK] = mask.clone()
        batch["next", "reward"][~mask] = 100.0
        estimators.assert_equal(masked, estimators(**option)(batch))
        assert masked["advantage"].isfinite().all() and (masked["advantage"] != 0).any()

    def test_a_mask_that_is_true_everywhere_changes_nothing(self, estimators, make_series):
        batch = make_series(3, 10)
        plain = estimators()(batch.clone())
        batch[MASK] = torch.ones(3, 10, dtype=torch.bool)
        estimators.assert_equal(estimators()(batch), plain)

    def test_all_rows_masked(self, estimators, make_series):
        options = {"standardize": True, "average_reward": "batch", "gamma": 1.0}
        batch = estimators(**options)(poisoned(make_series(2, 4), torch.zeros(2, 4, dtype=torch.bool)))
        assert all((batch[key] == 0).all() for key in estimators.written)


class TestOptions:
    def test_standardize_takes_the_whole_batch(self, estimators, make_series):
        batch = make_series(4, 30)
        plain = estimators()(batch.clone())
        mask = plain.get(MASK, torch.ones(4, 30, dtype=torch.bool))
        got = estimators(standardize=True)(batch)
        rows = plain["advantage"][mask].double()
        expected = (rows - rows.mean()) / rows.std(correction=0)
        torch.testing.assert_close(got["advantage"][mask].double(), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(got["value_target"], plain["value_target"])

    @pytest.mark.parametrize("average", [0.4, torch.tensor(0.4), torch.tensor([0.4]), "batch"])
    def test_average_reward(self, estimators, make_series, average):
        """Those of the rewards less their average; the reward itself is not written to."""
        batch = make_series(3, 20)
        kept = batch["next", "reward"].clone()
        valid = torch.ones(3, 20, dtype=torch.bool)
        if not estimators.has_critic:
            valid = reaches_ending(batch["next", "terminated"], batch["next", "truncated"]).squeeze(-1)
        number = kept[valid].mean() if isinstance(average, str) else 0.4
        less = batch.clone()
        less["next", "reward"] = kept - number
        got = estimators(gamma=1.0, average_reward=average)(batch)
        estimators.assert_equal(got, estimators(gamma=1.0)(less))
        assert torch.equal(batch["next", "reward"], kept)

    def test_average_reward_is_not_discounted(self, estimators):
        with pytest.raises(ConfigError, match=r"gamma 1 with an average reward, got 0.99\. .*pass gamma=1"):
            estimators(average_reward="batch")
        with pytest.raises(ConfigError, match="gamma 1"):
            estimators(average_reward=0.1, gamma=torch.tensor([1.0, 0.9]))
        with pytest.raises(ConfigError, match="'batch', got 'mean'"):
            estimators(average_reward="mean", gamma=1)

    @pytest.mark.parametrize("gamma", [-0.1, 1.1, 99, float("nan"), torch.tensor([0.9, 1.2])])
    def test_gamma_is_a_fraction(self, estimators, gamma):
        with pytest.raises(ConfigError, match="gamma between 0 and 1"):
            estimators(gamma=gamma)

    def test_gamma_as_a_tensor_is_moved_but_not_saved(self, estimators, make_series):
        estimator = estimators(gamma=torch.tensor(0.7))
        batch = make_series(2, 8)
        expected = estimators(gamma=0.7)(batch.clone())
        estimators.assert_equal(estimator(batch.clone()), expected)
        assert "gamma" in dict(estimator.named_buffers()) and "gamma" not in estimator.state_dict()

    def test_several_rewards(self, estimators, make_series, make_critic):
        """With γ each, they are what each is alone; advantages are standardised each for itself."""
        network = nn.Linear(4, 2)
        gamma = torch.tensor([0.9, 0.5])
        batch = make_series(3, 12, rewards=2)
        options = {"standardize": True}
        got = estimators(critic=make_critic(network), gamma=gamma, **options)(batch.clone())
        for dim in range(2):
            one = batch.clone()
            one["next", "reward"] = one["next", "reward"][..., dim : dim + 1]
            critic = make_critic(OneOf(network, dim))
            alone = estimators(critic=critic, gamma=gamma[dim].item(), **options)(one)
            for key in set(estimators.written) - {MASK}:
                torch.testing.assert_close(got[key][..., dim : dim + 1], alone[key])


class OneOf(nn.Module):
    """One of the outputs of a network."""

    def __init__(self, network, index):
        super().__init__()
        self.network, self.index = network, index

    def forward(self, x):
        return self.network(x)[..., self.index : self.index + 1]


class TestRefusals:
    @pytest.mark.parametrize("key", ["reward", "terminated", "truncated"])
    def test_missing_key(self, estimators, make_series, key):
        with pytest.raises(KeyMissing, match=rf"\('next', '{key}'\).*environment"):
            estimators()(make_series(2, 3).exclude(("next", key)))

    @pytest.mark.parametrize("key", [("next", "reward"), ("next", "terminated"), ("next", "truncated"), "is_init"])
    def test_n_against_n_1(self, estimators, make_series, key):
        batch = make_series(2, 3)
        batch[key] = batch[key].squeeze(-1)
        with pytest.raises(SpecError, match=r"\[2, 3\]"):
            estimators()(batch)

    def test_all_flags_without_the_last_dimension(self, estimators, make_series):
        batch = make_series(2, 3)
        for key in (("next", "terminated"), ("next", "truncated"), "is_init"):
            batch[key] = batch[key].squeeze(-1)
        with pytest.raises(SpecError, match=r"flags of shape \[2, 3, 1\], got terminated \[2, 3\]"):
            estimators()(batch)
        assert MASK not in batch.keys(True)

    def test_no_time(self, estimators, make_series):
        with pytest.raises(SpecError, match="time last"):
            estimators()(make_series(4)[0])

    @pytest.mark.parametrize("estimators", ON_POLICY | OFF_POLICY, indirect=True)
    def test_a_critic_of_another_number_of_rewards(self, estimators, make_series, make_critic):
        with pytest.raises(SpecError, match=r"\[2, 3, 1\] from the critic, got \[2, 3, 2\]"):
            estimators(critic=make_critic(nn.Linear(4, 2)))(make_series(2, 3))


@needs_cuda
def test_on_cuda(estimators, make_series):
    batch = make_series(3, 20)
    expected = estimators(gamma=torch.tensor(0.9))(batch.clone())
    got = estimators(gamma=torch.tensor(0.9)).cuda()(batch.to("cuda"))
    for key in estimators.written:
        torch.testing.assert_close(got[key].cpu(), expected[key], rtol=1e-4, atol=1e-5)
