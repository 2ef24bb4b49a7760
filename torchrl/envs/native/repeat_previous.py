"""A memory task in torch, thousands of rows at a time: choose the symbol that was shown some steps ago."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.counts import is_count
from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.envs.native.batches import batch_shape
from torchrl.envs.row_random import RowRandom
from torchrl.envs.torch_env import TorchEnv
from torchrl.errors import ConfigError, explain


class RepeatPrevious(TorchEnv):
    """A batch of memory tasks in torch: each step shows a random symbol; choose the symbol shown ``delay`` steps ago.

    ``observation``, float32 ``[*B, num_symbols]``: the symbol of this step, one-hot, drawn uniformly. The action is the
    index of a symbol. The reward is 1 if that symbol was shown ``delay`` steps before this one, else 0, and always 0 in
    the first ``delay`` steps. No episode is terminated; all are truncated after ``max_episode_steps``.

    The best return is ``max_episode_steps - delay``. Policies without memory get at most that divided by
    ``num_symbols`` on average, since symbols do not depend on each other.

    >>> env = RepeatPrevious(1000, delay=2, num_symbols=3, max_episode_steps=12)
    >>> env.best_return, env.rollout(12)["next", "reward"].sum(1).mean().round().item()  # 10, and a third at random
    (10.0, 3.0)

    Args:
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        delay: how many steps ago the symbol to choose was shown.
        num_symbols: how many symbols there are.
        max_episode_steps: length of every episode.
        device: where the state lives.

    Attributes:
        best_return: of a policy with memory.
        best_return_without_memory: the mean return of the best policy without memory.

    Raises:
        ConfigError: ``delay`` is not positive, ``num_symbols`` below 2, ``max_episode_steps`` not above ``delay``, or
            ``num_envs`` no batch size.
    """

    def __init__(
        self,
        num_envs: int | Sequence[int] | None = None,
        *,
        delay: int = 4,
        num_symbols: int = 4,
        max_episode_steps: int = 32,
        device: torch.device | str = "cpu",
    ) -> None:
        least = {"delay": 1, "num_symbols": 2}
        for name, value in {"delay": delay, "num_symbols": num_symbols}.items():
            if not is_count(value, least=least[name]):
                raise ConfigError(explain("RepeatPrevious", expected=f"{name} of at least {least[name]}", got=value))
        if not is_count(max_episode_steps, least=delay + 1):
            expected = f"max_episode_steps above the delay of {delay}"
            hint = "Every episode has this length, and the first steps are not paid."
            raise ConfigError(explain("RepeatPrevious", expected=expected, got=max_episode_steps, hint=hint))
        shape = batch_shape(num_envs)
        observation = Bounded(0.0, 1.0, (*shape, num_symbols), device=device)
        super().__init__(
            batch_size=shape,
            observation_spec=Composite({"observation": observation}, shape=shape),
            action_spec=Categorical(num_symbols, shape, device=device),
            reward_spec=Bounded(0.0, 1.0, (*shape, 1), device=device),
            max_episode_steps=max_episode_steps,
            hidden=["symbols", "time"],
            device=device,
        )
        self.delay, self.num_symbols = delay, num_symbols
        self.best_return = float(max_episode_steps - delay)
        self.best_return_without_memory = self.best_return / num_symbols

    def start(self, random: RowRandom) -> TensorDict:
        """Draw all symbols of every row's episode, so that ``dynamics`` draws none; see :meth:`TorchEnv.start`."""
        symbols = random.randint(self.num_symbols, self.max_episode_steps + 1)
        return self._state(symbols, torch.zeros_like(symbols[..., :1]))

    def dynamics(self, state: TensorDict, action: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor]:
        """Return the state with the next symbol, and the reward of the chosen one; see :meth:`TorchEnv.dynamics`."""
        symbols, time = state["symbols"], state["time"]
        asked_for = symbols.gather(-1, (time - self.delay).clamp(min=0))
        is_right = (asked_for == action.unsqueeze(-1)) & (time >= self.delay)
        # Rows that wait behind their last step are stepped, too, and nobody looks at what they see.
        following = self._state(symbols, (time + 1).clamp(max=self.max_episode_steps))
        return following, is_right.float(), torch.zeros_like(is_right)

    def _state(self, symbols: torch.Tensor, time: torch.Tensor) -> TensorDict:
        shown = symbols.gather(-1, time).squeeze(-1)
        seen = torch.nn.functional.one_hot(shown, self.num_symbols).float()
        return TensorDict({"observation": seen, "symbols": symbols, "time": time}, shown.shape)
