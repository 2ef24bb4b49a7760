"""The generated pages are those of the present package."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch

from cases.examples import parser
from law_table import SUITES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date():
    reference = load(DOCS / "reference.py")
    assert reference.PAGE.read_text() == reference.page(), "run python docs/reference.py"


def test_the_table_of_laws_names_every_public_part():
    """That each part is held against the laws is tested in every suite; here, that the page was written since."""
    page = (DOCS / "laws.md").read_text()
    reference = load(DOCS / "reference.py")
    for name in ("data.specs", "envs.transforms", "modules.distributions", "objectives"):
        table = reference.section(f"torchrl.{name}")
        for subject in re.findall(r"^\| `(\w+)\(", table, re.MULTILINE):
            is_base = subject in BASES or subject[0].islower()
            assert is_base or f"| `{subject}` |" in page, f"run make laws: {subject} is not in docs/laws.md"


# Bases, containers, what is no estimator, and what needs an accelerator.
BASES = {
    "TensorSpec", "Transform", "EpisodeObservation", "ActionTransform", "ObservationTransform", "RewardTransform",
    "RandomTransform", "TransformedEnv", "EnvSpecs", "ObservationStatistics", "Distribution", "Loss",
    "PolicyGradientLoss", "TDLoss", "ActionValueLoss", "ActorCriticLoss", "PolicyRows", "Coefficient",
    "PolicyObjective", "PolicyGradient", "Surrogate", "ClippedSurrogate", "PenalizedSurrogate", "ReturnEstimator",
    "Reward2Go", "PinMemory", "HardUpdate", "SoftUpdate",
}  # fmt: skip


def blocks_of(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


def blocks_with_output(path):
    """List the Python blocks of a page, each with the text block right behind it, which is what it prints, or None."""
    blocks = r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?"
    return [(code, text or None) for code, text in re.findall(blocks, path.read_text(), flags=re.DOTALL)]


PAGES = [path for path in sorted(DOCS.rglob("*.md")) if blocks_of(path)]  # those of the README: test_readme.py
APART = "policies"  # the one page whose blocks do not go on from one another
COMMANDS = [
    (path.stem, line)
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    for line in path.read_text().replace("\\\n", " ").splitlines()
    if line.startswith("python examples/")
]


@pytest.mark.parametrize("block", blocks_of(DOCS / "concepts" / f"{APART}.md"))
def test_the_blocks_on_policies_run(block):
    torch.manual_seed(0)
    exec(compile(block, f"{APART}.md", "exec"), {"__name__": APART})


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("path", [path for path in PAGES if path.stem != APART], ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run_one_after_another(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where pages write
    torch.manual_seed(0)
    namespace = {"__name__": path.stem}
    for block, text in blocks_with_output(path):
        exec(compile(block, path.name, "exec"), namespace)
        printed = capsys.readouterr().out
        assert text is None or text.split() == printed.split()  # a page wraps long lines


def test_every_page_that_shows_code_is_run():
    names = {path.stem for path in PAGES}
    expected = "collectors data_layout environments exploration memory off_policy policies replay"
    assert set(expected.split()) <= names


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_the_commands_of_the_docs_have_the_flags_that_they_name(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, script, *flags = shlex.split(command, comments=True)
    assert parser(Path(script).stem).parse_args(flags)


@pytest.mark.parametrize("suite", SUITES.values())
def test_a_law_suite_exists(suite):
    assert (ROOT / suite).is_file()


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_links_of_the_docs_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)h#][^)#]*)[^)]*\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_every_page_stands_in_a_table_of_contents_of_the_site():
    index = (DOCS / "index.md").read_text()
    trees = "".join(re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL)).splitlines()
    entries = [re.sub(r".*<(.*)>", r"\1", line) for line in trees if line and not line.startswith((":", "api/"))]
    patterns = [entry for entry in entries if "*" in entry]
    named = {(DOCS / f"{entry}.md").resolve() for entry in entries if "*" not in entry}
    assert all(path.is_file() for path in named)
    listed = named.union(*(DOCS.glob(f"{entry}.md") for entry in patterns))
    assert set(DOCS.rglob("*.md")) - listed == {DOCS / "index.md"}
    assert {ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")} < listed


def test_a_link_of_the_site_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there">b</a><a href="#here">a</a><img src="c.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#here">a</a><a href="https://example.org/x">x</a>')
    assert load(DOCS / "links.py").broken_links(tmp_path) == ["a.html: b.html#there", "a.html: c.png"]
