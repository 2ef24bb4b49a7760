"""What the tests of replay share: a batch whose numbers say where they come from."""

import torch
from tensordict import TensorDict


class Player:
    """Plays episodes of a fixed length in each row and returns batches ``[B, T]``, as a collector does.

    ``observation`` is the step since the beginning, ``row`` the row, ``episode`` the number of the row's episode.
    """

    def __init__(self, lengths, *, traj_ids=False, first_id=0):
        self.lengths = lengths
        self.steps = [0] * len(lengths)
        self.since = [0] * len(lengths)
        self.episodes = [0] * len(lengths)
        self.traj_ids = traj_ids
        self.first_id = first_id

    def play(self, num_steps):
        rows = [[self._step(row) for _ in range(num_steps)] for row in range(len(self.lengths))]
        columns = {
            name: torch.tensor([[step[name] for step in row] for row in rows]).unsqueeze(-1) for name in rows[0][0]
        }
        shape = [len(self.lengths), num_steps]
        traj_ids = columns.pop("traj_ids").squeeze(-1)
        outcome = {
            "observation": columns["observation"] + 1.0,
            "done": columns.pop("done"),
            "reward": columns["observation"] * 10.0,
        }
        batch = TensorDict({**columns, "next": TensorDict(outcome, shape)}, shape)
        if self.traj_ids:
            batch["collector"] = TensorDict({"traj_ids": traj_ids}, shape)
        return batch

    def _step(self, row):
        is_init = self.since[row] == 0
        step = {"observation": float(self.steps[row]), "row": row, "episode": self.episodes[row], "is_init": is_init}
        step["traj_ids"] = self.first_id + self.episodes[row] * len(self.lengths) + row
        self.steps[row] += 1
        self.since[row] += 1
        step["done"] = self.since[row] == self.lengths[row]
        if step["done"]:
            self.since[row] = 0
            self.episodes[row] += 1
        return step


def plain(num, start=0):
    """Items ``[num]`` that say nothing of time."""
    values = torch.arange(start, start + num, dtype=torch.float32)
    return TensorDict({"x": values, "pair": torch.stack((values, -values), 1), "deep": {"flag": values > 3}}, [num])
