"""Transforms that draw: when, from which stream, and that a seed repeats it."""

import pytest
import torch

from cases.transform_steps import act, counting, counting_rows
from fakes import CountingSimulator
from torchrl.data.specs import Composite, Unbounded
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import Compose, GSDENoise, RandomTransform, TransformedEnv
from torchrl.errors import ConfigError


class Noise(RandomTransform):
    """Shows a number drawn at every step."""

    def read_specs(self, env):
        super().read_specs(env)
        self.register_buffer("value", torch.zeros(env.batch_size))

    def step(self, next_, root):
        self.value = torch.rand(root.batch_size, generator=self.generator)
        next_["noise"], root["noise"] = self.value, self.value

    def reset(self, root, mask):
        if mask is None or bool(mask.any()):
            self.value = torch.rand(root.batch_size, generator=self.generator)
        root["noise"] = self.value

    def observation_spec(self, spec):
        return Composite({**dict(spec.items()), "noise": Unbounded(spec.shape)}, spec.shape)


def made(transform=Noise):
    return TransformedEnv(SerialEnv(lambda: CountingSimulator(4), 2), transform())


def noise(env, **options):
    return [env.reset(**options)["noise"].tolist(), *env.rollout(5, act)["noise"].tolist()]


def test_a_seed_repeats_it():
    one, other = made(), made()
    first = noise(one, seed=2)
    assert noise(other, seed=2) == first != noise(other, seed=3)
    one.set_seed(2)
    assert noise(one) == first


def test_without_a_seed_it_is_the_same_in_every_run():
    assert noise(made()) == noise(made())


def test_it_draws_from_no_other_stream_and_no_other_stream_from_it():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    env = made()
    env.set_seed(1)
    actions = env.rollout(5)["action"]
    assert torch.equal(torch.get_rng_state(), state)
    bare = env.env
    bare.set_seed(1)
    assert torch.equal(bare.rollout(5)["action"], actions)


def changes(batch, key="gsde_noise"):
    """Where the noise of a row is another than that of the row before, ``[*B, T - 1]``."""
    noise = batch[key]
    return (noise[..., 1:, :, :] != noise[..., :-1, :, :]).all(-1).all(-1).tolist()


def test_it_is_drawn_anew_with_every_episode_and_kept_within():
    batch = TransformedEnv(counting_rows(2, 3), GSDENoise(4, 1)).rollout(6, act)
    assert changes(batch) == [[False, True, False, True, False], [False, False, True, False, False]]
    assert batch["gsde_noise"].shape == (2, 6, 4, 1)
    goes_on = ~batch["next", "done"].squeeze(-1)[:, :-1]
    assert torch.equal(batch["next", "gsde_noise"][:, :-1][goes_on], batch["gsde_noise"][:, 1:][goes_on])
    assert torch.equal(batch["next", "gsde_noise"], batch["gsde_noise"])  # an ending shows that of its own episode


def test_it_is_drawn_anew_for_all_rows_after_some_steps():
    env = TransformedEnv(counting_rows(9, 9), GSDENoise(4, 1, resample_every=2))
    batch = env.rollout(7, act)
    assert changes(batch) == [[False, True, False, True, False, True]] * 2
    assert torch.equal(batch["next", "gsde_noise"][:, :-1], batch["gsde_noise"][:, 1:])
    assert changes(env.rollout(4, act)) == [[False, True, False]] * 2  # a reset of all rows counts from there
    assert changes(TransformedEnv(counting(length=9), GSDENoise(2, 2, resample_every=1)).rollout(4, act)) == [True] * 3


def test_rows_and_entries_are_independent_and_standard_normal():
    env = TransformedEnv(counting_rows(*[2] * 20), GSDENoise(5, 10))
    env.set_seed(0)
    noise = torch.stack([env.reset()["gsde_noise"] for _ in range(100)])  # 100 000 numbers
    assert abs(float(noise.mean())) < 4 / 100_000**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / 100_000) ** 0.5
    flat = noise.reshape(2000, 50)
    off = torch.corrcoef(flat.T) - torch.eye(50)
    assert float(off.abs().max()) < 5 / 2000**0.5
    assert noise.dtype == torch.float32


def test_each_of_a_chain_and_of_nested_ones_draws_its_own():
    def both():
        return GSDENoise(3, 2, out_key="a"), GSDENoise(3, 2, out_key="b")

    a, b = both()
    for env in (
        TransformedEnv(counting_rows(9, 9), Compose(*both())),
        TransformedEnv(TransformedEnv(counting_rows(9, 9), a), b),
    ):
        root = env.reset(seed=3)
        assert not bool((root["a"] == root["b"]).any())


def test_it_says_what_it_adds():
    env = TransformedEnv(counting_rows(9, 9), GSDENoise(3, 2, out_key=("noise", "gsde")))
    assert env.observation_spec["noise", "gsde"] == Unbounded((2, 3, 2))
    assert env.reset()["noise", "gsde"].shape == (2, 3, 2)


@pytest.mark.parametrize("bad", [(0, 1, None), (1, 0, None), (1, 1, 0)])
def test_numbers_that_make_no_sense_are_refused(bad):
    with pytest.raises(ConfigError, match="GSDENoise: expected numbers of at least 1"):
        GSDENoise(bad[0], bad[1], resample_every=bad[2])


def test_states_of_older_versions_are_read():
    """The buffers of saved environments keep their names."""
    env = TransformedEnv(counting(length=2), GSDENoise(1, 1))
    assert set(env.transform.state_dict()) == {"noise", "num_steps", "_extra_state"}
