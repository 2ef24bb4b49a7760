"""The generated pages are those of the present package."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

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
    "TensorSpec", "Transform", "ActionTransform", "ObservationTransform", "RewardTransform", "RandomTransform",
    "TransformedEnv", "EnvSpecs", "ObservationStatistics", "Distribution", "Loss", "PolicyGradientLoss",
    "ReturnEstimator", "Reward2Go", "PinMemory", "HardUpdate", "SoftUpdate",
}  # fmt: skip


POLICIES = re.findall(r"```python\n(.*?)```", (DOCS / "concepts" / "policies.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", POLICIES, ids=["nested", "masked", "recurrent", "imitation", "exported"])
def test_the_blocks_on_policies_run(block):
    torch.manual_seed(0)
    exec(compile(block, "policies.md", "exec"), {"__name__": "policies"})


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("page", ["collectors", "data_layout", "off_policy", "replay"])
def test_the_blocks_of_a_page_run_one_after_another(page):
    torch.manual_seed(0)
    namespace = {"__name__": page}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "concepts" / f"{page}.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), namespace)


@pytest.mark.parametrize("suite", SUITES.values())
def test_a_law_suite_exists(suite):
    assert (ROOT / suite).is_file()


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_links_of_the_docs_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)h#][^)#]*)[^)]*\)", path.read_text()):
        assert (path.parent / link).exists(), link
