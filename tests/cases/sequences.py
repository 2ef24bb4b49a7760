"""Value losses of networks with memory, and sequences with endings, resets and masked steps to hold them against.

Each case is the kind of action, and what builds the loss: of a function that is called on every network, which may put
a cell before it, and of further options.
"""

import torch

from cases.losses import (
    BOUNDS,
    CHOICE,
    KINDS,
    NUM_ACTIONS,
    critics,
    deterministic,
    gaussian,
    make_rows,
    make_transitions,
    network,
)
from torchrl.functional.endings import next_step_follows
from torchrl.modules import (
    MLP,
    Categorical,
    DistributionalQValueActor,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    ValueEnsemble,
    ValueOperator,
)
from torchrl.objectives import (
    DDPGLoss,
    DiscreteSACLoss,
    DistributionalDQNLoss,
    DQNLoss,
    QuantileDQNLoss,
    REDQLoss,
    SACLoss,
    TD3Loss,
)

SHAPE = (3, 9)
MASK = ("collector", "mask")


def choosing(wrap):
    return wrap(ProbabilisticActor(network(4, NUM_ACTIONS), Categorical, log_prob_key=None))


def discrete_critics():
    return ValueEnsemble(lambda: MLP(4, NUM_ACTIONS, num_cells=(7,)), 2, in_keys=["observation"])


def plain_critics():
    return ValueEnsemble(lambda: MLP(6, 1, num_cells=(7,)), 2, in_keys=["task", "action"])


VALUE_LOSSES = {
    "DQNLoss": ("choice", lambda w, **o: DQNLoss(w(QValueActor(network(4, 3))), **o)),
    "DQNLoss, single": ("choice", lambda w, **o: DQNLoss(w(QValueActor(network(4, 3))), double=False, **o)),
    "DQNLoss, masked": ("masked", lambda w, **o: DQNLoss(w(QValueActor(network(4, 3), mask_key="action_mask")), **o)),
    "DistributionalDQNLoss": (
        "choice",
        lambda w, **o: DistributionalDQNLoss(w(DistributionalQValueActor(network(4, 3, 11), low=-3.0, high=3.0)), **o),
    ),
    "QuantileDQNLoss": ("choice", lambda w, **o: QuantileDQNLoss(w(QuantileQValueActor(network(4, 3, 5))), **o)),
    "DDPGLoss": ("vector", lambda w, **o: DDPGLoss(w(deterministic()), w(critics(2)), **o)),
    "TD3Loss": ("vector", lambda w, **o: TD3Loss(w(deterministic()), w(critics(2)), action_spec=BOUNDS, **o)),
    "SACLoss": ("vector", lambda w, **o: SACLoss(w(gaussian()), w(critics(2)), action_spec=BOUNDS, **o)),
    "SACLoss, critics without memory": (
        "vector",
        lambda w, **o: SACLoss(w(gaussian()), plain_critics(), action_spec=BOUNDS, **o),
    ),
    "SACLoss, with a state value": (
        "vector",
        lambda w, **o: SACLoss(
            w(gaussian()), w(critics(2)), value=w(ValueOperator(network(4, 1))), action_spec=BOUNDS, **o
        ),
    ),
    "REDQLoss": (
        "vector",
        lambda w, **o: REDQLoss(w(gaussian()), w(critics(3)), num_sampled=2, action_spec=BOUNDS, **o),
    ),
    "DiscreteSACLoss": (
        "choice",
        lambda w, **o: DiscreteSACLoss(choosing(w), w(discrete_critics()), action_spec=CHOICE, **o),
    ),
}


def make_batch(action="choice", *, is_masked=False, seed=0, kind="discrete"):
    """Sequences with endings, whose successors agree with the next steps; masked steps are NaN where they can be."""
    batch = make_transitions(action, *SHAPE, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for key, entry in make_rows(KINDS[kind], *SHAPE).items():
        if key != "observation" and (key != "action" or action == "choice"):
            batch[key] = entry
    done = batch["next", "done"]
    begins = torch.zeros_like(done)
    begins[0, 0] = True
    begins[:, 1:] = done[:, :-1]
    begins[2, 4] = True  # a reset in mid-episode
    batch["is_init"] = begins
    batch["task"] = torch.randn(*SHAPE, 4, generator=draw)
    batch["next", "task"] = torch.randn(*SHAPE, 4, generator=draw)
    batch["memory"] = torch.randn(*SHAPE, 1, 2, 4, generator=draw)
    batch["memory"][:, 1:] = torch.nan  # a sequence reads the first alone
    batch["value_target"], batch["advantage"] = torch.randn(*SHAPE, 1), torch.randn(*SHAPE, 1)
    mask = None
    if is_masked:
        mask = torch.ones(SHAPE, dtype=torch.bool)
        mask[0, 6:] = mask[2, 8:] = False
        batch[MASK] = mask
    follows = next_step_follows(
        batch["next", "terminated"],
        batch["next", "truncated"],
        is_init=begins,
        mask=None if mask is None else mask.unsqueeze(-1),
    )
    for key in ("observation", "task", *(["action_mask"] if action == "masked" else [])):
        after, rows = batch["next", key], follows[:, :-1, 0]
        after[:, :-1][rows] = batch[key][:, 1:][rows]
    if is_masked:
        for entry in batch.exclude(MASK).values(include_nested=True, leaves_only=True):
            if entry.is_floating_point():
                entry[~mask] = torch.nan
    return batch


def features(cell, batch):
    """What a cell writes at every step and after it, by a loop that a reader can check."""
    begins, shape = batch["is_init"], batch.batch_size
    here, after = torch.zeros(*shape, 4), torch.zeros(*shape, 4)
    for row in range(shape[0]):
        state = batch["memory"][row, 0]
        for step in range(shape[1]):
            if begins[row, step]:
                state = torch.zeros_like(state)
            observed, following = batch["observation"][row, step], batch["next", "observation"][row, step]
            out, state = cell.step(observed.unsqueeze(0), state.unsqueeze(0))
            here[row, step], state = out[0], state[0]
            after[row, step] = cell.step(following.unsqueeze(0), state.unsqueeze(0))[0][0]
    return here, after


def without_memory(cell, batch):
    """The batch with the features in the place of the observations."""
    plain = batch.clone()
    with torch.no_grad():
        plain["observation"], plain["next", "observation"] = features(cell, batch)
    return plain.exclude("memory")
