"""Worlds below the transforms under test: some of simulators, one written in torch, and one that watches."""

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite, Unbounded
from torchrl.envs import SerialEnv, TorchEnv
from torchrl.envs.base import Env
from torchrl.envs.simulators import Simulator

LOW, HIGH = np.array([-2.0, 0.1], np.float32), np.array([1.0, 5.3], np.float32)

SHADES = np.linspace(0.5, 1.0, 4 * 2 * 3, dtype=np.float32).reshape(4, 2, 3)
NEAREST = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


class RandomWorld(Simulator):
    """Draws what it shows at random; episodes of random length. The reward is the sum of the action."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        return self._observe(), {}

    def step(self, action):
        chance = self.random.random()
        return self._observe(), float(np.sum(action)), chance < 0.2, 0.1 < chance < 0.3, {}

    def get_state(self):
        return {"random": self.random.bit_generator.state}

    def set_state(self, state):
        self.random = np.random.default_rng()
        self.random.bit_generator.state = state["random"]


class Walker(RandomWorld):
    """Nested, bounded and scalar observations, and a noisy reward."""

    action_space = spaces.Box(LOW, HIGH)
    observation_space = spaces.Dict(
        position=spaces.Box(-1.0, 3.0, (3,), np.float32),
        body=spaces.Dict(left=spaces.Box(-np.inf, np.inf, (2,)), right=spaces.Box(0.0, 1.0, (2,))),
        speed=spaces.Box(0.0, 1.0, ()),
    )

    def step(self, action):
        noise = self.random.normal()
        observation, reward, *flags = super().step(action)
        return observation, reward + noise, *flags

    def _observe(self):
        draw = self.random.random(8, np.float32)
        body = {"left": draw[3:5] * 100, "right": draw[5:7]}
        return {"position": draw[:3] * 4 - 1, "body": body, "speed": draw[7]}


class Camera(RandomWorld):
    """Observations of several dimensions: bytes, floats each with bounds of its own, and flags."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        pixels=spaces.Box(0, 255, (2, 3, 1), np.uint8),
        depth=spaces.Dict(near=spaces.Box(NEAREST, NEAREST + 10, dtype=np.float32)),
        flags=spaces.Box(0, 1, (2, 2), np.bool_),
    )

    def _observe(self):
        near = NEAREST + self.random.random((1, 2, 3), np.float32) * 10
        pixels = self.random.integers(0, 256, (2, 3, 1), np.uint8)
        return {"pixels": pixels, "depth": {"near": near}, "flags": self.random.random((2, 2)) < 0.5}


class Film(RandomWorld):
    """Pictures in colour, as bytes and in floats with bounds for each number."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        pixels=spaces.Box(0, 255, (5, 7, 3), np.uint8),
        depth=spaces.Box(-SHADES, 2 * SHADES, dtype=np.float32),
    )

    def _observe(self):
        depth = (3 * self.random.random(SHADES.shape, np.float32) - 1) * SHADES
        return {"pixels": self.random.integers(0, 256, (5, 7, 3), np.uint8), "depth": depth}


class Board(RandomWorld):
    """No observation is a float: choices, bits and integers, with bounds of all sorts."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        place=spaces.Discrete(5),
        dice=spaces.MultiDiscrete([[2, 3], [4, 2]]),
        hand=spaces.Dict(cards=spaces.MultiBinary([2, 3]), open=spaces.Box(0, 1, (2,), np.bool_)),
        map=spaces.Box(0, 10, (2, 3, 3), np.uint8),
        level=spaces.Box(np.array([-3, 7]), np.array([5, 7]), dtype=np.int16),
        clock=spaces.Box(0, np.iinfo(np.int64).max, (), np.int64),
    )

    def _observe(self):
        draw = self.random.integers
        return {
            "place": draw(5),
            "dice": draw([[2, 3], [4, 2]]),
            "hand": {"cards": draw(0, 2, (2, 3), np.int8), "open": draw(0, 2, 2) > 0},
            "map": draw(0, 11, (2, 3, 3), np.uint8),
            "level": draw([-3, 7], [6, 8]).astype(np.int16),
            "clock": draw(2**40, dtype=np.int64),
        }


class Crane(RandomWorld):
    """A nested action: a vector and a choice. The observation is the sum of all there was, and a random start."""

    action_space = spaces.Dict(lift=spaces.Box(LOW, HIGH), arm=spaces.Dict(gear=spaces.Discrete(3)))
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.place = np.zeros(2, np.float32)
        super().reset(seed=seed)
        self.place = self.random.random(2, np.float32)
        return self.place, {}

    def step(self, action):
        self.place = self.place + action["lift"] + np.float32(action["arm"]["gear"])
        return super().step(0.5)

    def _observe(self):
        return self.place

    def get_state(self):
        return super().get_state() | {"place": self.place}

    def set_state(self, state):
        super().set_state(state)
        self.place = state["place"]


