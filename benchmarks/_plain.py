"""The plain loops that every figure is held against: gymnasium, torch, preallocated tensors, nothing of ours."""

from __future__ import annotations

import time

import gymnasium
import numpy as np
import torch
from torch import nn


def tanh_mlp(num_inputs: int, num_outputs: int) -> nn.Sequential:
    """The 64×64 network that all the loops act with."""
    return nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs))


class PlainCollector:
    """Collect ``num_steps`` vector steps with ``SyncVectorEnv``, a 64×64 policy and ``torch.distributions``.

    Records observation, next observation (the true one, also at an ending), action, log-prob, reward, terminated,
    truncated.
    ``normalize`` keeps a running mean and variance of the observations, updated at every step as vector-env wrappers
    do. ``asynchronous`` puts each environment into a process, by ``AsyncVectorEnv``.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        num_steps: int,
        *,
        normalize: bool = False,
        seed: int = 0,
        asynchronous: bool = False,
    ) -> None:
        make = [lambda: gymnasium.make(name) for _ in range(num_envs)]
        kind = gymnasium.vector.AsyncVectorEnv if asynchronous else gymnasium.vector.SyncVectorEnv
        self.envs = kind(make, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
        self.num_envs, self.num_steps = num_envs, num_steps
        space = self.envs.single_action_space
        size = self.envs.single_observation_space.shape[0]
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)
        width = int(space.n) if self.discrete else space.shape[0]
        self.network = tanh_mlp(size, width)
        self.log_std = nn.Parameter(torch.zeros(width))
        shape = (num_steps, num_envs)
        self.observation = torch.zeros(*shape, size)
        self.next_observation = torch.zeros(*shape, size)
        self.action = torch.zeros(shape, dtype=torch.int64) if self.discrete else torch.zeros(*shape, width)
        self.log_prob, self.reward = torch.zeros(shape), torch.zeros(shape)
        self.terminated = torch.zeros(shape, dtype=torch.bool)
        self.truncated = torch.zeros(shape, dtype=torch.bool)
        self.statistics = (torch.zeros(size), torch.ones(size), 1e-4) if normalize else None
        current, _ = self.envs.reset(seed=seed)
        self.current = torch.as_tensor(current, dtype=torch.float32)

    def distribution(self, observation: torch.Tensor) -> torch.distributions.Distribution:
        output = self.network(observation)
        if self.discrete:
            return torch.distributions.Categorical(logits=output)
        return torch.distributions.Independent(
            torch.distributions.Normal(output, self.log_std.exp().expand_as(output)), 1
        )

    def normalized(self, observation: torch.Tensor) -> torch.Tensor:
        if self.statistics is None:
            return observation
        mean, var, count = self.statistics
        batch_mean, batch_var, n = observation.mean(0), observation.var(0, unbiased=False), observation.shape[0]
        delta, total = batch_mean - mean, count + n
        mean = mean + delta * n / total
        var = (var * count + batch_var * n + delta.square() * count * n / total) / total
        self.statistics = (mean, var, total)
        return ((observation - mean) / torch.sqrt(var + 1e-8)).clamp(-10, 10)

    def shutdown(self) -> None:
        self.envs.close()

    @torch.no_grad()
    def collect(self) -> None:
        for t in range(self.num_steps):
            self.observation[t] = self.current
            distribution = self.distribution(self.normalized(self.current))
            action = distribution.sample()
            self.action[t] = action
            self.log_prob[t] = distribution.log_prob(action)
            following, reward, terminated, truncated, infos = self.envs.step(action.numpy())
            self.reward[t] = torch.as_tensor(reward, dtype=torch.float32)
            self.terminated[t] = torch.as_tensor(terminated)
            self.truncated[t] = torch.as_tensor(truncated)
            self.next_observation[t] = torch.as_tensor(following, dtype=torch.float32)
            done = terminated | truncated
            if done.any():
                for index in np.flatnonzero(done):
                    self.next_observation[t, index] = torch.as_tensor(infos["final_obs"][index], dtype=torch.float32)
            self.current = torch.as_tensor(following, dtype=torch.float32)


def seconds_per_call(function, *, seconds: float = 2.0, repeats: int = 3) -> float:
    """Best mean time of a call over ``repeats`` rounds of about ``seconds / repeats`` each."""
    function()
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    calls = max(1, int(seconds / repeats / max(once, 1e-9)))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, (time.perf_counter() - start) / calls)
    return best
