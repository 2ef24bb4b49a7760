"""Proportional prioritised replay: Schaul et al., "Prioritized Experience Replay" (2016)."""

from __future__ import annotations

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.data.replay.ledger import Ledger
from torchrl.data.replay.samplers import Draw, Sampler
from torchrl.data.replay.sum_tree import SumTree
from torchrl.errors import ConfigError, KeyMissing, NonFiniteError, SpecError, explain

NORMALIZERS = ("batch", "buffer")


class PrioritizedSampler(Sampler):
    """Draw item i of priority p_i with probability P(i) = (p_i + ε)^α / Σ_k (p_k + ε)^α (equation 1), with replacement.

    A new item gets the highest priority so far, so that it is soon drawn. A sample's ``("replay", "weight")`` are the
    importance weights (N · P(i))^-β (section 3.4), N the items in the buffer, divided by the largest of the batch, or
    of the whole buffer.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(100), sampler=PrioritizedSampler(alpha=1.0, eps=0.0), batch_size=4)
    >>> _ = buffer.extend(batch)
    >>> buffer.update_priority(torch.arange(16), torch.eye(16)[3])  # one error of 1, all others 0
    >>> buffer.sample()["replay", "index"]
    tensor([3, 3, 3, 3])

    Args:
        alpha: how much priorities matter; 0 draws uniformly.
        beta: how much of the bias the weights undo, from 0 to 1.
        beta_steps: over how many samples ``beta`` rises linearly to 1; None keeps it constant.
        eps: added to every priority.
        normalize: ``"batch"`` or ``"buffer"``: where the largest weight is scaled to 1.

    Raises:
        ConfigError: a number out of its range, or an unknown ``normalize``.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_steps: int | None = None,
        eps: float = 1e-8,
        normalize: str = "batch",
    ) -> None:
        for name, value, fits in (("alpha", alpha, alpha >= 0), ("beta", beta, 0 <= beta <= 1), ("eps", eps, eps >= 0)):
            if not fits:
                expected = f"{name} from 0 {'to 1' if name == 'beta' else 'on'}"
                raise ConfigError(explain("PrioritizedSampler", expected=expected, got=value))
        if beta_steps is not None and beta_steps < 1:
            raise ConfigError(explain("PrioritizedSampler", expected="beta_steps of at least 1", got=beta_steps))
        if normalize not in NORMALIZERS:
            expected = f"normalize to be one of {NORMALIZERS}"
            raise ConfigError(explain("PrioritizedSampler", expected=expected, got=repr(normalize)))
        self.alpha = alpha
        self.initial_beta = beta
        self.beta_steps = beta_steps
        self.eps = eps
        self.normalize = normalize
        self.num_draws = 0
        self._highest = 1.0
        self._tree: SumTree | None = None

    @property
    def beta(self) -> float:
        """The exponent β of the weights now: it rises with each sample drawn, if ``beta_steps`` is given."""
        share = 0.0 if self.beta_steps is None else min(self.num_draws / self.beta_steps, 1.0)
        return self.initial_beta + share * (1.0 - self.initial_beta)

    def bind(self, capacity: int) -> None:
        """Make the sum tree of ``capacity`` places; the buffer calls it once."""
        self._tree = SumTree(capacity)

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw ``num`` items by their priorities, and return them with their importance ``weight``, float32."""
        places = self.draw_places(num, generator)
        return Draw(places, facts={"weight": self.weigh(places, len(ledger))})

    def draw_places(self, num: int, generator: np.random.Generator) -> np.ndarray:
        """Return ``num`` places, each drawn in proportion to its share ``(p + eps) ** alpha``.

        Raises:
            ConfigError: every priority is 0.
        """
        if not self._tree.total > 0:
            hint = "With eps=0 an item of priority 0 is never drawn."
            raise ConfigError(explain("sample", expected="items with a priority above 0", got="none", hint=hint))
        return self._tree.find(generator.random(num))

    def shares(self, places: np.ndarray) -> np.ndarray:
        """Return ``(p + eps) ** alpha`` at these places, the unnormalised probabilities; 0 where there is no item."""
        return self._tree[places]

    def weigh(self, places: np.ndarray, num_items: int) -> np.ndarray:
        """Return the importance weights of drawn places, float32, and count one more sample for ``beta_steps``.

        ``num_items`` is N, the number of items that the sample was drawn from.
        """
        tree, beta = self._tree, self.beta
        self.num_draws += 1
        weights = (num_items / tree.total * tree[places]) ** -beta
        largest = weights.max() if self.normalize == "batch" else (num_items / tree.total * tree.smallest()) ** -beta
        return (weights / largest).astype(np.float32)

    def on_write(self, places: np.ndarray, ledger: Ledger) -> None:
        """Give new items the highest priority so far."""
        self._tree[places] = (self._highest + self.eps) ** self.alpha

    def on_drop(self, places: np.ndarray) -> None:
        """Give places without an item probability 0, so that they are not drawn."""
        self._tree[places] = 0.0

    def update_priority(self, places: np.ndarray, priority: np.ndarray) -> None:
        """Set the priorities, finite and not negative, of the items in these places."""
        if not len(places):
            return
        self._highest = max(self._highest, float(priority.max()))
        self._tree[places] = (priority + self.eps) ** self.alpha

    def clear(self) -> None:
        """Forget every item; the schedule of β goes on."""
        self._highest = 1.0
        self._tree = SumTree(self._tree.capacity)

    def state_dict(self) -> dict:
        """Return ``(p + eps) ** alpha`` by place, the highest priority so far, and how many samples were drawn."""
        tree = self._tree[np.arange(self._tree.capacity)]
        return {"tree": torch.from_numpy(tree), "highest": self._highest, "num_draws": self.num_draws}

    def load_state_dict(self, state: dict) -> None:
        self._highest, self.num_draws = state["highest"], state["num_draws"]
        self._tree[np.arange(self._tree.capacity)] = state["tree"].numpy()


def resolve_priority(which: TensorDictBase | Tensor, priority: object) -> object:
    """Return ``priority``, or if it is None the entry ``"priority"`` of the sample ``which``.

    Raises:
        KeyMissing: both are missing.
    """
    if priority is None and isinstance(which, TensorDictBase):
        priority = which.get("priority", None)
    if priority is None:
        expected = 'priorities, as an argument or under the key "priority"'
        raise KeyMissing(explain("update_priority", expected=expected, got="none"))
    return priority


def read_priority(priority: object, num: int) -> np.ndarray:
    """Convert priorities to a float64 array ``[num]``; a single number is repeated for all.

    Raises:
        SpecError: not one priority for each item, or a negative one.
        NonFiniteError: NaN or infinity.
    """
    if isinstance(priority, (int, float)):
        priority = np.full(num, float(priority))
    values = torch.as_tensor(priority).detach().cpu().double().numpy().reshape(-1)
    if len(values) != num:
        expected = f"one priority for each of the {num} items"
        got = f"shape {list(torch.as_tensor(priority).shape)}"
        raise SpecError(explain("update_priority", expected=expected, got=got))
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)]
        raise NonFiniteError(explain("update_priority", expected="finite priorities", got=bad[:8].tolist()))
    if len(values) and values.min() < 0:
        got, hint = float(values.min()), "Take the absolute TD error."
        raise SpecError(explain("update_priority", expected="priorities of 0 or more", got=got, hint=hint))
    return values