class Menu(RandomWorld):
    """Choices of which a random part is legal, as a nested mask says; any other action is an error."""

    def __init__(self, nvec):
        self.nvec = nvec
        self.action_space = spaces.Discrete(nvec[0]) if len(nvec) == 1 else spaces.MultiDiscrete(nvec)
        mask = spaces.Box(0, 1, (sum(nvec),), np.bool_)
        self.observation_space = spaces.Dict(place=spaces.Box(0.0, 1.0, (2,)), info=spaces.Dict(legal=mask))

    def step(self, action):
        starts = np.cumsum([0, *self.nvec[:-1]])
        if not self.legal[starts + action].all():
            raise ValueError(f"illegal: {action} under {self.legal}")
        return super().step(action)

    def _observe(self):
        groups = [self.random.permutation(n) < self.random.integers(1, n, endpoint=True) for n in self.nvec]
        self.legal = np.concatenate(groups)
        return {"place": self.random.random(2, np.float32), "info": {"legal": self.legal}}

    def get_state(self):
        return super().get_state() | {"legal": self.legal}

    def set_state(self, state):
        super().set_state(state)
        self.legal = state["legal"]


class NamedMenu(SerialEnv):
    """A menu whose environment names the mask itself."""

    action_mask_key = ("info", "legal")

    def __init__(self, num_envs):
        super().__init__(lambda: Menu([4]), num_envs)


class Drift(TorchEnv):
    """A world written in torch, all of it in float64; its bounds are no float32 numbers; episodes of four steps."""

    def __init__(self, batch_size):
        self.shape = (*batch_size, 2)
        super().__init__(
            batch_size=batch_size,
            observation_spec=Composite({"observation": Unbounded(self.shape, torch.float64)}, shape=batch_size),
            action_spec=Bounded(-0.1, 0.1, self.shape, torch.float64),
            reward_spec=Bounded(-0.3, 0.3, (*batch_size, 1), torch.float64),
            max_episode_steps=4,
        )

    def start(self, random):
        return TensorDict({"observation": random.rand(2).double()}, random.batch_size)

    def dynamics(self, state, action):
        reward = action.sum(-1, keepdim=True)
        return state.copy().set("observation", state["observation"] + action), reward, torch.zeros_like(reward).bool()


class Watched(Env):
    """Passes another env through; keeps what came down, and notices when a tensor it handed out was edited."""

    def __init__(self, env):
        specs = {name: getattr(env, name) for name in ("batch_size", "observation_spec", "action_spec", "reward_spec")}
        super().__init__(**specs)
        self.env = env
        self.action_mask_key = env.action_mask_key
        self.received, self.outcomes, self.handed_out = [], [], []

    def step_rows(self, tensordict):
        self.assert_untouched()
        self.received.append(tensordict["action"].clone())
        next_, root, ended = self.env.step_rows(tensordict)
        self.outcomes.append(next_.clone())
        self.handed_out = [(dict(leaves(level)), level.clone()) for level in (next_, root)]
        return next_, root, ended

    def reset_rows(self, mask, *, seeds, options):
        self.assert_untouched()
        root = self.env.reset_rows(mask, seeds=seeds, options=options)
        self.handed_out = [(dict(leaves(root)), root.clone())]
        return root

    def assert_untouched(self):
        for given, copy in self.handed_out:
            for key, value in leaves(copy):
                assert torch.equal(given[key], value), key

    def state_dict(self):
        return self.env.state_dict()

    def load_state_dict(self, state):
        self.handed_out = []
        return self.env.load_state_dict(state)


def leaves(tensordict):
    return tensordict.items(include_nested=True, leaves_only=True)


def walker(num_envs):
    return SerialEnv(Walker, num_envs)


def camera(num_envs):
    return SerialEnv(Camera, num_envs)


def film(num_envs):
    return SerialEnv(Film, num_envs)


def board(num_envs):
    return SerialEnv(Board, num_envs)


def crane(num_envs):
    return SerialEnv(Crane, num_envs)


def menu(num_envs):
    return SerialEnv(lambda: Menu([4]), num_envs)


def menus(num_envs):
    return SerialEnv(lambda: Menu([3, 2]), num_envs)


def drift(num_envs):
    return Drift(() if num_envs is None else (num_envs,))
