"""Replay with gradient: run a policy again over the steps of a collected batch. Nothing is sampled, nothing stepped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.data.batch_functions import ENDED, require_batch
from torchrl.data.trajectories import MASK, STARTS, TRAJ_IDS
from torchrl.devices import device_of
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain, nearest
from torchrl.keys import Key, as_key, as_path, key_list
from torchrl.modules.actor_critic import ActorCriticWrapper, ActorValueOperator
from torchrl.modules.exploration import ExplorationType, set_exploration_type
from torchrl.modules.memory import Memory, Stateful
from torchrl.modules.operator import read, require_keys, write
from torchrl.modules.sequence import Sequence
from torchrl.modules.wrapper import PolicyWrapper
from torchrl.shapes import expand_right

WHO = "replay_policy"
Path = tuple[str, ...]
Step = Callable[[TensorDict, int], TensorDictBase]


def replay_policy(
    policy: TensorDictModuleBase,
    batch: TensorDictBase,
    *,
    step: Step | None = None,
    out_keys: Iterable[Key] | None = None,
    at_once: bool | None = None,
) -> TensorDict:
    """Run a policy again over a collected batch, with gradient, and return what it wrote at each step.

    >>> replayed = replay_policy(actor, batch)
    >>> torch.allclose(replayed["action_log_prob"], batch["action_log_prob"]), replayed["action_entropy"].requires_grad
    (True, True)

    **Actions are not drawn anew.** A module with ``build``, such as a :class:`ProbabilisticActor`, is asked for its
    distribution: its log-prob of the action *in the batch* goes under its ``log_prob_key`` and the entropy, in nats,
    under ``"action_entropy"`` (the action key with ``_entropy``; left out where the family has no formula), ``[*B, T]``
    each. The action stays the stored one for the modules after it; the parameters of its distribution are not written.
    Every other module is called, under the deterministic exploration type. Wrappers that explore are left out.

    **State.** What the policy reads and also writes under ``"next"``, such as ``"memory"`` and ``("next", "memory")``,
    is its state. At step 0 it is the batch's; at a later step it is what the policy has just written at the step
    before, so that gradients reach back through time; where ``is_init`` is true it is the batch's again, that of a
    fresh episode, and no gradient passes. Other states in the batch are ignored.

    **Padding.** Steps where ``("collector", "mask")`` is false are zero in the result; the policy never sees them.

    The training mode of layers is left as it is; nothing is written into the batch.

    Args:
        policy: reads and writes entries of a TensorDict. With a state and a ``build`` it is a :class:`Sequence`: the
            modules that write the state, then the actor. Further modules in it (a critic) are replayed, too.
        batch: ``[*B, T]``, as collectors give it: consecutive steps of each row.
        step: called after the policy with the transition and its time t, returns a TensorDict ``[K]`` of entries to
            add, for example ``lambda transition, t: critic(transition)``. The transition, ``[K]``, is the stored one of
            the K rows that are valid at t (``*B`` in one dimension), with the replayed state and what the policy wrote.
        out_keys: which entries to return; also entries of the transition, such as the state that was read. None returns
            what policy and ``step`` wrote.
        at_once: call the policy once instead of step by step. None does so where there is neither a state nor a
            ``step``. True, for a policy with a state, needs one that has a form for sequences: it is called on
            ``[*B, T]`` and looks at ``is_init`` and the state of step 0 by itself; padding has the entries of the last
            valid step.

    Returns:
        ``[*B, T]``, with gradient.

    Raises:
        SpecError: no batch with rows and time, no valid step, or steps of a row that do not follow each other.
        KeyMissing: the batch lacks the state, ``is_init``, an action or an input, or nothing wrote an entry of
            ``out_keys``.
        ConfigError: ``policy`` has no keys or an actor inside that cannot be asked, does not write its state, ``step``
            returns no TensorDict, or ``at_once`` with a ``step``.
    """
    require_keys(WHO, policy=policy)
    actors, states = [part for part in _called(policy) if hasattr(part, "build")], state_paths(policy)
    if at_once and step is not None:
        hint = "Leave at_once out: the steps are gone through one by one."
        raise ConfigError(explain(WHO, expected="at_once without a step", got="both", hint=hint))
    series, mask = _series_of(batch)
    if states:
        _require_states(policy, series, states)
        _require_order(series, mask)
    decided = [key for actor in actors for key in (actor.action_key, *getattr(actor, "decision_keys", ()))]
    chosen = {as_path(key) for key in decided}
    stale = [as_key(path) for path in map(as_path, policy.out_keys) if path not in chosen]
    series = series.exclude(*stale)  # what is read of these was written now
    replay = _Replay(policy, states, step, None if out_keys is None else key_list(f"{WHO}(out_keys=...)", out_keys))
    if at_once is None:
        at_once = not states and step is None
    if not at_once:
        written = _step_by_step(replay, series, mask)
    else:
        written = _as_sequences(replay, series, mask, batch.batch_size) if states else _all_steps(replay, series, mask)
    entries = {path: value.unflatten(0, batch.batch_size[:-1]) for path, value in written.items()}
    result = TensorDict({}, batch.batch_size, device=batch.device)
    for path, value in entries.items():
        result.set(path, value)
    return result


def state_paths(policy: TensorDictModuleBase) -> list[Path]:
    """List the keys, as paths, that a policy reads and also writes under ``"next"``: those of its state.

    What only a wrapper reads and writes, such as the noise of an :class:`OrnsteinUhlenbeck`, is left out.

    >>> cell = Operator(nn.GRUCell(4, 16), in_keys=["observation", "memory"], out_keys=[("next", "memory")])
    >>> state_paths(cell)
    [('memory',)]
    """
    called = {as_path(key) for module in _called(policy) for key in module.out_keys}  # not the noise of a wrapper
    written = called & set(map(as_path, policy.out_keys))
    return [path for path in map(as_path, policy.in_keys) if ("next", *path) in written]


class _Replay:
    """Call the policy, and the user's ``step`` if there is one, on transitions, and return the entries they wrote."""

    def __init__(
        self, policy: TensorDictModuleBase, states: list[Path], step: Step | None, out_keys: list[Key] | None
    ) -> None:
        self.policy = policy
        self.states = states
        self.out_keys = out_keys
        self._step = step

    def __call__(self, transition: TensorDict, time: int = 0) -> dict[Path, Tensor]:
        """Let policy and ``step`` write into ``transition``; return the entries ``out_keys``, or all that are new."""
        before = _leaves_of(transition)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            rated = _ask(self.policy, transition)
        for key, value in rated.items():
            write(transition, key, value)
        if self._step is not None:
            for path, value in self._added(transition, time).items():
                transition.set(path, value)
        if self.out_keys is not None:
            return {as_path(key): self._wanted(transition, key) for key in self.out_keys}
        return _difference(transition, before)

    def state_after(self, transition: TensorDict) -> dict[Path, Tensor]:
        """Return the leaves of the state that the policy wrote under ``"next"``, by the keys that it reads."""
        state = TensorDict({}, transition.batch_size)
        for path in self.states:
            value = transition.get(("next", *path), None)
            if value is None:
                expected, got = f"a policy whose modules write {('next', *path)}", type(self.policy).__name__
                hint = "Write it as Sequence(cell, actor): `build` of one module alone writes no state."
                raise ConfigError(explain(WHO, expected=expected, got=got, hint=hint))
            state.set(path, value)
        return _leaves_of(state)

    def _added(self, transition: TensorDict, time: int) -> dict[Path, Tensor]:
        before = _leaves_of(transition)
        added = self._step(transition, time)
        if not isinstance(added, TensorDictBase) or added.batch_size[:1] != transition.batch_size:
            got = list(added.batch_size) if isinstance(added, TensorDictBase) else type(added).__name__
            expected = f"a TensorDict {list(transition.batch_size)} from step"
            hint = 'Write TensorDict({"name": tensor}, transition.batch_size), or return what a module returns.'
            raise ConfigError(explain(WHO, expected=expected, got=got, hint=hint))
        return _difference(added, before)

    def _wanted(self, transition: TensorDict, key: Key) -> Tensor:
        value = transition.get(key, None)
        if not isinstance(value, Tensor):
            there = {str(as_key(path)): path for path in _leaves_of(transition)}
            close = nearest(str(key), there)
            hint = f"Did you mean {close}?" if close else ""
            expected = f"an entry {key!r} for out_keys, a tensor"
            raise KeyMissing(explain(WHO, expected=expected, got=sorted(there), hint=hint))
        return value


