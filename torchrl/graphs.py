"""Compile a function of tensors into one graph, ahead of time, and keep it on disk between runs. No networks here.

The function runs once on tensors without data, which writes down every operation on them, those of autograd included;
Python's own work, such as TensorDicts and checks, leaves no trace. The graph is compiled by inductor into a shared
library, under a name made of the graph itself and of what else decides the result. So a second run traces, which takes
a fraction of a second, finds the library, and does not compile; a changed loss has another graph, and so another name.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from torchrl.errors import ConfigError, explain

Program = Callable[[list[Tensor]], list[Tensor]]
OPTIONS = {
    "aot_inductor.package": True,
    "fallback_random": True,  # eager kernels draw: a seed's numbers are eager's
    # The first graph of a machine is there after 11 s instead of 29 (one free core of an AMD EPYC):
    "aot_inductor.precompile_headers": False,  # 13 s, and a later graph gains 2
    "cpp.vec_isa_ok": True,  # the processor says what it can do; to try it takes 6 s
}


def cache_folder() -> Path:
    """Return where compiled graphs are kept, a folder of the user's; it may be deleted at any time."""
    return Path.home() / ".cache" / "torchrl" / "graphs"


class Draw(NamedTuple):
    """Draw the random numbers of one operation from its own generator, by a call without arguments.

    Attributes:
        operation: of torch, such as ``aten.normal_``.
        empty: makes the tensor that it fills; None where it makes its own.
        arguments: those behind the tensor.
        options: those by name, the generator among them.
    """

    operation: Callable
    empty: Callable[[], Tensor] | None
    arguments: tuple
    options: dict

    def __call__(self) -> Tensor:
        filled = () if self.empty is None else (self.empty(),)
        return self.operation(*filled, *self.arguments, **self.options)


class Graph:
    """A function of tensors, compiled for the shapes, strides, dtypes and devices of ``inputs``, or found on disk.

    Called with such inputs as a list, by one thread at a time, it returns new tensors without gradient. On a GPU it
    does not wait for what it started.

    The function must be pure: it writes to no tensor but those it makes. A tensor that it reads and that is no input is
    a constant; where somebody has written to one, the next call compiles anew. Random numbers are those of eager
    operations: what is drawn from a generator of the function's own is drawn before each call, and becomes an input.

    >>> add = Graph("docs", lambda x, y: [x + y], [torch.zeros(2), torch.zeros(2)])  # doctest: +SKIP
    >>> add([torch.ones(2), torch.ones(2)])  # doctest: +SKIP
    [tensor([2., 2.])]

    Args:
        who: who asks, for errors.
        function: takes the tensors one by one, returns a list of new ones.
        inputs: examples, of which only the form counts.

    Raises:
        ConfigError: the function looks at numbers, or draws from a generator of its own by numbers that it computed.
    """

    def __init__(self, who: str, function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> None:
        self.who, self.function = who, function
        self._compile(inputs)

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        if self._versions != [constant._version for constant in self._constants]:
            self._compile(inputs)
        return self._run([*inputs, *[draw() for draw in self._draws]])

    def _compile(self, inputs: Sequence[Tensor]) -> None:
        graph, self._draws = trace(self.who, self.function, inputs)
        self._constants = list(constants_of(graph).values())
        self._versions = [constant._version for constant in self._constants]
        forms = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"][len(inputs) :]
        self._run = load_program(graph, [*inputs, *[torch.empty_like(form, device=form.device) for form in forms]])


def load_program(graph: GraphModule, inputs: Sequence[Tensor]) -> Program:
    """Return a graph as a compiled function of a list of tensors; compile it where it is not on disk."""
    path = cache_folder() / f"{_name_of(graph, inputs)}.pt2"
    if not path.exists():
        _build(graph, inputs, path)
    device = next((x.device for x in inputs if x.device.type != "cpu"), torch.device("cpu"))
    index = -1 if device.index is None else device.index
    # One thread at a time: the other kind waits for its last run to end, which a CUDA graph could not record either.
    return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, index).run


