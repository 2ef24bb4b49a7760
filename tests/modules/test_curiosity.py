"""Novelty rewards by hand: errors, running statistics, masks, what gradients reach, saving, refusals."""

import copy

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, NonFiniteError, SpecError
from torchrl.modules import MLP, CuriosityModule, IntrinsicCuriosity, RandomNetworkDistillation

NEXT = ("next", "observation")
MASK = ("collector", "mask")


class Joined(nn.Linear):
    """A linear layer of its inputs side by side."""

    def forward(self, *inputs):
        return super().forward(torch.cat(inputs, -1))


def linear(rows):
    """Build a linear layer of these weights, without bias."""
    layer = Joined(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return layer


def doubling(**options):
    """Predict 0 where the target is twice the observation: the error is 4 s'²."""
    return RandomNetworkDistillation(linear([[0.0]]), linear([[2.0]]), **{"shape": None, "gamma": None} | options)


def led_to(*rows):
    """Build a batch ``[B, T]`` whose steps led to these numbers."""
    observation = torch.tensor(rows).unsqueeze(-1)
    return TensorDict(
        {"next": TensorDict({"observation": observation}, observation.shape[:-1])}, observation.shape[:-1]
    )


def rewards(module, batch):
    return module(batch.copy())["intrinsic_reward"].squeeze(-1)


def make_rnd(**options):
    torch.manual_seed(0)
    return RandomNetworkDistillation(MLP(4, 8), MLP(4, 8), **{"shape": 4} | options)


def make_icm(**options):
    torch.manual_seed(0)
    return IntrinsicCuriosity(MLP(4, 6), MLP(12, 3), MLP(6 + 3, 6), **{"num_actions": 3} | options)


def transitions(*shape, action=None):
    generator = torch.Generator().manual_seed(1)
    root, after = torch.randn(2, *shape, 4, generator=generator)
    action = torch.randint(3, shape, generator=generator) if action is None else action
    following = TensorDict({"observation": after}, shape)
    return TensorDict({"observation": root, "action": action, "next": following}, shape)


class TestRandomNetworkDistillation:
    def test_error_by_hand(self):
        assert rewards(doubling(), led_to([0.0, 1.0, -3.0])).tolist() == [[0.0, 4.0, 36.0]]

    def test_observations_are_normalised_and_clipped(self):
        module = doubling(shape=1)
        module.update(led_to([1.0, 3.0]))  # mean 2, deviation 1
        torch.testing.assert_close(rewards(module, led_to([2.0, 3.0, 99.0])), torch.tensor([[0.0, 4.0, 100.0]]))

    def test_error_is_divided_by_the_deviation_of_its_sum(self):
        module = doubling(gamma=0.5)
        module.update(led_to([1.0, 0.0], [2.0, 0.0]))  # errors 4, 0 and 16, 0: sums 4, 2 and 16, 8
        deviation = np.std([4.0, 2.0, 16.0, 8.0])
        torch.testing.assert_close(rewards(module, led_to([3.0])), torch.tensor([[36.0 / deviation]]).float())
        module.update(led_to([0.0], [1.0]))  # the sums go on: 1 and 8
        deviation = np.std([4.0, 2.0, 16.0, 8.0, 1.0, 8.0])
        torch.testing.assert_close(rewards(module, led_to([3.0])), torch.tensor([[36.0 / deviation]]).float())

    def test_sums_begin_anew_with_another_number_of_rows(self):
        module = doubling(gamma=0.5)
        module.update(led_to([2.0]))
        module.update(led_to([1.0], [0.0]))
        assert module.mean.item() == pytest.approx((16 + 4 + 0) / 3)

    def test_error_is_left_alone_without_a_spread(self):
        module = doubling(gamma=0.0)
        module.update(led_to([1.0, 1.0]))
        assert rewards(module, led_to([1.0])).tolist() == [[4.0]]

    def test_masked_steps_count_nowhere(self):
        module, other = doubling(shape=1, gamma=0.5), doubling(shape=1, gamma=0.5)
        module.update(led_to([1.0, float("nan"), 3.0]).set(MASK, torch.tensor([[True, False, True]])))
        other.update(led_to([1.0, 3.0]))
        assert module.count == other.count == 2
        for name in ("mean", "var", "scale"):
            torch.testing.assert_close(getattr(module, name), getattr(other, name))

    def test_nothing_changes_in_eval_mode_or_without_update(self):
        module, batch = make_rnd(), transitions(2, 3)
        before = copy.deepcopy(module.state_dict())
        module(batch)
        module.eval().update(batch)
        torch.testing.assert_close(module.state_dict(), before)

    def test_a_number_that_is_not_finite_is_named_and_counts_nowhere(self):
        module = doubling(shape=1, gamma=0.5)
        module.update(led_to([1.0, 3.0]))
        before = copy.deepcopy(module.state_dict())
        with pytest.raises(NonFiniteError, match=r"ObservationNormalizer\.update: expected finite"):
            module.update(led_to([float("inf"), 3.0]))
        torch.testing.assert_close(module.state_dict(), before)

    def test_weights_that_diverged_are_noticed(self):
        module = doubling(gamma=0.5)
        module.update(led_to([1.0, 3.0]))
        before = copy.deepcopy(module.state_dict())
        module.predictor.weight.data.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match=r"RandomNetworkDistillation\.update: expected finite errors"):
            module.update(led_to([1.0, 3.0]))
        assert module.count == before["count"] and module.scale == before["scale"]
        assert module.get_extra_state() == before["_extra_state"]

    def test_gradient_reaches_the_predictor_alone_and_the_reward_has_none(self):
        module, batch = make_rnd(), transitions(2, 3)
        assert not module(batch)["intrinsic_reward"].requires_grad
        module.error(batch).sum().backward()
        assert all(bool((p.grad != 0).any()) for p in module.predictor.parameters())
        assert all(p.grad is None and not p.requires_grad for p in module.target.parameters())

    def test_target_stays_in_eval_mode(self):
        drops = lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout())  # noqa: E731
        module = RandomNetworkDistillation(drops(), drops(), shape=4).train()
        assert not module.target[1].training and module.predictor[1].training

    def test_it_falls_where_it_was_trained_and_not_elsewhere(self):
        torch.manual_seed(0)
        module = RandomNetworkDistillation(MLP(1, 8), MLP(1, 8), shape=None, gamma=None)
        seen, other = led_to([1.0, 1.1]), led_to([-4.0])
        before = rewards(module, seen).mean(), rewards(module, other).mean()
        optimizer = torch.optim.Adam(module.predictor.parameters(), lr=1e-2)
        for _ in range(100):
            optimizer.zero_grad()
            module.error(seen).mean().backward()
            optimizer.step()
        assert rewards(module, seen).mean() < 1e-3 * before[0] and rewards(module, other).mean() > 0.05 * before[1]

    def test_one_network_for_both_is_refused(self):
        network = MLP(4, 8)
        with pytest.raises(ConfigError, match="RandomNetworkDistillation: expected two networks"):
            RandomNetworkDistillation(network, network, shape=4)

    def test_networks_of_other_sizes_are_refused(self):
        module = RandomNetworkDistillation(MLP(4, 8), MLP(4, 1), shape=4)
        with pytest.raises(SpecError, match=r"prediction \[2, 3, 8\], target \[2, 3, 1\]"):
            module(transitions(2, 3))


