"""Options: a policy of two levels. A chooser picks an option, which acts until it ends. No learning rule, no env.

Sutton, Precup and Singh, "Between MDPs and semi-MDPs" (1999), in the call-and-return form. What a step decides is the
pair of option and action, given what is seen and the option that runs. So a policy gradient needs nothing but the
log-probability of the pair, and every loss of a policy trains chooser, endings and options at once::

    root[option, running] ──> goes on, or ends and another is chosen ──> root[option, index] ──> root[action]
                                                                └──> root[next, option, running]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.counts import is_count
from torchrl.data.specs import TensorSpec
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.keys import Key, as_path, key_list
from torchrl.misspelling import Extensible
from torchrl.modules.actors import CHOICES
from torchrl.modules.distributions import Categorical, CompositeDistribution, Distribution
from torchrl.modules.exploration import exploration_type
from torchrl.modules.memory import PRIMER_LINE, Stateful
from torchrl.modules.operator import Operator, accept_tensors, read, write
from torchrl.unchecked import new_tensordict


class PerOption(nn.Module):
    """Compute what a network says of each of several options, and return what it says of the one that is asked about.

    >>> PerOption(MLP(4, 3 * 2), 3)(torch.zeros(5, 4), torch.tensor([0, 2, 1, 0, 0])).shape
    torch.Size([5, 2])

    For the actor and the critic of :class:`Options`: gradient reaches the outputs of that option alone, and the layers
    below, which the options share.

    Args:
        network: inputs to a tensor ``[*B, n · K]``, or to a tuple of such tensors: the K numbers of the first option,
            then those of the second, ...
        num_options: n; of a critic one more, for the state in which no option runs.

    Raises:
        ConfigError: ``num_options`` is no number of options. From a call, SpecError: the network's outputs cannot be
            shared out among them.
    """

    def __init__(self, network: nn.Module, num_options: int) -> None:
        super().__init__()
        _require_number("PerOption", num_options)
        self.network = network
        self.num_options = num_options

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return ``[*B, K]``, or a tuple of these.

        Args:
            *inputs: those of the network, and last the option, int64 ``[*B]``.
        """
        *seen, index = inputs
        results = self.network(*seen)
        if isinstance(results, Tensor):
            return self._pick(results, index)
        return tuple(self._pick(result, index) for result in results)

    def _pick(self, results: Tensor, index: Tensor) -> Tensor:
        if results.shape[-1] % self.num_options:
            expected = f"a network whose number of outputs is a multiple of the {self.num_options} options"
            raise SpecError(explain("PerOption", expected=expected, got=results.shape[-1]))
        groups = results.unflatten(-1, (self.num_options, -1))
        place = index.unsqueeze(-1).unsqueeze(-1).expand(*index.shape, 1, groups.shape[-1])
        return groups.gather(-2, place).squeeze(-2)


class OptionAndAction(CompositeDistribution):
    """Distribution of an option and, given the option that was chosen, of the action; :meth:`Options.build` makes it.

    >>> from torchrl.modules import Categorical
    >>> pair = OptionAndAction(Categorical(torch.zeros(1, 4)), torch.tensor([3]), Categorical(torch.zeros(1, 2)))
    >>> pair.log_prob(torch.tensor([1])).exp()  # 1/4 · 1/2
    tensor([0.1250])

    ``log_prob(action)`` is that of the pair. ``entropy`` is that of the choice and that of the action given the chosen
    option: over choices, the mean of the pair's entropy (the chain rule), with the gradient of these two terms. A
    sample is a TensorDict of both parts, the action again given the chosen option.

    Args:
        choice: of the option, ``[*B]``.
        index: the option that was chosen, int64 ``[*B]``.
        action: of the action, given that option, ``[*B]``.
    """

    takes_mask = False
    __slots__ = ("index",)

    def __init__(self, choice: Categorical, index: Tensor, action: Distribution) -> None:
        self.batch_size = index.shape
        self.parts = {"option": choice, "action": action}
        self.index = index

    def log_prob(self, action: Tensor | TensorDictBase) -> Tensor:
        """Return the log-probability of the chosen option and ``action`` together, ``[*B]``."""
        return self.parts["option"].log_prob(self.index) + self.parts["action"].log_prob(action)


