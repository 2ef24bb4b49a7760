"""Every mistake of docs/pitfalls.md that a user's own environment or policy can make, planted, found and explained."""

import warnings

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.collectors import Collector
from torchrl.data.specs import Bounded, Categorical, Composite, OneHot, Unbounded
from torchrl.envs import TransformedEnv, check_env
from torchrl.envs.base import Env
from torchrl.envs.transforms import Transform
from torchrl.errors import EnvError, KeyMissing, NonFiniteError, SpecError
from torchrl.modules import Categorical as Choice, ProbabilisticActor

NUM_ENVS = 2
COLUMN = (NUM_ENVS, 1)


class Walk(Env):
    """A user's environment, written against the two hooks; right unless a mistake is planted.

    The observation is the position, which starts anywhere in [0, 1) and moves by 1 for action 1; an episode ends after
    three steps.
    """

    def __init__(self, mistake=None, same_starts=False):
        super().__init__(
            batch_size=[NUM_ENVS],
            observation_spec=Composite({"position": Bounded(0.0, 10.0, COLUMN)}, shape=[NUM_ENVS]),
            action_spec=Categorical(2, [NUM_ENVS]),
        )
        self.mistake, self.same_starts = mistake, same_starts
        self.random = torch.Generator().manual_seed(0)
        self.now = {"position": torch.zeros(COLUMN), "steps": torch.zeros(COLUMN), "is_init": torch.ones(COLUMN)}
        self.now["return"] = torch.zeros(COLUMN)

    def _root(self):
        position = self.now["position"]
        if self.mistake != "reused buffer":
            position = position.clone()
        root = TensorDict({"position": position, "is_init": self.now["is_init"].bool()}, self.batch_size)
        root.update({"episode_return": self.now["return"], "episode_length": self.now["steps"].long()})
        if self.mistake == "no is_init":
            del root["is_init"]
        if self.mistake == "no return":
            del root["episode_return"]
        return root

    def reset_rows(self, mask, *, seeds, options):
        if self.mistake == "spec changed after construction":
            self.observation_spec["position"] = Unbounded(COLUMN)
        if seeds is not None and self.mistake != "reset ignoring its seed":
            self.random.manual_seed(seeds[0])
        rows = torch.ones(COLUMN, dtype=torch.bool) if mask is None else mask.unsqueeze(-1)
        fresh = torch.zeros(COLUMN) if self.same_starts else torch.rand(COLUMN, generator=self.random)
        self.now["position"] = torch.where(rows, fresh, self.now["position"])
        self.now["steps"], self.now["return"] = (torch.where(rows, 0.0, self.now[name]) for name in ("steps", "return"))
        self.now["is_init"] = torch.where(rows, 1.0, self.now["is_init"])
        if self.mistake == "forgets is_init":
            self.now["is_init"] = torch.zeros(COLUMN)
        return self._root()

    def step_rows(self, tensordict):
        action = tensordict["move" if self.mistake == "unknown action key" else "action"]
        moved = self.now["position"] + action.unsqueeze(-1)
        self.now["position"] = self.now["position"].copy_(moved) if self.mistake == "reused buffer" else moved
        self.now["steps"] = self.now["steps"] + 1
        self.now["is_init"] = torch.zeros(COLUMN)
        over = self.now["steps"] == 3
        next_ = TensorDict({"position": moved.clone(), "reward": action.unsqueeze(-1).float()}, self.batch_size)
        next_.update({"terminated": over, "truncated": torch.zeros_like(over), "done": over.clone()})
        self.now["return"] = self.now["return"] + next_["reward"]
        next_.update({"episode_return": self.now["return"], "episode_length": self.now["steps"].long()})
        if self.mistake in PLANT:
            PLANT[self.mistake](next_, self)
        root = self._root()
        if self.mistake == "key not carried":
            del root["position"]
        if self.mistake == "is_init not carried":
            del root["is_init"]
        if self.mistake == "another value carried":
            root["position"] += 1
        return next_, root, bool(over.any())


def replace_last(next_, env):
    """Put the observation after the reset where the last one of the episode belongs."""
    if bool(next_["done"].any()):
        ahead = torch.Generator()
        ahead.set_state(env.random.get_state())
        fresh = torch.zeros(COLUMN) if env.same_starts else torch.rand(COLUMN, generator=ahead)
        next_["position"] = torch.where(next_["done"], fresh, next_["position"])