def _step_by_step(replay: _Replay, series: TensorDict, mask: Tensor) -> dict[Path, Tensor]:
    """Call the policy on the valid rows of each step of ``[N, T]`` in turn; return the entries, 0 in other rows."""
    num_rows = len(series)
    starts = _starts_of(series, mask) if replay.states else torch.zeros_like(mask)
    whole, some, fresh = (x.tolist() for x in (mask.all(0), mask.any(0), starts.any(0)))
    carried: dict[Path, Tensor] = {}
    results: list[dict[Path, Tensor] | None] = []
    for time, transition in enumerate(series.unbind(1)):
        if not some[time]:
            results.append(None)
            continue
        rows = None if whole[time] else mask[:, time].nonzero().squeeze(-1)
        transition = transition if rows is None else transition[rows]
        for path, all_rows in carried.items():
            state = all_rows if rows is None else all_rows[rows]
            if fresh[time]:
                first = starts[:, time] if rows is None else starts[rows, time]
                state = torch.where(expand_right(first, state), transition.get(path), state)
            transition.set(path, state)
        written = replay(transition, time)
        after = replay.state_after(transition)
        carried = {path: _spread(new, rows, carried.get(path), num_rows) for path, new in after.items()}
        results.append({path: _spread(value, rows, None, num_rows) for path, value in written.items()})
    return _stack(results)