class TestIntrinsicCuriosity:
    def test_errors_by_hand(self):
        features, inverse = linear([[2.0]]), linear([[1.0, -1.0], [0.0, 0.0]])
        module = IntrinsicCuriosity(features, inverse, linear([[1.0, 0.5, 3.0]]), num_actions=2, eta=4.0)
        batch = TensorDict({"observation": torch.tensor([[1.0], [0.0]]), "action": torch.tensor([1, 0])}, [2])
        batch[NEXT] = torch.tensor([[1.0], [3.0]])
        # φ = 2 and 0, φ' = 2 and 6. Logits (0, 0) and (-6, 0). φ̂ = 2 + 3 and 0 + ½.
        guessed, predicted = module.errors(batch)
        logits = torch.tensor([[0.0, 0.0], [-6.0, 0.0]])
        torch.testing.assert_close(guessed, -logits.log_softmax(-1).gather(-1, torch.tensor([[1], [0]])))
        assert predicted.tolist() == [[4.5], [15.125]]
        assert module(batch)["intrinsic_reward"].tolist() == [[18.0], [60.5]]

    def test_vectors_and_one_hot_choices(self):
        choice = torch.tensor([[0, 2], [1, 1]])
        expected = make_icm()(transitions(2, 2, action=choice))["intrinsic_reward"]
        for dtype in (torch.int64, torch.bool, torch.float32):
            one_hot = nn.functional.one_hot(choice, 3).to(dtype)
            got = make_icm(one_hot=True)(transitions(2, 2, action=one_hot))["intrinsic_reward"]
            assert torch.equal(got, expected)
        vector = nn.functional.one_hot(choice, 3).float()
        got = make_icm(num_actions=None)(transitions(2, 2, action=vector))["intrinsic_reward"]
        assert torch.equal(got, expected)

    def test_each_error_reaches_its_own_networks(self):
        module, batch = make_icm(), transitions(5)
        for error, reached in zip(module.errors(batch), ({"features", "inverse"}, {"dynamics"}), strict=True):
            module.zero_grad(set_to_none=True)
            error.sum().backward()
            got = {name for name, part in module.named_children() if any(p.grad is not None for p in part.parameters())}
            assert got == reached

    def test_actions_of_the_other_kind_are_refused(self):
        with pytest.raises(SpecError, match=r"IntrinsicCuriosity, action: expected choices.*num_actions"):
            make_icm()(transitions(2, action=torch.zeros(2, 3)))
        with pytest.raises(SpecError, match="expected vectors of floats"):
            make_icm(num_actions=None)(transitions(2))

    def test_a_choice_that_is_none_is_refused(self):
        with pytest.raises(SpecError, match="expected choices below 3, got 0 to 7"):
            make_icm()(transitions(2, action=torch.tensor([0, 7])))

    @pytest.mark.parametrize(
        "options", [{"eta": 0.0}, {"in_keys": ("observation",)}, {"gamma": 1.5}, {"num_actions": 0}]
    )
    def test_numbers_out_of_range_are_refused(self, options):
        with pytest.raises(ConfigError, match="IntrinsicCuriosity"):
            make_icm(**options)


