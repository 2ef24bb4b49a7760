"""The stream of a transform that draws."""

import torch

from cases.transform_steps import act
from fakes import CountingSimulator
from torchrl.data.specs import Composite, Unbounded
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import RandomTransform, TransformedEnv


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
