#!/bin/sh
# rsl_rl: at a time limit PPO bootstraps from the value of the observation before the last step, not of the last one,
# though the world tells the last one. Exits with 0 as long as it behaves so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "rsl-rl-lib==5.5.1" "torch==2.13.0" "tensordict==0.15.3" "numpy==2.4.6"
venv/bin/python -I - <<'END'
from importlib.metadata import version

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict

print("rsl-rl-lib", version("rsl-rl-lib"), "torch", version("torch"))


def seen(*counts):
    return TensorDict({"policy": torch.tensor(counts).unsqueeze(-1)}, [len(counts)])


torch.manual_seed(0)
before, last, first = seen(2.0, 2.0), seen(3.0, 3.0), seen(0.0, 3.0)  # row 0 runs out of time and begins again
groups = {"actor": ["policy"], "critic": ["policy"]}
noise = {"class_name": "GaussianDistribution", "init_std": 1.0}
actor = MLPModel(before, groups, "actor", 1, hidden_dims=[8], distribution_cfg=noise)
critic = MLPModel(before, groups, "critic", 1, hidden_dims=[8])
storage = RolloutStorage("rl", 2, 4, before, [1])
ppo = PPO(actor, critic, storage, gamma=0.5)
ppo.act(before)
over = torch.tensor([True, False])
extras = {"time_outs": over, "final_obs": last}
ppo.process_env_step(first, torch.ones(2), over.long(), extras)

value = {name: critic(one)[0].item() for name, one in (("before", before), ("last", last), ("first", first))}
added = storage.rewards[0].flatten() - 1
print("values of row 0:", {name: round(one, 4) for name, one in value.items()})
print("added to its reward:", round(added[0].item(), 4), "= 0.5 * value before the step:", round(value["before"] / 2, 4))
assert abs(added[0].item() - 0.5 * value["before"]) < 1e-6 and added[1].item() == 0
assert abs(added[0].item() - 0.5 * value["last"]) > 1e-3 and abs(value["before"] - value["first"]) > 1e-3
END
