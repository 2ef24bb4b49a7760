"""The base class of envs: a batch of worlds, one per row, with TensorDicts. (A simulator is one world in numpy.)"""

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
from torchrl.envs.simulators.base import FRESH
from torchrl.envs.stepping import carry_written, keep_missing, keep_state, require_same_layout, with_unwritten
from torchrl.errors import ConfigError, EnvError, SpecError, explain
from torchrl.keys import Key
from torchrl.misspelling import refuse_misspelt
from torchrl.seeding import child_seeds, join_seeds
from torchrl.shapes import as_size
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
    """Reset and step a batch of worlds, one per row, each in an episode of its own, by TensorDicts.

    A *root* at time t holds the observations, ``is_init`` and running ``episode_return`` and ``episode_length``; the
    policy adds ``action``. A *transition* is a root with ``"next"``: the true successor observations (also at an
    ending), ``reward``, ``terminated``, ``truncated`` and ``done``, the latter four ``[*B, 1]``. The next root has
    every key of ``next`` but reward and flags; on rows that ended it holds the observation after the reset.

    Subclasses write :meth:`step_rows` and :meth:`reset_rows`, and :meth:`freeze_rows`, :meth:`require_seeds` and
    :meth:`require_options` where the default is wrong. Callers use :meth:`reset`, :meth:`step` and
    :meth:`step_and_reset`, which check their arguments, and copy a policy's state (what it wrote under ``next``, such
    as a recurrent state) into the next root. An env around another one calls the latter's five methods above, uses the
    same :attr:`shared` object, and starts from a copy of its :attr:`carried`.

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
            all are. Random actions are drawn among the legal ones.
        step_limit: the steps after which simulators truncate every episode by themselves, the least of all rows;
            infinity where they do not, or cannot tell.
        task: the id of the task of all rows, such as ``"CartPole-v1"``; empty where it is not known.
        shared: an object that this env and all envs around it use: the generator of random actions, the seed for the
            next reset, the count of resets and steps.
        carried: entries of roots beside observations: the initial state of a policy, parameters of each row.
        is_wrapped: whether another env is around this one; only the outermost repeats the observations of frozen rows.
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
        self.batch_size = as_size(f"{type(self).__name__}, batch_size", batch_size)
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
        """Step every row; return ``(next, root, any ended)``. Rows that ended are not reset: :meth:`reset_rows` does.

        ``next`` and ``root`` are new TensorDicts at every level, since callers edit them; their tensors may be views.
        """

    @abstractmethod
    def reset_rows(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: ResetOptions) -> TensorDict:
        """Restart the rows of ``mask`` (``[*B]`` bool; None: all); return the root of all rows, a new TensorDict.

        ``options`` is a list of one dict per row only where :meth:`require_options` accepts that.
        """

    def freeze_rows(self, mask: torch.Tensor) -> None:
        """Stop stepping the rows of ``mask``, bool ``[*B]``, until :meth:`reset_rows` restarts them; by default refuse.

        Callers use :meth:`freeze_`, which checks the mask.

        Raises:
            EnvError: this env cannot freeze single rows.
        """
        got = "one that steps all rows together"
        raise EnvError(explain(type(self).__name__, expected="an Env whose rows can wait one by one", got=got))

    def require_seeds(self) -> None:  # noqa: B027 - most rows can be seeded
        """Raise an error if resets of this env take no seeds; the default raises none."""

    def require_options(self, options: list[dict]) -> None:
        """Raise an error unless :meth:`reset_rows` takes these options, one dict per row; by default it takes none.

        Raises:
            EnvError: it does not take them.
        """
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

        The root holds the environment's entries, and a policy's initial state where a transform defines one. Pass
        ``root`` to keep the policy's state of rows that do not restart.

        Args:
            mask: bool ``[*B]`` or ``[*B, 1]``, true where a row restarts; None restarts all.
            seed: one integer, from which each row's seed is derived, or a sequence with one seed per row; None leaves
                each row's random generator as it is, unless :meth:`set_seed` was called before.
            options: passed to the simulators' ``reset``; they win over entries of ``env_info``, see :meth:`set_info_`.
            root: the last root, ``[*B]``. Its entries that the environment does not write are kept on rows that do not
                restart; on rows that restart they get their initial value, or zero.

        Returns:
            The root, ``[*B]``, which the environment does not write to again.

        Raises:
            ConfigError: rows would continue with a policy's state, but ``root`` was not given; or it is a transition.
            SpecError: the mask has another shape or dtype, or there is not one seed per row.
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
            tensordict: ``[*B]`` with ``action``, and the policy's other entries; it is not changed.

        Raises:
            KeyMissing: there is no ``action``.
            SpecError: the action has another shape or dtype.
            EnvError: a row that ended was not reset.
        """
        require_tensordict(type(self).__name__, tensordict)
        self.shared.num_moves += 1
        transition, _, _ = self.advance(tensordict.copy())
        return transition.clone()

    def step_and_reset(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, TensorDict]:
        """Step every row, restart those that ended, and return ``(transition, next_root)``.

        For speed both are views of memory that the environment writes again (the root two calls later, ``next`` in the
        next call): copy what you keep. ``tensordict`` becomes the transition: it gains the entry ``"next"``.

        Raises:
            KeyMissing: there is no ``action``.
            SpecError: the action has another shape or dtype.
            EnvError: a row that ended in :meth:`step` or :meth:`advance` was not reset.
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
        """Step every row and restart none: the first half of :meth:`step_and_reset`; the results are views.

        The caller restarts or freezes rows that ended. It is not counted in :attr:`num_moves`.

        Returns:
            The transition, the root (with the last observation on rows that ended), and whether any row ended.
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
        """Reset all rows, act for up to ``num_steps`` steps, restarting rows that end; return the transitions.

        Args:
            num_steps: at most this many steps.
            policy: maps a root to a root with ``action``; None acts at random from ``action_spec``.
            stop_when_done: stop as soon as every row has ended once.

        Returns:
            A copy of the transitions, ``[*B, T]``.

        Raises:
            SpecError: the policy does not fit the action spec; or a transition differs from the first in its keys,
                shapes, dtypes or devices.
            ConfigError: ``num_steps`` is below 1, or the policy cannot be called with a TensorDict.
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
        """Seed the generator of random actions now, and every row at the next :meth:`reset` of all rows.

        Args:
            seed: one integer, from which each row's seed is derived, or a sequence with one seed (or None) per row.

        Raises:
            ConfigError: a seed is no non-negative integer.
            SpecError: not one per row.
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
        """Freeze rows: later steps do not step them, until ``reset(mask)`` restarts them.

        In later steps a frozen row repeats its last observation with reward 0 and no flags, and its ``episode_return``
        and ``episode_length`` stay. A row that had ended need not be reset before the next step. The policy still acts
        on frozen rows. Their transitions are no data: a collector masks them in ``("collector", "mask")``.

        Args:
            mask: bool ``[*B]`` or ``[*B, 1]``, true on rows to freeze; other rows do not change.

        Raises:
            EnvError: this env cannot freeze single rows.
            SpecError: the mask does not fit.
        """
        mask = row_mask("freeze_", mask, self.batch_size, self.device)
        self.shared.num_moves += 1
        self.freeze_rows(mask)

    def ignore_(self, mask: torch.Tensor | None) -> None:  # noqa: B027 - without transforms nothing is learned
        """Let transforms learn nothing from some rows, whose steps the caller drops because it cannot freeze them.

        Args:
            mask: bool ``[*B]``, true on those rows; it replaces the last mask. None, or a reset of all rows, clears it.
        """

    def set_info_(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Set each row's parameters for the policy or the simulators, from its next restart on; None changes nothing.

        Both become entries of roots and transitions, like a policy's state (see :meth:`Transform.initial_state`): they
        are no observations, and no transform sees them. New values appear on a row when it restarts;
        :meth:`apply_info_` writes ``agent_info`` into a root at once.

        Args:
            agent_info: ``[*B]``; its entries become entries of the root under the same keys, where the policy reads it.
            env_info: ``[*B]``; the simulator of row k gets row k of it at each reset as ``options``: a leaf ``[*B]`` as
                a Python number, others as numpy arrays. Recorded under ``("env_info", key)``.

        Raises:
            SpecError: no TensorDict, another batch size, or other keys, shapes or dtypes than before.
            ConfigError: a name that an observation, a policy's state or the environment itself uses.
            EnvError: ``env_info`` for simulators whose resets take no options, or only the same for all rows.
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
        """Write the ``agent_info`` set last into a root, on all rows, now instead of at each row's next restart.

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
        """Return a simulator (one world in numpy) that wraps this environment, whose batch size must be ``[]``.

        So an env that is built one at a time can be a row of :class:`SerialEnv`. Only the simulator may use it then.

        Raises:
            EnvError: the environment is a batch, has transforms around it, or something else steps it.
        """
        if self.batch_size:
            expected = "an environment of batch size [], one row"
            hint = "It is a batch already, and can be used as it is."
            who = f"{type(self).__name__}.as_simulator"
            raise EnvError(explain(who, expected=expected, got=f"one of {list(self.batch_size)}", hint=hint))
        return EnvSimulator(self)

    def render(self) -> torch.Tensor:
        """Return a picture of every row's present state, uint8 ``[*B, H, W, 3]``.

        Raises:
            EnvError: the environment cannot draw itself.
        """
        raise EnvError(explain(type(self).__name__, expected="an env that can draw its rows", got="no render()"))

    @property
    def learning_wrapper(self) -> str:
        """Class name of a simulator's wrapper that normalises by running statistics and still updates them.

        Empty without one, and where wrappers cannot be seen, as here by default. An :class:`~torchrl.agents.Evaluator`
        refuses such an env: evaluation and training would see different numbers.
        """
        return ""

    @property
    def transforms(self) -> Sequence[Transform]:
        """The transforms between the simulators and the policy, the nearest to the simulators first."""
        return []

    def learned_state_dict(self) -> Learned:
        """Return copies of the tensors that the transforms have learned, such as running statistics.

        Load them into another environment with the same transforms, of any number of rows:
        ``other.load_learned_state_dict(env.learned_state_dict())``.
        """
        return learned_state(self.transforms)

    def load_learned_state_dict(self, state: Learned, *, for_acting: bool = False) -> None:
        """Overwrite the tensors that the transforms have learned with those that :meth:`learned_state_dict` returned.

        Args:
            state: from an environment with the same transforms.
            for_acting: load only what changes observations or actions, not what was learned of rewards.

        Raises:
            SpecError: the state is of other transforms, or its tensors have other names or shapes; nothing is changed.
        """
        load_learned_(self.transforms, state, for_acting=for_acting)

    def state_dict(self) -> dict:
        """Return the state that :meth:`load_state_dict` needs to continue from here.

        Raises:
            EnvError: this env has none to save, which is the default; a resumed run then begins new episodes.
        """
        raise EnvError(explain(type(self).__name__, expected="a state to save", got="an env without one", hint=FRESH))

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore what :meth:`state_dict` returned, and return the root to act on.

        Raises:
            EnvError: this env cannot restore a state, which is the default.
        """
        raise EnvError(explain(type(self).__name__, expected="a state to load", got="an env without one", hint=FRESH))

    def driven_things(self) -> list:
        """List what counts as *driven* when this env is stepped: the env, and what it steps that others could step too.

        :func:`~torchrl.envs.driving.take_env` reserves each of them for one driver, a collector or an evaluator, so
        that no two step the same world. By default the env alone.
        """
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
        """Whether :meth:`freeze_` can freeze single rows."""
        return type(self).freeze_rows is not Env.freeze_rows

    @property
    def num_moves(self) -> int:
        """How often the env was reset, stepped, frozen or given a state, directly or through an env around it.

        A collector compares it with its own count, to see whether other code has used the env.
        """
        return self.shared.num_moves

    def act_at_random(self, root: TensorDict) -> TensorDict:
        """Write random actions into a root, ``[*B]``, legal ones if the env has an action mask; return the root.

        The actions are drawn from the generator that :meth:`set_seed` seeds.
        """
        spec = self.action_spec if self.device.type == "cpu" else self.action_spec.to("cpu")  # one stream on any device
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
