"""The shape of the house: layers, adapters, no side effects of an import, documented public names, private state.

A rule is a function that yields what a module breaks. Each is tried on the package and on planted mistakes. Rules read
syntax trees (`sources.py`); the package is imported only to look at its public names.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from sources import PACKAGE, ROOT, ROOTS, TOP, Source, call_name, is_within

# A folder may import folders of a smaller level, and itself. Files beside torchrl/__init__.py are roots.
LEVELS = {
    ROOTS: 0,
    "functional": 1,
    "processes": 1,
    "data": 2,
    "record": 2,
    "envs": 3,
    "modules": 3,
    "collectors": 4,
    "objectives": 4,
    "deploy": 4,
    "agents": 5,
    "population": 6,
    "recipes": 7,
    "commands": 8,
    TOP: 9,
}
# Below the level a folder is on, what it may not import all the same.
FORBIDDEN = {"torchrl.collectors": "torchrl.data.replay"}

# A third-party library enters through one folder. These are the ones every part may use.
EVERYWHERE = {"torch", "tensordict", "numpy"}
ADAPTERS = {
    "cloudpickle": "torchrl",  # of what sends messages: channels, remote
    "gymnasium": "torchrl.envs",
    "dm_control": "torchrl.envs",
    "dm_env": "torchrl.envs",
    "mujoco": "torchrl.envs",
    "ale_py": "torchrl.envs",
    "cv2": "torchrl.envs",
    "envpool": "torchrl.envs",
    "jax": "torchrl.envs",
    "brax": "torchrl.envs",
    "craftax": "torchrl.envs",
    "mujoco_playground": "torchrl.envs",
    "configargparse": "torchrl.recipes",
    "tensorboard": "torchrl.record",
    "matplotlib": "torchrl.record",
    "av": "torchrl.record",
    "wandb": "torchrl.record",
    "mlflow": "torchrl.record",
    "sqlalchemy": "torchrl.record",  # which mlflow asks for without naming it
    "tqdm": "torchrl.agents",
    "h5py": "torchrl.data.offline",
    "minari": "torchrl.data.offline",
    "PIL": "torchrl.data.offline",
    "pyarrow": "torchrl.data.offline",
    "onnx": "torchrl.deploy",
    "onnxscript": "torchrl.deploy",
    "optuna": "torchrl.commands",
}
# Optional or slow to load: imported on first use, never by importing a module of ours.
ON_FIRST_USE = {
    *("dm_control", "dm_env", "envpool", "mujoco", "imageio", "tensorboard", "matplotlib", "av", "h5py", "minari"),
    *("PIL", "pyarrow", "ale_py", "cv2", "jax", "brax", "craftax", "mujoco_playground"),
    *("gymnax", "jumanji", "pgx", "onnx", "onnxscript", "optuna", "wandb", "mlflow", "sqlalchemy"),
}
# The maths knows nothing but torch; worker processes start without torch.
ONLY_TORCH = "torchrl.functional"
WITHOUT_TORCH = (
    *("torchrl.errors", "torchrl.extras", "torchrl.files", "torchrl.seeding"),
    *("torchrl.processes.channels", "torchrl.processes.children", "torchrl.processes.pool", "torchrl.processes.remote"),
    *("torchrl.processes.serving", "torchrl.processes.shared_memory"),
    *("torchrl.envs.simulators", "torchrl.envs.vector.worker", "torchrl.envs.vector.serving"),
)

# The rendering back end that a user already chose, and whether there is a display, are read from the environment, and
# what was found is written there, where MuJoCo looks for it: nothing else takes it. The others hand
# all of it on to child processes and look at none of it.
READS_ENVIRONMENT = {
    *("torchrl.envs.simulators.opengl", "torchrl.processes.children", "torchrl.processes.remote"),
    "torchrl.processes.serving",
}
# Overrides of torch's and Python's own methods, documented there.
KNOWN_METHODS = {"forward", "extra_repr", "train", "to", "state_dict", "load_state_dict"}
CLASSES = [node for source in PACKAGE.values() for node in source.nodes(ast.ClassDef)]
PUBLIC = [name for name, source in PACKAGE.items() if source.is_package and "__all__" in ast.unparse(source.tree)]


# ---- the rules -------------------------------------------------------------------------------------------------------


def breaks_layers(source: Source) -> Iterator[str]:
    if source.folder not in LEVELS:
        yield f"folder {source.folder} has no level; give it one in tests/test_architecture.py"
        return
    for item in source.imports:
        is_shown = item.for_types and source.name == "torchrl"  # what the root loads on first use
        if is_shown or not is_within(item.name, "torchrl"):
            continue
        target = (item.name.split(".") + [""])[1]
        target = target if target in LEVELS else ROOTS
        if target != source.folder and LEVELS[target] >= LEVELS[source.folder]:
            yield f"line {item.line}: {source.folder} imports {item.name}; imports point down only"
        for folder, banned in FORBIDDEN.items():
            if is_within(source.name, folder) and is_within(item.name, banned):
                yield f"line {item.line}: {folder} imports {banned}"


def breaks_adapters(source: Source) -> Iterator[str]:
    for item in source.imports:
        library = item.library
        if library in {"torchrl", "__future__"} or library in sys.stdlib_module_names:
            continue
        if is_within(source.name, ONLY_TORCH) and library != "torch":
            yield f"line {item.line}: {ONLY_TORCH} imports {library}; it may import torch alone"
        elif library not in EVERYWHERE and library not in ADAPTERS:
            yield f"line {item.line}: {library} has no adapter folder; list it in tests/test_architecture.py"
        elif library in ADAPTERS and not is_within(source.name, ADAPTERS[library]):
            yield f"line {item.line}: {library} enters through {ADAPTERS[library]} only"
        if library in ON_FIRST_USE and not item.in_function and not item.for_types:
            yield f"line {item.line}: {library} is imported on first use only"


def breaks_import_style(source: Source) -> Iterator[str]:
    for item in source.imports:
        if item.name.endswith(".*"):
            yield f"line {item.line}: star import"
        if is_within(item.name, "torchrl") and item.in_function:
            yield f"line {item.line}: import of our own inside a function"
    if source.name != "torchrl.extras":
        lazy = [node for node in source.tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
        allowed = {id(node) for function in lazy if source.is_package for node in ast.walk(function)}
        for node in ast.walk(source.tree):
            computed = isinstance(node, ast.Call) and not (node.args and isinstance(node.args[0], ast.Constant))
            called = call_name(node).rpartition(".")[2] if computed else ""
            if called in {"import_module", "__import__"} and id(node) not in allowed:
                yield f"line {node.lineno}: an import by a computed name hides from this test"


def breaks_import_silence(source: Source) -> Iterator[str]:
    """Importing a module defines names and does nothing else."""
    bodies = [source.tree.body]
    while bodies:
        for node in bodies.pop():
            if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
                continue  # of what is run
            if isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef | ast.For | ast.While):
                bodies += [getattr(node, part, []) for part in ("body", "orelse", "finalbody")]
                bodies += [handler.body for handler in getattr(node, "handlers", [])]
            elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
                yield f"line {node.lineno}: {ast.unparse(node)} runs on import"
            elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
                targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target]
                if any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
                    yield f"line {node.lineno}: {ast.unparse(node)} changes another object on import"


def breaks_environment(source: Source) -> Iterator[str]:
    for node in source.nodes(ast.Attribute, ast.Name):
        name = call_name(node)
        reads = name in {"os.environ", "os.environb", "os.getenv", "os.putenv", "environ", "getenv"}
        if reads and source.name not in READS_ENVIRONMENT:
            yield f"line {node.lineno}: {name}: behaviour comes from arguments, not from the environment"


def breaks_plain_classes(source: Source) -> Iterator[str]:
    for node in source.nodes(ast.ClassDef):
        bases = {call_name(base) for base in node.bases}
        if any(word.arg == "metaclass" for word in node.keywords) or bases & {"type", "ABCMeta", "abc.ABCMeta"}:
            yield f"line {node.lineno}: class {node.name} brings a metaclass"


def breaks_documentation(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield "the module has no docstring"
    if source.is_package and source.name != "torchrl":
        names = {target.id for node in source.tree.body if isinstance(node, ast.Assign) for target in node.targets}
        if "__all__" not in names and len(source.tree.body) > 1:  # one that holds folders only has nothing to list
            yield "the package lists no public names in __all__"
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield f"line {node.lineno}: {node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from undocumented_methods(node)


def undocumented_methods(node: ast.ClassDef) -> Iterator[str]:
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("_") or ast.get_docstring(method):
            continue
        decorators = {call_name(decorator).rpartition(".")[2] for decorator in method.decorator_list}
        inherits = method.name in KNOWN_METHODS or method.name in documented_names(node)
        if not inherits and not decorators & {"setter", "overload"}:
            yield f"line {method.lineno}: {node.name}.{method.name} has no docstring"


def documented_names(node: ast.ClassDef) -> set[str]:
    """Collect the methods and properties that the bases of a class, as far as they are our own, document."""
    names: set[str] = set()
    bases = {call_name(base).rpartition(".")[2] for base in node.bases}
    for parent in CLASSES:
        if parent.name in bases and parent is not node:
            methods = [item for item in parent.body if isinstance(item, ast.FunctionDef)]
            names |= {method.name for method in methods if ast.get_docstring(method)} | documented_names(parent)
    return names


RIDDLES = re.compile(
    r"\b(whoever|whomever|so many|none of ours|affair of ours|what came of it|not to be had|in a blink)\b|: the one\.$",
    re.IGNORECASE | re.MULTILINE,
)
SLOT = re.compile(r"\bslots?\b")  # of Python's __slots__ in one module; elsewhere in envs it is a row


def breaks_plain_words(source: Source) -> Iterator[str]:
    """Docstrings and messages say who does what, and call one thing by one word; see CONTRIBUTING, "Words"."""
    for node in source.nodes(ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        found = RIDDLES.search(text)
        if found is None and source.folder == "envs" and not source.name.endswith(".capture"):
            found = SLOT.search(text)
        if found:
            yield f"line {node.lineno}: says {found.group()!r}"


RULES = [
    breaks_layers,
    breaks_adapters,
    breaks_import_style,
    breaks_import_silence,
    breaks_environment,
    breaks_plain_classes,
    breaks_documentation,
    breaks_plain_words,
]


# ---- the rules on the package, and on planted mistakes ---------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule):
    broken = [f"{source.name}: {problem}" for source in PACKAGE.values() for problem in rule(source)]
    assert not broken, "\n".join(broken)


MISTAKES = [
    (breaks_layers, "torchrl.functional.a", "from torchrl.data import specs"),
    (breaks_layers, "torchrl.envs.a", "import torchrl.modules.actors"),
    (breaks_layers, "torchrl.modules.a", "from torchrl.envs.base import Env"),
    (breaks_layers, "torchrl.data.a", "from torchrl import record"),
    (breaks_layers, "torchrl.errors", "from torchrl.data.specs import Bounded"),
    (breaks_layers, "torchrl.agents.a", "def f():\n    from torchrl.recipes import config"),
    (breaks_layers, "torchrl.collectors.a", "from torchrl.data.replay import buffer"),
    (breaks_layers, "torchrl.data.a", "from ..envs import base"),
    (breaks_layers, "torchrl.attic.a", ""),
    (breaks_adapters, "torchrl.collectors.a", "import gymnasium as gym"),
    (breaks_adapters, "torchrl.functional.a", "import numpy"),
    (breaks_adapters, "torchrl.data.a", "import pandas"),
    (breaks_adapters, "torchrl.agents.a", "def f():\n    require('matplotlib.figure', extra='plots', purpose='p')"),
    (breaks_adapters, "torchrl.data.a", "from torch.utils.tensorboard import SummaryWriter"),
    (breaks_adapters, "torchrl.record.a", "import matplotlib"),
    (breaks_import_style, "torchrl.data.a", "from math import *"),
    (breaks_import_style, "torchrl.data.a", "def f():\n    from torchrl import errors"),
    (breaks_import_style, "torchrl.data.a", "def f():\n    import_module('torchrl.errors')"),
    (breaks_import_style, "torchrl.data.a", "def __getattr__(name):\n    return import_module(name)"),
    (breaks_import_silence, "torchrl.data.a", "import torch\ntorch.set_num_threads(1)"),
    (breaks_import_silence, "torchrl.data.a", "try:\n    mp.set_start_method('spawn')\nexcept RuntimeError:\n    pass"),
    (breaks_import_silence, "torchrl.data.a", "torch.backends.cudnn.benchmark = True"),
    (breaks_import_silence, "torchrl.data.a", "os.environ['OMP_NUM_THREADS'] = '1'"),
    (breaks_environment, "torchrl.data.a", "def f():\n    return os.environ.get('DEBUG')"),
    (breaks_environment, "torchrl.data.a", "DEBUG = os.getenv('DEBUG')"),
    (breaks_plain_classes, "torchrl.data.a", "class A(metaclass=M):\n    pass"),
    (breaks_plain_classes, "torchrl.data.a", "class M(type):\n    pass"),
    (breaks_plain_words, "torchrl.data.a", '"""Closed by whoever opened it."""'),
    (breaks_plain_words, "torchrl.data.a", '"""Read.\n\nArgs:\n    buffer: the one.\n"""'),
    (breaks_plain_words, "torchrl.envs.a", "raise ValueError(f'step of slot {index}')"),
    (breaks_documentation, "torchrl.data.a", "x = 1"),
    (breaks_documentation, "torchrl.data.a", '"""Module."""\ndef f(): pass'),
    (breaks_documentation, "torchrl.data.a", '"""Module."""\nclass A:\n    """A."""\n    def f(self): pass'),
]


@pytest.mark.parametrize(("rule", "name", "text"), MISTAKES)
def test_a_planted_mistake_is_found(rule, name, text):
    assert list(rule(Source(name, text)))


def test_a_lazy_package_and_a_private_name_are_no_mistakes():
    body = '__all__ = []\ndef __getattr__(name):\n    return import_module(f"{__name__}.{name}")\ndef _f(): pass'
    source = Source("torchrl.data.a", f'"""Lazy."""\n{body}', is_package=True)
    assert not [problem for rule in RULES for problem in rule(source)]


# ---- private state ---------------------------------------------------------------------------------------------------

# How often a module may read private state that is not its object's own. It goes down, never up; 10 is the aim.
MOST_PRIVATE_ACCESSES = 0
OWN = {"self", "cls", "super()", "type(self)", "other"}
OF_LIBRARIES = {"_buffers", "_parameters", "_modules", "_version", "_replace"}  # of torch, and of named tuples


def is_own(node: ast.Attribute) -> bool:
    """Answer whether an attribute is read or set on its owner; ``other`` is an object of the same class."""
    return ast.unparse(node.value) in OWN


def private_names(package: dict[str, Source]) -> set[str]:
    """Collect the private attributes and methods that classes of the package define."""
    names: set[str] = set()
    for source in package.values():
        for node in source.nodes(ast.ClassDef, ast.Attribute):
            if isinstance(node, ast.Attribute):
                names |= {node.attr} if isinstance(node.ctx, ast.Store) and is_own(node) else set()
                continue
            names |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            assigned = [item for item in node.body if isinstance(item, ast.Assign | ast.AnnAssign)]
            targets = [target for item in assigned for target in getattr(item, "targets", None) or [item.target]]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")} - OF_LIBRARIES


def private_accesses(source: Source, names: set[str]) -> Iterator[str]:
    """Yield where a module reads one of ``names`` on an object that is not its own."""
    for node in source.nodes(ast.Attribute):
        if node.attr in names and not is_own(node):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def test_private_state_is_read_by_its_owner():
    names = private_names(PACKAGE)
    found = [f"{source.name}, {line}" for source in PACKAGE.values() for line in private_accesses(source, names)]
    assert len(found) <= MOST_PRIVATE_ACCESSES, "\n".join(found)


def test_private_state_of_another_class_is_found():
    texts = {
        "torchrl.data.a": "class A:\n    def __init__(self, b):\n        self._x = b._y + super()._x",
        "torchrl.data.b": "class B:\n    _y: int\n    def f(self, other):\n        return other._y, self.a._x, self._z",
    }
    package = {name: Source(name, text) for name, text in texts.items()}
    names = private_names(package)
    assert names == {"_x", "_y"}
    found = [list(private_accesses(source, names)) for source in package.values()]
    assert found == [["line 3: b._y"], ["line 4: self.a._x"]]


# ---- rules on the whole graph ----------------------------------------------------------------------------------------


def own_imports(source: Source, package: dict[str, Source]) -> set[str]:
    """Return the modules of the package that importing ``source`` names, types aside."""
    names = {item.name for item in source.imports if is_within(item.name, "torchrl") and not item.for_types}
    return {name if name in package else name.rpartition(".")[0] for name in names} & package.keys() - {source.name}


def folder_of(source: Source) -> str:
    return source.name if source.is_package else source.name.rpartition(".")[0]


def test_no_import_cycle_between_files_or_folders():
    files = {name: own_imports(source, PACKAGE) for name, source in PACKAGE.items()}
    TopologicalSorter(files).prepare()  # an error that names the cycle, if there is one
    folders: dict[str, set[str]] = {}
    for source in PACKAGE.values():
        if source.is_package:
            continue  # an __init__ gathers the names of its files, so it points at them by purpose
        own = folder_of(source)
        targets = {folder_of(PACKAGE[target]) for target in own_imports(source, PACKAGE)}
        # A folder and one inside it are one room: what counts between them is that their files form no cycle.
        others = {target for target in targets if not is_within(target, own) and not is_within(own, target)}
        folders.setdefault(own, set()).update(others)
    TopologicalSorter(folders).prepare()


def libraries_loaded_by(name: str, package: dict[str, Source]) -> set[str]:
    """Follow our own imports, parent packages included, and return every library that one of them names."""
    pending, seen, libraries = [name], set(), set()
    while pending:
        current = pending.pop()
        if current in seen or current not in package:
            continue
        seen.add(current)
        parts = current.split(".")
        pending += [".".join(parts[:length]) for length in range(1, len(parts))]
        for item in package[current].imports:
            if item.for_types:
                continue
            libraries.add(item.library)
            pending += [item.name, item.name.rpartition(".")[0]] if item.library == "torchrl" else []
    return libraries


def test_simulators_and_their_roots_import_no_torch():
    names = [name for name in PACKAGE if any(is_within(name, prefix) for prefix in WITHOUT_TORCH)]
    assert len(names) > 3
    heavy = {name: libraries_loaded_by(name, PACKAGE) & {"torch", "tensordict"} for name in names}
    assert not {name for name, found in heavy.items() if found}


def test_torch_behind_two_imports_is_found():
    texts = {"torchrl": "", "torchrl.a": "import torchrl.b", "torchrl.b": "def f():\n    import torch"}
    assert "torch" in libraries_loaded_by("torchrl.a", {name: Source(name, text) for name, text in texts.items()})


@pytest.mark.parametrize(
    ("modules", "absent"),
    [(WITHOUT_TORCH, {"torch", "tensordict"}), (PUBLIC, ON_FIRST_USE)],
    ids=["no torch in simulators and their roots", "optional libraries on first use"],
)
def test_a_process_loads_no_more_than_it_says(modules, absent):
    script = f"import sys, {', '.join(modules)}; sys.exit(str({absent} & sys.modules.keys() or ''))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert not done.stderr.strip()


# ---- what the package promises to its users --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    package = importlib.import_module(name)
    assert len(set(package.__all__)) == len(package.__all__) > 0
    bare = [public for public in package.__all__ if not inspect.getdoc(getattr(package, public))]
    assert not bare


def test_public_classes_and_functions_have_examples():
    packages = [importlib.import_module(name) for name in PUBLIC]
    exported = [
        (f"{package.__name__}.{name}", getattr(package, name)) for package in packages for name in package.__all__
    ]
    objects = {value: name for name, value in exported if inspect.isclass(value) or inspect.isfunction(value)}
    bare = [name for value, name in objects.items() if ">>> " not in (value.__doc__ or "")]
    assert len(objects) > 300
    assert not bare, "\n".join(bare)


def test_every_extra_that_the_package_asks_for_exists():
    calls = [node for source in PACKAGE.values() for node in source.nodes(ast.Call) if call_name(node) == "require"]
    asked = {word.value.value for node in calls for word in node.keywords if word.arg == "extra"}
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (extras,) = [node.value for node in setup.body if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS"]
    offered = {key.value for key in extras.keys}
    assert asked
    assert {extra.replace("_", "-") for extra in asked} <= offered  # pip takes both for one name