def _all_steps(replay: _Replay, series: TensorDict, mask: Tensor) -> dict[Path, Tensor]:
    """Call the policy once on all valid steps of ``[N, T]``, flattened; return its entries, ``[N, T, ...]``."""
    flat = series.reshape(-1)
    rows = None if bool(mask.all()) else mask.flatten().nonzero().squeeze(-1)
    written = replay(flat if rows is None else flat[rows])
    return {path: _spread(value, rows, None, len(flat)).unflatten(0, mask.shape) for path, value in written.items()}


def _as_sequences(replay: _Replay, series: TensorDict, mask: Tensor, batch_size: torch.Size) -> dict[Path, Tensor]:
    """Call the policy once on the batch in its own shape; padding is filled with a valid step's entries, never seen."""
    due = max((part.batch_dims + 1 for part in replay.policy.modules() if isinstance(part, Memory)), default=0)
    if due > len(batch_size):  # they would take it for steps, each with the stored state, and no gradient through time
        hint = "Leave at_once out, or write batch.unsqueeze(0)."
        expected = f"a batch of {due} dimensions, time last, for a module with batch_dims={due - 1}"
        raise SpecError(explain(f"{WHO}, at_once", expected=expected, got=list(batch_size), hint=hint))
    filled = series
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        expected, hint = "a mask that is true on the first steps of each row alone", "Leave at_once out."
        raise SpecError(explain(f"{WHO}, at_once", expected=expected, got="valid steps behind others", hint=hint))
    if not bool(mask.all()):
        times = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        last_valid = times.where(mask, torch.zeros_like(times)).cummax(-1).values
        has_steps = mask.any(-1)
        rows = torch.arange(len(mask), device=mask.device)
        rows = torch.where(has_steps, rows, has_steps.int().argmax())  # a row without a step has another's
        filled = series[rows.unsqueeze(-1), last_valid[rows]]
    result = {}
    for path, value in replay(filled.reshape(batch_size)).items():
        if value.shape[: len(batch_size)] != batch_size:
            expected = f"{as_key(path)!r} of shape {[*batch_size, '...']} from a policy that takes sequences"
            raise SpecError(explain(WHO, expected=expected, got=list(value.shape), hint="Leave at_once out."))
        value = value.reshape(*mask.shape, *value.shape[len(batch_size) :])
        result[path] = torch.where(expand_right(mask, value), value, torch.zeros_like(value))
    return result


