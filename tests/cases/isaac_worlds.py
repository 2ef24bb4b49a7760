"""Fakes of worlds that restart rows inside ``step``: Isaac Lab's five values and rsl_rl's four."""

import torch
from tensordict import TensorDict

LENGTHS = (3, 1, 2)


class IsaacWorld:
    """Counts the steps of each row, as Isaac Lab's classes do it: groups of observations, five values.

    Episode e of row k has ``LENGTHS[(k + e) % 3]`` steps, out of time where e is odd. ``policy`` shows a number
    drawn at its start and the step, ``critic/height`` the step alone. The reward is ten and the step.
    """

    device = "cpu"
    num_actions = 2

    def __init__(self, num_envs=3, *, tells=True, in_place=False):
        self.num_envs, self.tells, self.in_place = num_envs, tells, in_place
        self.generator = torch.Generator().manual_seed(0)
        self.rewards = torch.zeros(num_envs)  # of the world, written again at each step, as Isaac Lab's
        self.buffer = torch.zeros(num_envs, 2)
        self.actions, self.resets, self.is_closed = [], [], False

    def reset(self, seed=None, options=None):
        self.resets.append(seed)
        if seed is not None:
            self.generator.manual_seed(seed)
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64)
        self.count = torch.zeros(self.num_envs, dtype=torch.int64)
        self.start = torch.rand(self.num_envs, generator=self.generator)
        return self.observed(), {}

    def observed(self):
        seen = torch.stack([self.start, self.count.float()], -1)
        if self.in_place:
            seen = self.buffer.copy_(seen)
        return {"policy": seen, "critic": {"height": self.count.float().unsqueeze(-1)}}

    def move(self, actions):
        """Step all rows, restart those that ended; return flags, and what was seen before the restarts."""
        self.actions.append(actions)
        self.count = self.count + 1
        self.rewards.copy_(10.0 + self.count)
        rows = torch.arange(self.num_envs)
        ended = self.count == torch.tensor(LENGTHS)[(rows + self.episode) % 3]
        time_outs = ended & (self.episode % 2 == 1)
        last = self.observed()
        self.restart(ended)
        return ended, time_outs, last

    def restart(self, rows):
        self.count = torch.where(rows, 0, self.count)
        self.episode = torch.where(rows, self.episode + 1, self.episode)
        fresh = torch.rand(self.num_envs, generator=self.generator)
        self.start = torch.where(rows, fresh, self.start)

    def step(self, actions):
        ended, time_outs, last = self.move(actions)
        extras = {"log": {}}
        if self.tells and bool(ended.any()):
            extras["final_obs"] = last
        return self.observed(), self.rewards, ended & ~time_outs, time_outs, extras

    def close(self):
        self.is_closed = True


class PartlyReset(IsaacWorld):
    """Restarts single rows on demand, as Isaac Lab's managers do."""

    def reset(self, seed=None, env_ids=None, options=None):
        if env_ids is None:
            return super().reset(seed)
        rows = torch.zeros(self.num_envs, dtype=torch.bool)
        rows[env_ids] = True
        self.restart(rows)
        return self.observed(), {}


class RslWorld:
    """The same world with rsl_rl's four values, observations in a TensorDict, and no ``reset``."""

    device, cfg, max_episode_length, num_actions = "cpu", {}, 3, 2

    def __init__(self, num_envs=3, *, tells=True, sends_time_outs=True):
        self.inner = IsaacWorld(num_envs, tells=tells)
        self.inner.reset()
        self.num_envs, self.sends_time_outs = num_envs, sends_time_outs
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.int64)

    def get_observations(self):
        return TensorDict(self.inner.observed(), [self.num_envs])

    def step(self, actions):
        ended, time_outs, last = self.inner.move(actions)
        extras = {"time_outs": time_outs} if self.sends_time_outs else {}
        if self.inner.tells and bool(ended.any()):
            extras["final_obs"] = TensorDict(last, [self.num_envs])
        return self.get_observations(), self.inner.rewards, ended.long(), extras


class SeededRslWorld(RslWorld):
    """Can be seeded and reset, as rsl_rl's wrapper of Isaac Lab."""

    def seed(self, seed):
        self.inner.generator.manual_seed(seed)
        return seed

    def reset(self):
        self.inner.reset()
        return self.get_observations(), {}
