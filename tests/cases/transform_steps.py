"""What tests of transforms by hand share: worlds that count, echo or follow a script, and specs without a world."""

import numpy as np
import torch
from gymnasium import spaces

from fakes import ActionEchoSimulator, CountingSimulator
from torchrl.data.specs import Composite, Unbounded
from torchrl.envs import SerialEnv
from torchrl.envs.simulators import Simulator
from torchrl.envs.transforms import EnvSpecs, TransformedEnv


class Scripted(Simulator):
    """Shows ``observe(t)`` at step t; an episode has ``length`` steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, observe, length=2):
        self.observation_space, self.observe, self.length = space, observe, length

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observe(0), {}

    def step(self, action):
        self.t += 1
        return self.observe(self.t), 0.0, self.t == self.length, False, {}


BODY = spaces.Dict(
    height=spaces.Box(0.0, 9.0, ()),
    limbs=spaces.Dict(arm=spaces.Box(-1.0, 99.0, (2,)), leg=spaces.Box(0.0, np.inf, (1,))),
    choice=spaces.Discrete(9),
)


def body(transform, num_envs=None):
    """Step t: height t (a scalar), arm [10t, 10t + 1] and leg [100t] in limbs, choice t; an episode has two steps."""

    def observe(t):
        limbs = {"arm": np.array([10 * t, 10 * t + 1], np.float32), "leg": np.array([100 * t], np.float32)}
        return {"height": np.float32(t), "limbs": limbs, "choice": t}

    return TransformedEnv(SerialEnv(lambda: Scripted(BODY, observe), num_envs), transform)


def counting(num_envs=None, length=3, **options):
    """Shows the step of the episode; episode k pays k at every step."""
    return SerialEnv(lambda: CountingSimulator(length=length, **options), num_envs)


def counting_rows(*lengths, **options):
    """A row of each length."""
    return SerialEnv([lambda length=length: CountingSimulator(length=length, **options) for length in lengths])


def echo(num_actions=1, low=-1.0, high=1.0, num_envs=None):
    """Shows the last action."""
    return SerialEnv(lambda: ActionEchoSimulator(num_actions, low=low, high=high), num_envs)


def act(root):
    return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def column(batch, key):
    return batch[key].squeeze(-1).tolist()


def specs(*batch_size, action=None, mask_key=None, **leaves):
    """Specs of an environment that is not there."""
    size = torch.Size(batch_size)
    action = Unbounded(size) if action is None else action
    rewards = Unbounded((*size, 1), device=action.device)
    return EnvSpecs(size, action.device, Composite(leaves, size), action, rewards, action_mask_key=mask_key)


def with_specs(transform, action, *batch_size, **options):
    """The transform after it read :func:`specs`."""
    transform.read_specs(specs(*batch_size, action=action, **options))
    return transform