def _ask(module: nn.Module, transition: TensorDict) -> dict[Key, Tensor]:
    """Call a module, part by part, on a transition; an actor in it draws nothing: write and return :func:`_rate`."""
    parts = _parts_of(module)
    if parts is None and not hasattr(module, "build"):
        module(transition)
        return {}
    if parts is None:
        rated = _rate(module, transition)
        for key, value in rated.items():
            write(transition, key, value)
        return rated
    inner = transition if getattr(module, "keeps_all", True) else transition.copy()
    rated = {}
    for part in parts:
        rated |= _ask(part, inner)
    if inner is not transition:
        for key in module.out_keys:
            value = inner.get(key, None)
            if value is not None:
                write(transition, key, value)
    return rated


def _rate(actor: nn.Module, transition: TensorDict) -> dict[Key, Tensor]:
    """Return what an actor says of the stored action, by the keys to write: log-prob, entropy, its state after it.

    The entropy is left out where there is no formula.
    """
    (action,) = read(transition, [actor.action_key], f"{WHO}, for the action that was taken")
    distribution = actor.build(transition)
    *folders, name = as_path(actor.action_key)
    log_prob_key = getattr(actor, "log_prob_key", None) or as_key((*folders, f"{name}_log_prob"))
    rated = {log_prob_key: distribution.log_prob(action)}
    with contextlib.suppress(ConfigError):  # the family has no formula
        rated[as_key((*folders, f"{name}_entropy"))] = distribution.entropy()
    if hasattr(actor, "state_after"):
        rated |= actor.state_after(transition)
    return rated