def trace(who: str, function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> tuple[GraphModule, list[Draw]]:
    """Return the graph of a function, see :class:`Graph`, and the draws that are its last inputs."""
    try:
        with torch.compiler._compile_session_context():  # what checks numbers asks torch.compiler.is_compiling()
            graph = make_fx(_noting(function), tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    except Exception as error:
        raise _not_one_graph(who, str(error).partition("\n")[0]) from error
    draws = _take_out_draws(who, graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, draws


class _NoteGenerators(TorchDispatchMode):
    """Trace draws without their generator, which fake tensors do not take for all of them, and note it on the node."""

    def __torch_dispatch__(self, operation: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is None:
            return operation(*args, **kwargs)
        result = operation(*args, **kwargs | {"generator": None})
        next(reversed(get_proxy_mode().tracer.graph.nodes)).meta["generator"] = generator
        return result


def _noting(function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
    def noted(*inputs: Tensor) -> list[Tensor]:
        with _NoteGenerators():
            return function(*inputs)

    return noted


def _take_out_draws(who: str, graph: GraphModule) -> list[Draw]:
    """Make what is drawn from a generator an input of the graph, for compilers know torch's global one alone."""
    draws: list[Draw] = []
    first = next(node for node in graph.graph.nodes if node.op != "placeholder")
    for node in list(graph.graph.nodes):
        generator = node.meta.get("generator")
        if generator is None:
            continue
        filled = node.args[:1] if node.args and isinstance(node.args[0], Node) else ()
        rest = node.args[len(filled) :]
        if (
            filled
            and not node.target.__name__.partition(".")[0].endswith("_")
            or any(isinstance(x, Node) for x in rest)
        ):
            raise _not_one_graph(who, f"{node.target} from a generator of its own, by numbers that were computed")
        form, options = node.meta["val"], {**node.kwargs, "generator": generator}
        empty = partial(torch.empty, form.shape, dtype=form.dtype, device=form.device) if filled else None
        method = getattr(Tensor, node.target.__name__.partition(".")[0], node.target) if filled else node.target
        draws.append(Draw(method, empty, rest, options))  # a method of Tensor takes half the time of its operation
        with graph.graph.inserting_before(first):
            given = graph.graph.placeholder(f"draw_{len(draws)}")
        given.meta["val"] = form
        node.replace_all_uses_with(given)
        graph.graph.erase_node(node)
    return draws


def constants_of(graph: GraphModule) -> dict[str, Tensor]:
    """Return the tensors that a graph holds, by name: read though no inputs, or made of numbers."""
    return dict(graph.named_buffers()) | {name: x for name, x in vars(graph).items() if isinstance(x, Tensor)}


def tensors_of(module: nn.Module, attribute: str) -> Iterator[tuple[dict, str, str]]:
    """Yield ``(dict, name in it, name in the module)`` of the parameters or buffers of a module, each tensor once.

    Read from the dict, a tensor is the module's present one.

    >>> [name for *_, name in tensors_of(nn.Linear(4, 2), "_parameters")]
    ['weight', 'bias']

    Args:
        module: with its parts.
        attribute: ``"_parameters"`` or ``"_buffers"``.
    """
    seen = set()
    for prefix, part in module.named_modules():
        for name, tensor in getattr(part, attribute).items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield getattr(part, attribute), name, f"{prefix}.{name}" if prefix else name


def facts_of(module: nn.Module) -> list[tuple[dict, str]]:
    """List ``(dict, name in it)`` of what a graph of a module holds as a fact: numbers, texts and generators.

    >>> {name: values[name] for values, name in facts_of(nn.Linear(4, 2))}
    {'training': True, 'in_features': 4, 'out_features': 2}
    """
    kinds = (bool, int, float, str, torch.Generator)
    return [(vars(part), name) for part in module.modules() for name, x in vars(part).items() if isinstance(x, kinds)]


def _not_one_graph(who: str, got: str) -> ConfigError:
    hint = "Leave compile out, or let no module branch on numbers."
    return ConfigError(explain(who, expected="one graph of tensors", got=got, hint=hint))


def _name_of(graph: GraphModule, inputs: Sequence[Tensor]) -> str:
    """Return a name of everything that decides what is compiled."""
    forms = [(x.dtype, tuple(x.shape), x.stride(), x.device.type) for x in inputs]
    kinds = {x.device for x in inputs if x.device.type == "cuda"}
    machine = [torch.cuda.get_device_name(device) for device in sorted(kinds, key=str)]
    machine += [torch.backends.cpu.get_cpu_capability(), platform.machine(), torch.get_num_threads()]
    text = repr([torch.__version__, machine, sorted(OPTIONS.items()), forms, graph.code])
    digest = hashlib.sha256(text.encode())
    for name, constant in sorted(constants_of(graph).items()):
        digest.update(repr((name, constant.dtype, constant.tolist())).encode())
    return digest.hexdigest()[:32]


def _build(graph: GraphModule, inputs: Sequence[Tensor], path: Path) -> None:
    """Compile the graph into a package, aside, and rename it when it is whole: other runs may build the same."""
    from torch._inductor import aot_compile  # takes seconds to import
    from torch._inductor.package import package_aoti

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 warns of what it calls itself
            files = aot_compile(graph, tuple(inputs), options=OPTIONS)
            package = aside / path.name
            package_aoti(str(package), files)
        package.replace(path)
    finally:
        shutil.rmtree(aside)
