"""The contract of an env: a batch of rows that speaks TensorDict. Not a simulator: that is one world in numpy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.counts import is_count
from torchrl.data.specs import Composite, TensorSpec, Unbounded
from torchrl.data.specs.fitting import first_act, require_fit
from torchrl.envs.arguments import ResetOptions, Seed, action_of, require_specs, require_tensordict, row_mask, row_seeds
from torchrl.envs.env_simulator import EnvSimulator
from torchrl.envs.env_state import CarriedState, SharedState, copy_info, put_info_
from torchrl.envs.learned import Learned, learned_state, load_learned_
from torchrl.envs.stepping import carry_written, keep_missing, keep_state, require_same_layout, with_unwritten
from torchrl.errors import ConfigError, EnvError, SpecError, explain
from torchrl.keys import Key
from torchrl.misspelling import refuse_misspelt
from torchrl.seeding import child_seeds, join_seeds
from torchrl.unchecked import peek, put

if TYPE_CHECKING:
    from torchrl.envs.transforms.base import Transform

# Names that other libraries give to attributes, and what an env has instead.
OWN_NAMES = {
    "observation_space": "observation_spec",
    "single_observation_space": "observation_spec",
    "action_space": "action_spec",
    "single_action_space": "action_spec",
    "num_envs": "batch_size",
    "seed": "set_seed",
}
# The same for what subclasses write.
_SEEDS = "reset_rows, which is given the seeds"
_ELSEWHERE = {"_step": "step_rows", "_reset": "reset_rows", "_set_seed": _SEEDS, "seed": _SEEDS}


class Env(ABC):
    """A batch of worlds, one per row, each in an episode of its own, that is reset and stepped by TensorDicts.

    A *root* at time t holds the observations, ``is_init`` and running ``episode_return`` and ``episode_length``; the
    policy adds ``action``. A *transition* is a root with ``"next"``: the true successor observations (also at an
    ending), ``reward``, ``terminated``, ``truncated`` and ``done``, the latter four ``[*B, 1]``. The next root carries
    every key of ``next`` but reward and flags; on rows that ended it holds the observation after the reset.

    Subclasses write :meth:`step_rows` and :meth:`reset_rows`, and :meth:`freeze_rows`, :meth:`require_seeds` and
    :meth:`require_options` where the default is wrong. Callers use :meth:`reset`, :meth:`step` and
    :meth:`step_and_reset`, which check what they are given and carry what a policy wrote. An env around another one
    calls the five methods of rows on it, holds the same :attr:`shared` state, and starts from a copy of what it has
    :attr:`carried`.

    >>> root = env.reset(seed=0)
    >>> transition, root = env.step_and_reset(env.act_at_random(root))
    >>> transition["next", "reward"].tolist(), root["episode_length"].tolist()
    ([[1.0], [1.0]], [[1], [1]])

    Args:
        batch_size: shape ``[*B]`` of the batch of rows.
        observation_spec: what the policy sees, leaves ``[*B, ...]``.
        action_spec: what the policy sends, ``[*B]`` or ``[*B, A]``, or a ``Composite``.
        reward_spec: ``[*B, 1]``; unbounded if None.
        device: where its tensors live.

    Attributes:
        action_mask_key: the observation that says which choices are legal, bool ``[*B, n]``, true = legal; None where
            all are. Whatever acts at random honours it.
        step_limit: the steps after which simulators truncate every episode by themselves, the least of all rows;
            infinity where they do not, or cannot tell.
        task: the id of the task of all rows, such as ``"CartPole-v1"``; empty where it is not known.
        shared: the stream of random actions, the seed that waits for a reset, the count of moves.
        carried: what roots carry beside observations: a policy's state and parameters of each row.
        is_wrapped: whether another env shows these rows; only the outermost repeats what rows that wait observe.
    """

    action_mask_key: Key | None = None
    step_limit: float = math.inf
    task: str = ""
    is_wrapped = False

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a subclass with a misspelt method; see :func:`~torchrl.misspelling.refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, synonyms=_ELSEWHERE)

    def __init__(
        self,
        *,
        batch_size: Sequence[int],
        observation_spec: Composite,
        action_spec: TensorSpec,
        reward_spec: TensorSpec | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size = torch.Size(batch_size)
        self.device = torch.device(device)
        require_specs(type(self).__name__, self.batch_size, observation_spec, action_spec, reward_spec)
        self.observation_spec = observation_spec
        self.action_spec = action_spec
        self.reward_spec = Unbounded((*self.batch_size, 1)) if reward_spec is None else reward_spec
        self.shared = SharedState()
        self.carried = CarriedState(self.batch_size)

    # ---- what subclasses write, and an env around this one calls ----------------------------------------------------

    @abstractmethod
    def step_rows(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        """Step every row; return ``(next, root, any ended)``. In the root, rows that ended wait for :meth:`reset_rows`.

        Both containers are fresh at every level, since transforms and carried policy state edit them; their tensors may
        be views.
        """

    @abstractmethod
    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        """Restart the rows of ``mask`` (``[*B]`` bool; None: all); return the whole root in a fresh container.

        ``options`` is a list, of one dict per row, only where :meth:`require_options` takes them.
        """

    def freeze_rows(self, mask: torch.Tensor) -> None:
        """Let the rows of ``mask``, bool ``[*B]``, wait until :meth:`reset_rows` restarts them; see :meth:`freeze_`."""
        got = "one that steps all rows together"
        raise EnvError(explain(type(self).__name__, expected="an Env whose rows can wait one by one", got=got))

    def require_seeds(self) -> None:  # noqa: B027 - most rows can be seeded
        """Raise an error if resets of this env take no seeds; the default raises none."""

    def require_options(self, options: list[dict]) -> None:
        """Raise an error unless :meth:`reset_rows` takes these options, one dict per row; by default it takes none."""
        expected = "simulators whose resets take options"
        raise EnvError(explain("set_info_, env_info", expected=expected, got=type(self).__name__))

    # ---- what callers use -------------------------------------------------------------------------------------------

    def reset(
        self,
        mask: torch.Tensor | None = None,
        *,
        seed: Seed = None,
        options: dict | None = None,
        root: TensorDictBase | None = None,
    ) -> TensorDict:
        """Restart all rows, or those of ``mask``, and return the root to act on.

        The root holds what the environment writes, and the values that a policy's state starts from where a transform
        names them. State that a policy carries goes on in the other rows if ``root`` is given.

        Args:
            mask: bool ``[*B]`` or ``[*B, 1]``, true where a row restarts; None restarts all.
            seed: one integer, from which each row's seed is derived, or a sequence with one seed per row; None goes on
                with each row's stream.
            options: passed to the simulators' ``reset``; they win over entries of ``env_info``, see :meth:`set_info_`.
            root: the root there was to act on, ``[*B]``. What only it holds is kept on rows that go on; on rows that
                restart it becomes its initial value, or zero.

        Returns:
            The root, ``[*B]``, the caller's own.

        Raises:
            ConfigError: rows would go on with a policy's state that was not given, or ``root`` is a transition.
        """
        initial = self.carried.initial
        if mask is not None:
            mask = row_mask("reset", mask, self.batch_size, self.device)
            if root is None and initial is not None:
                hint = "Write reset(mask, root=root) with the root there was to act on."
                expected = "the root that holds the state of the rows that go on"
                raise ConfigError(explain("reset of some rows", expected=expected, got="none", hint=hint))
        if root is not None and "next" in root.keys():
            hint = "The root follows it: step_and_reset returns both."
            raise ConfigError(explain("reset", expected="a root to act on", got="a transition", hint=hint))
        if mask is None:  # a seed that was set waits for a reset of all rows; one given here replaces it
            seed = self.shared.pending_seed if seed is None else seed
            self.shared.pending_seed = None
        self.shared.num_moves += 1
        rows = self.carried.options
        if rows is not None:
            options = [{**row, **options} for row in rows] if options else rows
        fresh = self.reset_rows(mask, seeds=row_seeds(seed, self.batch_size.numel()), options=options).clone()
        if root is not None:
            restarted = torch.ones(self.batch_size, dtype=torch.bool, device=self.device) if mask is None else mask
            keep_state(fresh, root, restarted, initial)
        elif initial is not None:
            keep_missing(fresh, initial.clone())
        return fresh

    def step(self, tensordict: TensorDictBase) -> TensorDict:
        """Step every row and return the transition as a copy; the caller resets ended rows before the next step.

        Args:
            tensordict: ``[*B]`` with ``action``, and whatever the policy wrote; it stays as it is.
        """
        require_tensordict(type(self).__name__, tensordict)
        self.shared.num_moves += 1
        transition, _, _ = self.advance(tensordict.copy())
        return transition.clone()

    def step_and_reset(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, TensorDict]:
        """Step every row, restart those that ended, and return ``(transition, next_root)``.

        The hot path: both are views that the environment writes again (the root two calls later, ``next`` in the next
        call). Copy what you keep. ``tensordict`` becomes the transition: it gains the entry ``"next"``.
        """
        if type(tensordict) is not TensorDict:
            require_tensordict(type(self).__name__, tensordict)
        self.shared.num_moves += 1
        transition, root, ended = self.advance(tensordict)
        if not ended:
            return transition, root
        outcome = peek(transition, "next")
        fresh = self.reset_rows(peek(outcome, "done").squeeze(-1), seeds=None, options=self.carried.options)
        keep_missing(fresh, root)
        return transition, fresh

    def advance(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, TensorDict, bool]:
        """Step every row and restart none, as the first half of :meth:`step_and_reset`; the results are views.

        Returns:
            The transition, the root in which rows that ended wait for a reset, and whether any ended.
        """
        written = peek(tensordict, "next")
        initial = self.carried.initial
        if initial is not None:
            written = with_unwritten(written, tensordict, initial)
        next_, root, ended = self.step_rows(tensordict)
        if written is not None:
            carry_written(written, next_, root, initial)
        put(tensordict, "next", next_)
        return tensordict, root, ended

    @torch.no_grad()
    def rollout(self, num_steps: int, policy: Callable | None = None, *, stop_when_done: bool = False) -> TensorDict:
        """Reset all rows, act for at most ``num_steps`` steps, restart rows that end, and return the transitions.

        Args:
            num_steps: at most this many steps.
            policy: maps a root to a root with ``action``; None acts at random from ``action_spec``.
            stop_when_done: stop as soon as every row has ended once.

        Returns:
            The transitions, ``[*B, T]``, the caller's own.

        Raises:
            SpecError: the policy does not fit the action spec; it names what does. Or a transition has not the keys,
                shapes, dtypes and devices of the first.
        """
        if not is_count(num_steps):
            raise ConfigError(explain("rollout", expected="num_steps of at least 1", got=num_steps))
        policy = self.act_at_random if policy is None else policy
        root = self.reset()
        steps = []
        has_ended = torch.zeros((*self.batch_size, 1), dtype=torch.bool, device=self.device)
        for step in range(num_steps):
            num_dims = len(self.batch_size)
            acted = policy(root) if step else first_act(policy, root, self.action_spec, num_dims)
            if step == 0:
                require_fit(policy, action_of(acted), acted, self.action_spec, len(self.batch_size))
            transition, root = self.step_and_reset(acted)
            steps.append(transition.clone())
            require_same_layout("rollout", steps[-1], steps[0])
            has_ended |= steps[-1]["next", "done"]
            if stop_when_done and bool(has_ended.all()):
                break
        return torch.stack(steps, dim=len(self.batch_size))

    def set_seed(self, seed: int | Sequence[int | None]) -> None:
        """Seed the random actions at once, and every row at the next :meth:`reset` of all rows.

        Args:
            seed: one integer, from which each row's seed is derived, or a sequence with one seed (or None) per row.

        Raises:
            ConfigError: a seed is no non-negative integer. SpecError: not one per row.
            EnvError: the rows cannot be seeded.
        """
        self.require_seeds()
        if isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, str):
            seed = row_seeds(seed, self.batch_size.numel())  # refuses a bad seed here, not at the reset
            single = join_seeds(seed)
        else:
            child_seeds(seed, 1)
            seed = single = int(seed)
        self.shared.generator.manual_seed(single % 2**64)  # it takes no larger ones
        self.shared.pending_seed = seed

    def freeze_(self, mask: torch.Tensor) -> None:
        """Let rows wait where they are until ``reset(mask)`` restarts them; nothing steps them meanwhile.

        In further steps such a row repeats its last observation with reward 0 and no flags, and its statistics stay;
        one that had ended waits for no reset any more. What a policy and transforms make of it goes on. Rows after
        that are no data: a collector marks them in ``("collector", "mask")``.

        Args:
            mask: bool ``[*B]`` or ``[*B, 1]``, true where a row shall wait; others stay as they are.

        Raises:
            EnvError: rows cannot wait one by one.
            SpecError: the mask does not fit.
        """
        mask = row_mask("freeze_", mask, self.batch_size, self.device)
        self.shared.num_moves += 1
        self.freeze_rows(mask)

    def ignore_(self, mask: torch.Tensor | None) -> None:  # noqa: B027 - without transforms nothing is learned
        """Keep transforms from learning from rows whose steps the caller throws away because they cannot be frozen.

        Args:
            mask: bool ``[*B]``, true on those rows; it replaces the last mask. None, or a reset of all rows, ends it.
        """

    def set_info_(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Set parameters of rows for the policy or the simulators, from a row's next restart on; None leaves the last.

        Both are recorded with the data and carried like a policy's state (see :meth:`Transform.initial_state`): they
        are no observations, and no transform sees them. New values appear on a row when it restarts;
        :meth:`apply_info_` writes those of the policy into a root at once.

        Args:
            agent_info: ``[*B]``; its entries reach the policy as keys of the root, under the names that they have here.
            env_info: ``[*B]``; row k reaches the simulator of row k at each reset as entries of its ``options``: a leaf
                ``[*B]`` as a Python number, others as numpy arrays. Recorded under ``("env_info", key)``.

        Raises:
            SpecError: no TensorDict, another batch size, or another form than before.
            ConfigError: a name that is taken: by an observation, a policy's state, or the environment itself.
            EnvError: ``env_info`` for simulators whose resets take no options, or not one by one.
        """
        given = {"agent_info": agent_info, "env_info": env_info}
        infos = {"agent_info": self.carried.agent_info, "env_info": self.carried.env_info}
        for name, info in given.items():
            if info is not None:
                infos[name] = copy_info(name, info, infos[name], batch_size=self.batch_size, device=self.device)
        carried = CarriedState(self.batch_size, self.carried.primed, **infos)
        carried.require_free_names(self.observation_spec)
        if env_info is not None:
            self.require_options(carried.options)
        self.carried = carried

    def apply_info_(self, root: TensorDictBase) -> None:
        """Write the present ``agent_info`` into a root, on all rows, at once instead of at each row's next restart.

        Args:
            root: ``[*B]``.

        Raises:
            SpecError: the root has another batch size.
        """
        if not isinstance(root, TensorDictBase) or root.batch_size != self.batch_size:
            got = list(root.batch_size) if isinstance(root, TensorDictBase) else type(root).__name__
            expected = f"a root of batch size {list(self.batch_size)}"
            raise SpecError(explain("apply_info_", expected=expected, got=got))
        if self.carried.agent_info is not None:
            put_info_(root, self.carried.agent_info)

    def as_simulator(self) -> EnvSimulator:
        """Present this environment, of batch size ``[]``, as a simulator: one world in numpy.

        So a factory of one can be put into :class:`SerialEnv` and its like. The simulator takes it over.

        Raises:
            EnvError: it is a batch, or seen through transforms.
        """
        if self.batch_size:
            expected = "an environment of batch size [], one row"
            hint = "It is a batch already, and can be used as it is."
            who = f"{type(self).__name__}.as_simulator"
            raise EnvError(explain(who, expected=expected, got=f"one of {list(self.batch_size)}", hint=hint))
        return EnvSimulator(self)

    def render(self) -> torch.Tensor:
        """Return a picture of every row as it stands, uint8 ``[*B, H, W, 3]``.

        Raises:
            EnvError: the environment cannot draw itself.
        """
        raise EnvError(explain(type(self).__name__, expected="an env that can draw its rows", got="no render()"))

    @property
    def learning_wrapper(self) -> str:
        """Class name of a wrapper with which a simulator normalises what it shows; empty if none is found."""
        return ""

    @property
    def transforms(self) -> Sequence[Transform]:
        """The transforms between the simulators and the policy, the nearest to the simulators first."""
        return []

    def learned_state_dict(self) -> Learned:
        """Return a copy of what the transforms have learned, also for an env whose ``state_dict`` cannot be captured.

        Hand it to another environment with the same transforms, of any number of rows:
        ``other.load_learned_state_dict(env.learned_state_dict())``.
        """
        return learned_state(self.transforms)

    def load_learned_state_dict(self, state: Learned, *, for_acting: bool = False) -> None:
        """Overwrite what the transforms have learned with what :meth:`learned_state_dict` returned.

        Args:
            state: what transforms like these have learned.
            for_acting: take only what a policy sees with; what was learned of rewards stays as it is.

        Raises:
            SpecError: other transforms learned it, or its tensors have other names or shapes; nothing is changed.
        """
        load_learned_(self.transforms, state, for_acting=for_acting)

    def state_dict(self) -> dict:
        """Return what :meth:`load_state_dict` needs to continue from here; empty by default, for subclasses to fill."""
        return {}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore what :meth:`state_dict` returned, and return the root to act on; the default raises an error."""
        raise NotImplementedError(f"{type(self).__name__} cannot restore a state.")

    def driven_things(self) -> list:
        """List the objects that a step of this env moves and that others might step, too; see ``take_env``."""
        return [self]

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Release what the environment holds; may be called twice."""

    @property
    def restarts_rows(self) -> bool:
        """Whether single rows can be restarted where they did not end: ``reset(mask)``."""
        return True

    @property
    def seeds_rows(self) -> bool:
        """Whether single rows can be restarted from seeds of their own: ``reset(mask, seed=[...])``."""
        return self.restarts_rows

    @property
    def can_freeze(self) -> bool:
        """Whether rows can wait one by one, see :meth:`freeze_`."""
        return type(self).freeze_rows is not Env.freeze_rows

    @property
    def num_moves(self) -> int:
        """How often the env was reset, stepped, frozen or given a state, through whatever wraps it.

        A collector compares it with its own count, to see whether other code moved the env.
        """
        return self.shared.num_moves

    def act_at_random(self, root: TensorDict) -> TensorDict:
        """Put a random action into a root, ``[*B]``, and return it: legal ones where there is a mask of legal actions.

        The actions follow from :meth:`set_seed`.
        """
        spec = self.action_spec.to("cpu")  # one stream, whatever the device
        if self.action_mask_key is None:
            action = spec.rand(generator=self.shared.generator)
        else:
            action = spec.rand(generator=self.shared.generator, mask=root[self.action_mask_key].cpu())
        put(root, "action", action.to(self.device))
        return root

    def __getattr__(self, name: str) -> object:
        if name in ("batch_size", "device", "observation_spec", "action_spec", "shared", "carried"):
            hint = "Call super().__init__(batch_size=..., observation_spec=..., action_spec=...) in its __init__."
            expected = "an Env that was initialised"
            raise EnvError(explain(type(self).__name__, expected=expected, got=f"one without {name!r}", hint=hint))
        further = getattr(super(), "__getattr__", None)  # an Env may be a module, too
        if further is None:
            hint = f". An Env is a batch: see {OWN_NAMES[name]}." if name in OWN_NAMES else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")
        return further(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={list(self.batch_size)}, action_spec={self.action_spec})"
