"""Rewards of replayed samples, divided by the deviation of returns so far. The buffer holds undivided rewards."""

from __future__ import annotations

import math

import numpy as np
from tensordict import TensorDictBase

from torchrl.data.multistep import REWARD
from torchrl.data.trajectories import ENDS, STARTS
from torchrl.errors import ConfigError, explain
from torchrl.objectives.keys import MASK, TRAJ_IDS, read


class RewardScale:
    """Divide the rewards of samples by the running standard deviation of the discounted return, then clip them.

    The buffer holds unscaled rewards, so early and late ones are scaled alike when sampled. Rewards are not centred,
    which would change the task. The returns ``R_t = γ R_{t-1} + r_t`` restart from 0 at each episode and after masked
    steps, and continue from batch to batch of any length and of several workers in any order: a trajectory is
    recognised by its ``("collector", "traj_ids")``, or by its row where a batch has none. A return n frames old has the
    weight ``decayⁿ``; returns of one time step are equally old. While the deviation is 0, rewards are not divided.

    Engstrom et al., "Implementation Matters in Deep Policy Gradients" (2020), https://arxiv.org/abs/2005.12729, section
    3, item 2, for the division; the fading is ours.

    >>> scale = RewardScale(gamma=0.99)
    >>> scale.update(batch)
    >>> scaled = scale(batch)
    >>> torch.allclose(scaled["next", "reward"] * scale.std, batch["next", "reward"])
    True

    Args:
        gamma: γ.
        decay: factor on all weights at each frame; the default averages over about the last 100,000.
        clip: the largest size of a scaled reward; None for no limit.

    Raises:
        ConfigError: a number out of its range.
    """

    MAX_OPEN = 1 << 16  # unfinished trajectories kept; the oldest go first, such as those of a worker that died

    def __init__(self, gamma: float, *, decay: float = 0.99999, clip: float | None = 10.0) -> None:
        if not (0 <= gamma <= 1 and 0 < decay <= 1) or (clip is not None and not clip > 0):
            got = f"gamma={gamma}, decay={decay}, clip={clip}"
            raise ConfigError(explain("RewardScale", expected="gamma and decay up to 1, a positive clip", got=got))
        self.gamma = gamma
        self.decay = decay
        self.clip = clip
        self._weight = self._mean = self._square = 0.0
        self._ids = np.empty(0, np.int64)  # of unfinished trajectories, ascending, [M]
        self._returns = np.empty((0, 1))  # of each up to its last row, [M, R]

    @property
    def std(self) -> float:
        """The number that rewards are divided by now, then clipped to ``clip``; 1 before the returns have a spread."""
        if self._weight == 0:
            return 1.0
        variance = self._square / self._weight - (self._mean / self._weight) ** 2
        return math.sqrt(variance) if variance > 1e-12 else 1.0

    def update(self, batch: TensorDictBase) -> None:
        """Add the discounted returns of a collected batch ``[*B, T]`` to the running statistics.

        :class:`ReplayUpdates` calls it once per collected batch; scaling a sample does not.

        Raises:
            KeyMissing: ``is_init`` or the reward is not there.
        """
        size = (batch.batch_size[:-1].numel(), batch.batch_size[-1])
        starts, reward = (read(batch, key, who="RewardScale").cpu().numpy() for key in (STARTS, REWARD))
        ids, done, valid = (batch.get(key, None) for key in (TRAJ_IDS, ENDS, MASK))
        reward = reward.reshape(*size, -1).astype(np.float64)
        ids = np.indices(size)[0] if ids is None else ids.cpu().numpy().reshape(size)
        continues = ~starts.reshape(size)  # from the row before it
        continues[:, 1:] &= ids[:, 1:] == ids[:, :-1]
        is_open = np.ones(size[0], bool) if done is None else ~done.cpu().numpy().reshape(size)[:, -1]
        if valid is not None:
            valid = valid.cpu().numpy().reshape(size)
            reward[~valid] = 0.0
            continues &= valid
            continues[:, 1:] &= valid[:, :-1]
            is_open &= valid[:, -1]
        running, returns = self._pop_returns(ids[:, 0], reward.shape[-1]), np.empty_like(reward)
        for step in range(size[1]):
            running = np.where(continues[:, step, None], running * self.gamma, 0.0) + reward[:, step]
            returns[:, step] = running
        self._push_returns(ids[is_open, -1], running[is_open])
        self._count(returns, valid)

    def _pop_returns(self, ids: np.ndarray, num: int) -> np.ndarray:
        """Remove and return the running returns kept of trajectories ``ids``, ``[B, R]``; 0 for unknown ones."""
        found = np.zeros((len(ids), num))
        if len(self._ids):
            place = self._ids.searchsorted(ids).clip(max=len(self._ids) - 1)
            is_known = self._ids[place] == ids
            found[is_known] = self._returns[place[is_known]]
            others = np.ones(len(self._ids), bool)
            others[place[is_known]] = False
            self._ids, self._returns = self._ids[others], self._returns[others]
        return found

    def _push_returns(self, ids: np.ndarray, running: np.ndarray) -> None:
        """Keep the running returns, ``[B, R]``, of the unfinished trajectories ``ids`` for the next batch."""
        if len(self._ids):
            ids, running = np.concatenate([self._ids, ids]), np.concatenate([self._returns, running])
        order = ids.argsort()[-self.MAX_OPEN :]
        self._ids, self._returns = ids[order], running[order]

    def _count(self, returns: np.ndarray, valid: np.ndarray | None) -> None:
        """Add the valid ones of ``returns``, ``[B, T, R]``, to the weighted sums, and decay the sums so far."""
        num_rows, num_steps, _ = returns.shape
        num_each = np.full(num_steps, num_rows) if valid is None else valid.sum(0)
        num_frames = int(num_each.sum())
        weights = self.decay ** (num_frames - num_each.cumsum())[None, :, None]  # by the frames behind each step
        weights = np.broadcast_to(weights, returns.shape)
        if valid is not None:
            weights, returns = weights[valid], returns[valid]
        faded, weighed = self.decay**num_frames, weights * returns
        self._weight = self._weight * faded + float(weights.sum())
        self._mean = self._mean * faded + float(weighed.sum())
        self._square = self._square * faded + float((weighed * returns).sum())

    def __call__(self, sample: TensorDictBase) -> TensorDictBase:
        """Return a sample with rewards scaled, then clipped to ±``clip``; sample and statistics stay as they are."""
        reward = sample.get(("next", "reward")) / self.std
        if self.clip is not None:
            reward = reward.clamp(-self.clip, self.clip)
        result = sample.copy()
        result.set("next", sample.get("next").copy().set("reward", reward))
        return result

    def state_dict(self) -> dict:
        """Return the statistics, and the running return of every unfinished trajectory."""
        return {
            "weight": self._weight,
            "mean": self._mean,
            "square": self._square,
            "ids": self._ids.tolist(),
            "returns": self._returns.tolist(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self._weight, self._mean, self._square = state["weight"], state["mean"], state["square"]
        self._ids = np.array(state["ids"], np.int64)
        self._returns = np.array(state["returns"]).reshape(len(self._ids), -1 if state["ids"] else 1)