@pytest.mark.parametrize("make", [make_rnd, make_icm, lambda **options: make_icm(gamma=0.9, **options)])
class TestBoth:
    @pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (6, 1)])
    def test_any_batch_size(self, make, shape):
        module, batch = make(), transitions(6)
        expected = module(batch)["intrinsic_reward"]
        batch = transitions(6).reshape(shape)
        assert module(batch)["intrinsic_reward"].shape == (*shape, 1)
        torch.testing.assert_close(batch["intrinsic_reward"].reshape(6, 1), expected)

    def test_a_state_dict_goes_on_bit_for_bit(self, make):
        batches = [transitions(2, 5), transitions(2, 5).flip(0), transitions(2, 5)]
        module, other = make(), make()
        module.update(batches[0])
        for parameter in other.parameters():
            parameter.data.zero_()
        other.load_state_dict(copy.deepcopy(module.state_dict()))
        for batch in batches[1:]:
            for each in (module, other):
                each.update(batch)
            assert torch.equal(rewards(module, batch), rewards(other, batch))
        torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=0, atol=0)

    def test_keys_of_ones_own(self, make):
        batch = transitions(3)
        expected = rewards(make(), batch)
        batch["next", "body", "place"] = batch["next"].pop("observation")
        key = ("next", "body", "place")
        options = {"in_key": key} if make is make_rnd else {"in_keys": ("observation", "action", key)}
        module = make(out_key=("pay", "novelty"), **options)
        torch.testing.assert_close(module(batch)["pay", "novelty"].squeeze(-1), expected)

    def test_what_it_reads_has_to_be_there(self, make):
        with pytest.raises(KeyMissing, match=r"\('next', 'observation'\)"):
            make()(transitions(3).exclude(NEXT))

    def test_it_is_called_with_tensors(self, make):
        module, batch = make(), transitions(3)
        inputs = {"_".join(key) if isinstance(key, tuple) else key: batch[key] for key in module.in_keys}
        assert torch.equal(module(**inputs).squeeze(-1), rewards(module, batch))

    def test_it_compiles_to_one_graph(self, make):
        module, batch = make(), transitions(3)
        torch._dynamo.reset()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(batch.copy())["intrinsic_reward"].squeeze(-1), rewards(module, batch))


def test_a_batch_without_time_is_refused():
    with pytest.raises(SpecError, match=r"update: expected a batch \[\*B, T\]"):
        make_rnd(shape=None).update(transitions())


def test_a_misspelt_method_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'error'"):

        class Wrong(CuriosityModule):
            def eror(self, tensordict):
                return None