class Options(Stateful, Extensible, TensorDictModuleBase):
    """Choose an option where none runs or the one that runs ends, and let it act: a hierarchical policy.

    >>> from torchrl.modules import Categorical, ProbabilisticActor
    >>> names = ["observation", ("option", "index")]
    >>> worker = ProbabilisticActor(PerOption(MLP(4, 3 * 2), 3), Categorical, in_keys=names)
    >>> policy = Options(3, MLP(4, 3), worker, termination=MLP(4, 3), every=10)
    >>> policy.initial_state()["option"].to_dict()  # 3: none of the options 0, 1 and 2 runs
    {'running': tensor(3), 'age': tensor(0)}

    Bacon, Harb and Precup, "The Option-Critic Architecture" (2017), https://arxiv.org/abs/1609.05140: the option o that
    runs ends with probability β_o(s), and then π_Ω(· | s) chooses the next, perhaps the same again. Both are one draw::

        p(o' | s, o) = (1 - β_o(s)) 1[o' = o] + β_o(s) π_Ω(o' | s)

    and p(o' | s) = π_Ω(o' | s) where none runs: where an episode begins, and after ``every`` steps of an option. With
    the option that runs as part of the state, the pair of option and action is a decision like any other (Zhang and
    Whiteson, "DAC: The Double Actor-Critic Architecture for Learning Options", 2019, https://arxiv.org/abs/1904.12691),
    of log-probability log p(o' | s, o) + log π_o'(a | s). A loss asks :meth:`build` for it, of the stored option and
    action; the critic is V(s, o), which reads ``("option", "running")``.

    The state, int64 ``[*B]``: ``("option", "running")``, n where none runs, and ``("option", "age")``, the steps that
    it has run. The environment carries it with ``TensorDictPrimer(policy.initial_state())``. Also written, ``[*B]``:
    ``("option", "index")``, the option that acts; its ``"log_prob"`` under p; ``"begins"``, whether it is another one
    than before, or chosen where none ran; ``"termination"``, β, 1 where none ran. And ``"logits"`` of π_Ω, ``[*B, n]``,
    and what the worker writes, with the log-probability of the pair in the place of the action's own.

    Under an exploration type without chance the most probable option of p is taken, and the worker does what it does.

    Args:
        num_options: n.
        chooser: inputs to the logits of π_Ω, ``[*B, n]``.
        worker: the policies of all options: a :class:`ProbabilisticActor` that reads ``("option", "index")``, for
            example by a :class:`PerOption`; it has the mask of legal actions, if there is one.
        termination: inputs to the logits of β of every option, ``[*B, n]``; None: options end by ``every`` alone.
        every: steps after which an option ends in any case; None for no limit. With neither, an option lasts an
            episode.
        in_keys: entries that ``chooser`` and ``termination`` are called with.
        state_key: the folder of all these entries.
        generator: source of the choices; None uses torch's global one.

    Raises:
        ConfigError: a number that cannot be, or a worker that has no distribution or reads no option.
        KeyMissing: from a call, there is no state. SpecError: from a call, another number of logits.
    """

    def __init__(
        self,
        num_options: int,
        chooser: nn.Module,
        worker: TensorDictModuleBase,
        *,
        termination: nn.Module | None = None,
        every: int | None = None,
        in_keys: Iterable[Key] = ("observation",),
        state_key: Key = "option",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_number("Options", num_options)
        if not (every is None or is_count(every)):
            raise ConfigError(explain("Options(every=...)", expected="at least 1 step, or None", got=every))
        folder = as_path(state_key)
        self.index_key, self.running_key, self.age_key = ((*folder, name) for name in ("index", "running", "age"))
        self._log_prob, self._begins, self._ending, self._logits = (
            (*folder, name) for name in ("log_prob", "begins", "termination", "logits")
        )
        if not hasattr(worker, "build") or self.index_key not in worker.in_keys:
            expected = f"a worker with a distribution that reads {self.index_key}"
            hint = "Write ProbabilisticActor(PerOption(network, num_options), family, "
            hint += f"in_keys=['observation', {self.index_key}])."
            got = f"a {type(worker).__name__} that reads {getattr(worker, 'in_keys', 'nothing')}"
            raise ConfigError(explain("Options", expected=expected, got=got, hint=hint))
        keys = key_list("Options(in_keys=...)", in_keys)
        self.chooser = Operator(chooser, in_keys=keys, out_keys=[self._logits])
        self.termination = None
        if termination is not None:
            self.termination = Operator(termination, in_keys=keys, out_keys=[self._ending])
        self.worker = worker
        self.num_options = num_options
        self.every = every
        self.state_key = state_key
        self.generator = generator
        self.choice_family: Callable[[Tensor], Categorical] = Categorical
        self.in_keys = list(dict.fromkeys([*keys, self.running_key, self.age_key, *worker.in_keys]))
        self.in_keys.remove(self.index_key)
        mine = [self.index_key, self._log_prob, self._begins, self._ending, self._logits]
        state = [("next", *self.running_key), ("next", *self.age_key)]
        self.out_keys = [*mine, *worker.out_keys, *state]

    @property
    def action_key(self) -> Key:
        """Where the worker writes the action."""
        return self.worker.action_key

    @property
    def log_prob_key(self) -> Key | None:
        """Where the log-probability of option and action together is written."""
        return self.worker.log_prob_key

    @property
    def decision_keys(self) -> list[Key]:
        """What was decided beside the action, and :meth:`build` reads of a stored step: the option."""
        return [self.index_key]

    def own_state(self) -> dict[Key, Tensor]:
        """Return the state that one row starts an episode from: no option runs, and its age is 0."""
        device = next((x.device for x in self.parameters()), None)
        state = no_option(self.num_options, state_key=self.state_key)
        return {key: state.get(key).to(device) for key in (self.running_key, self.age_key)}

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        running, _ = self._state(tensordict)
        logits = self._of_options(self.chooser, tensordict)
        choice, ending = self._choice(tensordict, logits, running)
        if exploration_type() in CHOICES:
            index = choice.mode
            log_prob = choice.log_prob(index)
        else:
            index, log_prob = choice.sample_and_log_prob(self.generator)
        begins = index != running  # n where none runs
        written = (index, log_prob, begins, ending, logits)
        for key, value in zip(self.out_keys, written, strict=False):
            write(tensordict, key, value)
        self.worker(tensordict)
        if self.log_prob_key is not None:
            write(tensordict, self.log_prob_key, log_prob + tensordict.get(self.log_prob_key))
        for key, value in self.state_after(tensordict).items():
            write(tensordict, key, value)
        return tensordict

    def build(self, tensordict: TensorDictBase) -> OptionAndAction:
        """Return the distribution of option and action, with gradient, given the option that ``tensordict`` holds.

        Raises:
            KeyMissing: the option that was chosen is not there: a root that nobody has acted on has none.
        """
        running, _ = self._state(tensordict)
        (index,) = read(tensordict, [self.index_key], "Options.build, for the option that was chosen")
        choice, _ = self._choice(tensordict, self._of_options(self.chooser, tensordict), running)
        return OptionAndAction(choice, index, self.worker.build(tensordict))

    def state_after(self, tensordict: TensorDictBase) -> dict[Key, Tensor]:
        """Return the state after a step that was decided, by keys under ``"next"``; it has no gradient.

        Args:
            tensordict: the step: its state, and the option that was chosen.
        """
        running, age = self._state(tensordict)
        (index,) = read(tensordict, [self.index_key], "Options, for the option that was chosen")
        age = torch.where(index == running, age + 1, 1)
        if self.every is not None:
            is_over = age >= self.every
            index, age = index.masked_fill(is_over, self.num_options), age.masked_fill(is_over, 0)
        return {("next", *self.running_key): index.clone(), ("next", *self.age_key): age}

    def termination_of(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Return β of the option that runs, with gradient, ``[*B]``, and where one runs, bool ``[*B]``.

        Where none runs, β is 1.
        """
        running, _ = self._state(tensordict)
        is_none = running == self.num_options
        return self._ending_logit(tensordict, running).sigmoid().masked_fill(is_none, 1.0), ~is_none

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase) -> None:
        """Let the worker check one row's ``action_spec``; no state changes.

        Raises:
            SpecError: as the worker says. KeyMissing: there is no state.
        """
        running, _ = self._state(tensordict)
        if hasattr(self.worker, "require_fit"):
            root = tensordict.copy()
            root.set(self.index_key, torch.zeros_like(running))
            self.worker.require_fit(action_spec, root)

    def _state(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        running, age = (tensordict.get(key, None) for key in (self.running_key, self.age_key))
        if running is None or age is None:
            expected = f"the state under {self.running_key} and {self.age_key}"
            got = f"keys {sorted(map(str, tensordict.keys(True, True)))}"
            raise KeyMissing(explain("Options", expected=expected, got=got, hint=PRIMER_LINE))
        return running, age

    def _of_options(self, network: Operator, tensordict: TensorDictBase) -> Tensor:
        inputs = new_tensordict({}, tensordict.batch_size)  # what networks write is seen by nobody else
        for key, value in zip(network.in_keys, read(tensordict, network.in_keys, "Options"), strict=True):
            write(inputs, key, value)
        logits = network(inputs).get(network.out_keys[0])
        if logits.shape[-1] != self.num_options:
            expected = f"{self.num_options} logits of {'.'.join(network.out_keys[0])}, one for each option"
            raise SpecError(explain("Options", expected=expected, got=list(logits.shape)))
        return logits

    def _ending_logit(self, tensordict: TensorDictBase, running: Tensor) -> Tensor:
        """Return the logit of β of the option that runs, ``[*B]``; any number where none runs."""
        if self.termination is None:
            return torch.full(running.shape, -torch.inf, device=running.device)
        endings = self._of_options(self.termination, tensordict)
        return endings.gather(-1, running.clamp(max=self.num_options - 1).unsqueeze(-1)).squeeze(-1)

    def _choice(self, tensordict: TensorDictBase, logits: Tensor, running: Tensor) -> tuple[Categorical, Tensor]:
        """Return the distribution p of the option, and β, ``[*B]``."""
        is_none = running == self.num_options
        log_probs = logits.log_softmax(-1)
        stays = running.unsqueeze(-1) == torch.arange(self.num_options, device=running.device)
        if self.termination is None:
            ending = is_none.to(logits.dtype)
            return self.choice_family(log_probs.masked_fill(~(stays | is_none.unsqueeze(-1)), -torch.inf)), ending
        logit = self._ending_logit(tensordict, running)
        ends = nn.functional.logsigmoid(logit).unsqueeze(-1) + log_probs
        goes_on = nn.functional.logsigmoid(-logit).unsqueeze(-1)
        mixed = torch.where(stays, torch.logaddexp(ends, goes_on), ends)
        mixed = torch.where(is_none.unsqueeze(-1), log_probs, mixed)
        return self.choice_family(mixed), logit.sigmoid().masked_fill(is_none, 1.0)


def no_option(num_options: int, *, state_key: Key = "option") -> TensorDict:
    """Return the state of :class:`Options` in which none runs, where an environment is built before the policy.

    >>> no_option(3)["option", "running"]
    tensor(3)

    Args:
        num_options: n.
        state_key: the folder of the state.

    Returns:
        batch size ``[]``, for :class:`~torchrl.envs.transforms.TensorDictPrimer`.
    """
    _require_number("no_option", num_options)
    state = TensorDict()
    for name, number in (("running", num_options), ("age", 0)):
        state.set((*as_path(state_key), name), torch.tensor(number))
    return state


def _require_number(who: str, num_options: int) -> None:
    if not is_count(num_options):
        raise ConfigError(explain(f"{who}(num_options=...)", expected="at least 1, a whole number", got=num_options))