def _parts_of(module: nn.Module) -> tuple[nn.Module, ...] | None:
    """Return the modules that a sequence or wrapper of this library calls, in order; None for any other module."""
    if isinstance(module, Sequence):
        return tuple(module)
    if isinstance(module, PolicyWrapper):
        return (module.module,)
    if isinstance(module, (ActorCriticWrapper, ActorValueOperator)):
        return (module.actor, module.critic)
    return None


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that :func:`_ask` calls or asks; refuse one with an actor inside."""
    parts = _parts_of(module)
    if parts is not None:
        for part in parts:
            yield from _called(part)
    elif hasattr(module, "build") or not any(hasattr(part, "build") for part in module.modules()):
        yield module
    else:
        hint = "Give it the method `build` of its actor, or write it as a Sequence of its modules."
        expected = "modules with `build`, in a Sequence"
        got = f"an actor inside of a {type(module).__name__}, which would draw an action"
        raise ConfigError(explain(WHO, expected=expected, got=got, hint=hint))


def _series_of(batch: TensorDictBase) -> tuple[TensorDict, Tensor]:
    """Return the batch as ``[N, T]`` and its mask, bool ``[N, T]``, all true where it has none."""
    require_batch(WHO, batch)
    if batch.batch_dims < 2:
        hint = "batch.unsqueeze(0) is one row; split_trajectories(batch) makes rows of episodes that lie end to end."
        raise SpecError(explain(WHO, expected="a batch [*B, T]", got=list(batch.batch_size), hint=hint))
    mask = batch.get(MASK, None)
    if mask is None:
        mask = torch.ones(batch.batch_size, dtype=torch.bool, device=device_of(batch))
    if not bool(mask.any()):
        got = f"{list(batch.batch_size)}, with {MASK} false everywhere" if mask.numel() else list(batch.batch_size)
        raise SpecError(explain(WHO, expected="at least one valid step", got=got))
    num_steps = batch.batch_size[-1]
    return batch.reshape(-1, num_steps), mask.reshape(-1, num_steps)


def _require_states(policy: nn.Module, series: TensorDict, states: list[Path]) -> None:
    """Refuse a batch that does not hold the state that the policy began with."""
    for path in states:
        if series.get(path, None) is None:
            key = as_key(path)
            is_known = isinstance(policy, Stateful) and policy.initial_state().get(path, None) is not None
            state = "policy.initial_state()" if is_known else f"{{{key!r}: spec_of_one_row}}"
            line = f"TransformedEnv(env, TensorDictPrimer({state}))"
            expected = f"the policy's state {key!r} in the batch"
            got = sorted(str(as_key(path)) for path in _leaves_of(series))
            hint = f"Collect from {line}, and do not leave {key!r} out of the batch."
            raise KeyMissing(explain(WHO, expected=expected, got=got, hint=hint))


def _require_order(series: TensorDict, mask: Tensor) -> None:
    """Refuse steps of a row that do not follow each other although the later one begins no episode."""
    (starts,) = read(series, [STARTS], f"{WHO}, to know where episodes begin")
    joined = mask[:, 1:] & mask[:, :-1] & ~starts.squeeze(-1)[:, 1:]
    ids, ended = series.get(TRAJ_IDS, None), series.get(ENDED, None)
    length, reached = series.get("episode_length", None), series.get(("next", "episode_length"), None)
    wrong = {}
    if ids is not None:
        wrong[f"other {TRAJ_IDS}"] = ids[:, 1:] != ids[:, :-1]
    if ended is not None:
        wrong["an ended episode"] = ended.squeeze(-1)[:, :-1]
    if length is not None and reached is not None:
        wrong["another episode_length"] = (length[:, 1:] != reached[:, :-1]).squeeze(-1)
    for what, where in wrong.items():
        places = (joined & where).nonzero()
        if len(places):
            row, time = places[0].tolist()
            expected = "a batch whose steps follow each other in each row, as they were collected"
            got = f"{what} before step {time + 1} of row {row}, where `is_init` is false"
            hint = "Join fragments along time in their order; take rows whole from a shuffled or sampled batch."
            raise SpecError(explain(WHO, expected=expected, got=got, hint=hint))


def _starts_of(series: TensorDict, mask: Tensor) -> Tensor:
    """Tell where the state is taken from the batch: a row's first valid step, and the first of each episode."""
    seen = mask.cumsum(-1) > 1  # another valid step came before
    return mask & (series.get(STARTS).squeeze(-1) | ~seen)


def _leaves_of(tensordict: TensorDictBase) -> dict[Path, Tensor]:
    return {as_path(key): value for key, value in tensordict.items(include_nested=True, leaves_only=True)}


def _difference(tensordict: TensorDictBase, before: dict[Path, Tensor]) -> dict[Path, Tensor]:
    """Return the leaves that are not the same tensor objects as in ``before``, or not in it."""
    return {path: value for path, value in _leaves_of(tensordict).items() if before.get(path) is not value}


def _spread(value: Tensor, rows: Tensor | None, others: Tensor | None, num_rows: int) -> Tensor:
    """Return ``[N, ...]`` with ``value`` at the indices ``rows`` and ``others``, or 0, elsewhere."""
    if rows is None:
        return value
    others = value.new_zeros((num_rows, *value.shape[1:])) if others is None else others
    return others.index_copy(0, rows, value)


def _stack(results: list[dict[Path, Tensor] | None]) -> dict[Path, Tensor]:
    """Stack the entries of all steps along time, ``[N, T, ...]``, zero where a step has none."""
    first = next(result for result in results if result is not None)
    zeros = {path: torch.zeros_like(value) for path, value in first.items()}
    for time, result in enumerate(results):
        if result is not None and result.keys() != first.keys():
            expected = f"the entries {[as_key(path) for path in first]} at every step"
            got = f"{[as_key(path) for path in result]} at step {time}"
            raise ConfigError(explain(WHO, expected=expected, got=got))
    return {path: torch.stack([(result or zeros)[path] for result in results], 1) for path in first}
