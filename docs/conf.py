"""How Sphinx builds the site: `make docs`. Its sources are the Markdown pages as they stand, and the docstrings.

The root of the sources is that of the project, so that a link which works on a code host works on the site as well.
The pages of the API are written when a build begins, one for each package of `docs/reference.py`.
"""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from pydoc import locate
from types import MethodDescriptorType

from docutils import nodes
from tensordict import nn

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import reference  # noqa: E402  (it lies beside this file)

project = "torchrl"
author = copyright = "The torchrl authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "benchmarks/README.md", "findings/README.md"]
exclude_patterns = [".*", "docs/_*", "examples", "tests", "torchrl", "configs", "build", "dist", "*.egg-info"]
nitpicky = True

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page of a code host may begin at the second level

add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # `inf` and a default that is an object stay as they are written
autodoc_inherit_docstrings = False  # those of torch name pages of its own site
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "torchrl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_extra_path = ["_root"]  # the root of the site leads to docs/index.html


def homes() -> dict[object, str]:
    """Give each public class and function the one name that its documentation stands under.

    A name of two packages stands in the one that its module belongs to.
    """
    found = {}
    for package in reference.PACKAGES:
        for name, member in reference.members_of(package).items():
            if member not in found or member.__module__.startswith(f"{package}."):  # outer packages come first
                found[member] = f"{package}.{name}"
    return found


HOMES = homes()
DEFINED = set(dir(nn)) | {
    name
    for path in (DOCS.parent / "torchrl").rglob("*.py")
    for names in re.findall(r"(?:class |def |self\.)(\w+)|^ +(\w+)(?:: | = )", path.read_text(), re.MULTILINE)
    for name in names
}
SHORT = {}  # the last part of a name, and what it may mean
for full in HOMES.values():
    SHORT.setdefault(full.rpartition(".")[2], []).append(full)


def linked_rows(package: str) -> list[str]:
    """Write the rows of the table of a package in reStructuredText, each name with a link to its documentation."""
    rows = []
    for name, member in reference.members_of(package).items():
        kind = "class" if inspect.isclass(member) else "func"
        rows += [f"   * - :{kind}:`{name} <{HOMES[member]}>`", f"     - {reference.summary(member)}"]
    return rows


def api_page(package: str) -> str:
    """Write the page of a package: its table, then each of its classes and functions in full."""
    lines = [package, "=" * len(package), "", f".. module:: {package}", "", inspect.getdoc(import_module(package)), ""]
    lines += [".. list-table::", "   :widths: 30 70", "   :class: names", "", *linked_rows(package), ""]
    for name, member in reference.members_of(package).items():
        if HOMES[member] == f"{package}.{name}":
            kind = "class" if inspect.isclass(member) else "function"
            lines += [f".. auto{kind}:: {package}.{name}"]
            lines += ["   :members:", "   :show-inheritance:", ""] if kind == "class" else [""]
    return "\n".join(lines)


def write_api(app) -> None:
    """Write the pages of the API where their text changed: Sphinx reads again what is newer."""
    folder = DOCS / "api"
    folder.mkdir(exist_ok=True)
    for package in reference.PACKAGES:
        path, text = folder / f"{package}.rst", api_page(package)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def link_names(app, docname: str, source: list[str]) -> None:
    """Give the names of `docs/reference.md` a link to their documentation, where they are those of a table."""
    if docname != "docs/reference":
        return
    package, lines = "", []
    for line in source[0].splitlines():
        package = line.removeprefix("## ") if line.startswith("## ") else package
        if match := re.match(r"\| `(\w+)(\(.*?\))` \|", line):
            home = HOMES[getattr(import_module(package), match[1])]
            line = f"| {{py:obj}}`{match[1]} <{home}>` `{match[2]}` |{line[match.end() :]}"
        lines.append(re.sub(r":(class|meth|func|attr|mod):`", r"{py:\1}`", line).replace("``", "`"))
    source[0] = "\n".join(lines)


def read_docstring(app, what: str, name: str, member: object, options, lines: list[str]) -> None:
    """Make reStructuredText of a docstring where the two differ, before napoleon reads it."""
    if isinstance(member, MethodDescriptorType):
        lines.clear()  # one of torch, which names pages of its own
    if what in ("attribute", "property"):
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type
    for place, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):  # a bar outside of literals is one: π(a|s)
            parts = re.split(r"(``.+?``)", line)
            lines[place] = "".join(part if part.startswith("``") else part.replace("|", "\\|") for part in parts)


def resolve(app, env, node, contnode):
    """Lead to what a docstring names shortly; leave as text what exists without a page; anything else is a warning."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"].lstrip(".")
    owner, _, name = target.rpartition(".")
    for candidate in [*SHORT.get(name, []), *(f"{home}.{name}" for home in SHORT.get(owner.rpartition(".")[2], []))]:
        if candidate in domain.objects:
            docname = node.get("refdoc", env.docname)
            return domain.resolve_xref(env, docname, app.builder, "obj", candidate, node, contnode)
    is_role = isinstance(contnode, nodes.literal)  # and neither a type of a signature nor an error in a list
    is_known = name in DEFINED or target.startswith("torch.") or locate(target) is not None
    return contnode if is_known or not is_role else None


def setup(app) -> None:
    """Connect what stands above."""
    app.connect("builder-inited", write_api)
    app.connect("source-read", link_names)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)
    app.connect("missing-reference", resolve)
