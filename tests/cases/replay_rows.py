"""Items that tell whether they are whole: every entry follows from one number, the key of the item."""

import numpy as np
import torch
from tensordict import TensorDict

WRITER = 2**40  # the key of a writer's item is WRITER times the writer's number, and how many it wrote before
EPISODE = 50
BATCH = 256


def rows(writer, start, num, *, in_time=False):
    """Make items ``[num]``, or ``[1, num]`` steps in time, episodes of 50; the entry ``large`` takes 1280 bytes."""
    number = torch.arange(start, start + num)
    key = writer * WRITER + number
    items = {
        "key": key,
        "data": key[:, None] * 31 + torch.arange(16) * 7,
        "large": key[:, None] + torch.arange(160),
        "next": {"short": (key[:, None] + torch.arange(3)).to(torch.int16)},
        "checksum": checksum(key),
    }
    if in_time:
        items["is_init"] = (number % EPISODE == 0)[:, None]
        items["next"]["done"] = (number % EPISODE == EPISODE - 1)[:, None]
        items["collector"] = {"traj_ids": writer * 10**6 + number // EPISODE}
    batch = TensorDict(items, batch_size=[num])
    return batch.unsqueeze(0) if in_time else batch


def checksum(key):
    return key * 6364136223846793005 + 1442695040888963407


def num_torn(sample):
    """Count the items of a sample with an entry that is not its key's."""
    sample = sample.reshape(-1)
    key = sample["key"][:, None]
    whole = (sample["checksum"][:, None] == checksum(key)).all(1)
    whole &= (sample["data"] == key * 31 + torch.arange(16) * 7).all(1)
    whole &= (sample["large"] == key + torch.arange(160)).all(1)
    whole &= (sample["next", "short"] == (key + torch.arange(3)).to(torch.int16)).all(1)
    return int((~whole).sum())


class Witness:
    """Takes samples of one reader and notes what is wrong with them.

    Args:
        buffer: what is sampled from.
        lag: how many calls before the present one of this reader a sample may have been drawn. An item is stale if the
            ring had come round to its place before that call began: its id is below written - capacity, as of then.
    """

    def __init__(self, buffer, lag=0):
        self.buffer, self.lag = buffer, lag
        self.rows = self.torn = self.stale = self.unborn = self.broken = 0
        self.written = []  # when each call began
        self.ids, self.keys = [], []

    def sample(self):
        ledger = self.buffer.storage.ledger
        self.written.append(ledger.written)
        sample = self.buffer.sample(BATCH)
        ids = sample["replay", "id"]
        self.rows += ids.numel()
        self.torn += num_torn(sample)
        bound = self.written[max(len(self.written) - 1 - self.lag, 0)] - ledger.capacity
        self.stale += int((ids < max(bound, 0)).sum())
        self.unborn += int((ids >= ledger.written).sum())
        if ids.ndim == 2:
            self.broken += int((sample["key"].diff(dim=1) != 1).sum())
        self.ids.append(ids.reshape(-1).numpy())
        self.keys.append(sample["key"].reshape(-1).numpy())
        return sample

    def faults(self):
        return {"torn": self.torn, "stale": self.stale, "unborn": self.unborn, "broken": self.broken}

    def seen(self):
        return np.concatenate(self.ids), np.concatenate(self.keys)


NO_FAULTS = {"torn": 0, "stale": 0, "unborn": 0, "broken": 0}


def num_swapped(seen):
    """Count where an id stood for two different items, or a writer's items have their ids in another order."""
    ids, keys = (np.concatenate(column) for column in zip(*seen, strict=True))
    pairs = np.unique(np.stack((ids, keys), 1), axis=0)
    swapped = int((np.diff(pairs[:, 0]) == 0).sum())
    for writer in np.unique(pairs[:, 1] // WRITER):
        of_writer = pairs[pairs[:, 1] // WRITER == writer]
        swapped += int((np.diff(of_writer[:, 1]) <= 0).sum())
    return swapped