PLANT = {
    "missing key": lambda next_, env: next_.pop("position"),
    "wrong shape": lambda next_, env: next_.set("position", next_["position"].expand(NUM_ENVS, 3)),
    "batch dimension missing": lambda next_, env: next_._tensordict.update(position=next_["position"][0]),
    "float64": lambda next_, env: next_.set("position", next_["position"].double()),
    "NaN": lambda next_, env: next_.set("position", next_["position"] * torch.nan),
    "infinite reward": lambda next_, env: next_.set("reward", next_["reward"] + torch.inf),
    "observation out of bounds": lambda next_, env: next_.set("position", next_["position"] + 100),
    "wrong device": lambda next_, env: next_.set("position", next_["position"].to("meta")),
    "reward of shape [B]": lambda next_, env: next_.set("reward", next_["reward"].squeeze(-1)),
    "list reward": lambda next_, env: next_.set("reward", [1.0, 1.0]),
    "done without a flag": lambda next_, env: next_.set("done", torch.ones(COLUMN, dtype=torch.bool)),
    "flag of numbers": lambda next_, env: next_.set("terminated", next_["terminated"].float()),
    "no flag": lambda next_, env: next_.pop("truncated"),
    "a key of no spec": lambda next_, env: next_.set("speed", next_["reward"]),
    "done of numbers": lambda next_, env: next_.set("done", next_["done"].float()),
    "no reward": lambda next_, env: next_.pop("reward"),
    "no length": lambda next_, env: next_.pop("episode_length"),
    "terminal observation replaced by the reset one": replace_last,
}
# mistake -> (error, what the message must say: where it is, both sides, what to do)
FOUND = {
    "missing key": (KeyMissing, r"'next' with \['position'\]"),
    "wrong shape": (SpecError, r"position: expected shape \[2, 1\], got shape \[2, 3\]"),
    "batch dimension missing": (SpecError, r"shape \[2, 1\], got shape \[1\]\. The batch dimensions \[2\] are missing"),
    "float64": (SpecError, r"dtype float32, got dtype float64\. Cast it"),
    "NaN": (SpecError, "NaN at .*Find where it came from"),
    "infinite reward": (EnvError, "'reward'.*finite numbers"),
    "observation out of bounds": (SpecError, r"values from 0.0 to 10.0, got 1\d\d.*project\(\)"),
    "wrong device": (SpecError, r"device cpu, got device meta\. Move it"),
    "reward of shape [B]": (SpecError, r"reward.*shape \[2, 1\], got shape \[2\].*unsqueeze\(-1\)"),
    "list reward": (SpecError, r"reward.*shape \[2, 1\], got shape \[2\].*unsqueeze"),
    "done without a flag": (EnvError, "done = terminated or truncated.*Set terminated when"),
    "flag of numbers": (EnvError, r"'terminated': expected bool of shape \[2, 1\], got torch.float32"),
    "no flag": (KeyMissing, r"\['truncated'\]"),
    "a key of no spec": (EnvError, r"\['speed'\] beside them\. Describe it in the observation_spec"),
    "terminal observation replaced by the reset one": (EnvError, "true last observation.*before the reset"),
    "done of numbers": (EnvError, r"'done': expected bool of shape \[2, 1\], got torch.float32"),
    "no reward": (KeyMissing, r"\['reward'\]"),
    "key not carried": (KeyMissing, "the next root with the key 'position'"),
    "another value carried": (
        EnvError,
        "'position': expected the next root to hold what 'next' held.*that go on were shown",
    ),
    "no is_init": (KeyMissing, r"the root after reset with \['is_init'\]"),
    "no return": (KeyMissing, r"the root after reset with \['episode_return'\].*Agents and evaluators read them"),
    "no length": (KeyMissing, r"'next' with \['episode_length'\].*Agents and evaluators read them"),
    "is_init not carried": (KeyMissing, r"the next root with \['is_init'\]"),
    "forgets is_init": (EnvError, "is_init true on every row after reset"),
    "reused buffer": (EnvError, "'position': expected the root to stay as it was.*fresh tensor"),
    "reset ignoring its seed": (EnvError, r"the same run twice after set_seed\(0\).*generator"),
    "spec changed after construction": (EnvError, "(?s)observation_spec: expected .* for good.*in the constructor"),
    "unknown action key": (KeyError, "move"),
}


def test_the_environment_without_a_mistake_passes():
    check_env(Walk())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(Walk(same_starts=True))


@pytest.mark.parametrize("mistake", FOUND)
def test_check_env_finds_it_and_says_what_to_do(mistake):
    kind, message = FOUND[mistake]
    with pytest.raises(kind, match=message):
        check_env(Walk(mistake))


def test_an_action_under_another_key_is_explained():
    with pytest.raises(KeyError) as caught:
        check_env(Walk("unknown action key"))
    assert "acts under 'action'" in caught.value.__notes__[0]


def test_where_all_episodes_start_alike_a_replaced_last_observation_is_a_warning():
    with pytest.warns(UserWarning, match="true last observation.*All episodes start alike"):
        check_env(Walk("terminal observation replaced by the reset one", same_starts=True))


def test_a_last_observation_replaced_at_one_kind_of_ending_alone_is_found():
    class Both(Walk):
        """Ends as terminated or truncated in turn; right for the truncated ones."""

        def step_rows(self, tensordict):
            next_, root, ended = super().step_rows(tensordict)
            if ended:
                self.turns = getattr(self, "turns", 0) + 1
                if self.turns % 2:
                    replace_last(next_, self)
                else:
                    next_["truncated"], next_["terminated"] = next_["terminated"], next_["truncated"]
            return next_, root, ended

        def set_seed(self, seed):
            super().set_seed(seed)
            self.turns = 0

    with pytest.raises(EnvError, match="true last observation"):
        check_env(Both())


class Writes(Transform):
    """A transform that writes a key which its spec does not have."""

    def step(self, next_, root):
        next_.set("seen", next_["position"])
        root.set("seen", root["position"])

    def reset(self, root, mask):
        root.set("seen", root["position"])


def test_a_transform_that_returns_another_key_is_found():
    with pytest.raises(EnvError, match=r"\['seen'\] beside them.*a transform: in its observation_spec\(\)"):
        check_env(TransformedEnv(Walk(), Writes()))


# What only a policy can do wrong is found by the collector, on the first transitions.


class Policy(nn.Module):
    """Acts at random, with one planted mistake."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake, self.calls = mistake, 0

    def forward(self, root):
        self.calls += 1
        action = torch.randint(2, (NUM_ENVS,))
        if self.mistake == "policy writing a new key later" and self.calls > 1:
            root.set("value", torch.zeros(COLUMN))
        if self.mistake == "policy writing no action":
            return root
        planted = {
            "action not int64": action.float(),
            "one-hot against index": nn.functional.one_hot(action, 2),
            "action of shape [B, 1]": action.unsqueeze(-1),
            "action out of range": action + 2,
            "action on another device": action.to("meta"),
        }
        return root.set("action", planted.get(self.mistake, action))


POLICY_MISTAKES = {
    "policy writing no action": (KeyMissing, r"key 'action'.*The policy must write 'action'"),
    "policy writing a new key later": (SpecError, "'value' is new.*same entries at every step"),
    "action not int64": (SpecError, "action: expected dtype int64, got dtype float32"),
    "one-hot against index": (SpecError, r"action: .*shape \[2\], got shape \[2, 2\].*one-hot.*argmax"),
    "action of shape [B, 1]": (SpecError, r"action: .*shape \[2\], got shape \[2, 1\].*squeeze"),
    "action out of range": (SpecError, "an index from 0 to 1"),
    "action on another device": (SpecError, "device cpu, got device meta"),
}


@pytest.mark.parametrize("mistake", POLICY_MISTAKES)
def test_the_collector_finds_a_mistake_of_a_policy(mistake):
    kind, message = POLICY_MISTAKES[mistake]
    with pytest.raises(kind, match=message):
        Collector(Walk(), Policy(mistake), frames_per_batch=8).collect()


def test_index_actions_for_a_one_hot_environment_are_refused_too():
    class OneHotWalk(Walk):
        def __init__(self):
            super().__init__()
            self.action_spec = OneHot(2, (NUM_ENVS, 2))

    actor = ProbabilisticActor(nn.Linear(1, 2), Choice, in_keys=["position"])
    with pytest.raises(SpecError, match="expected a one-hot vector of 2, got a Categorical: one index of 2"):
        Collector(OneHotWalk(), actor, frames_per_batch=8).collect()


def test_an_observation_that_is_nan_is_not_handed_out():
    class Late(Walk):
        def step_rows(self, tensordict):
            next_, root, ended = super().step_rows(tensordict)
            if bool((self.now["steps"] == 2).any()):
                next_["position"] = next_["position"] * torch.nan
            return next_, root, ended

    with pytest.raises(NonFiniteError, match="'next/position'.*step 1"):
        Collector(Late(), frames_per_batch=8).collect()
