import numpy as np

from torchrl import load_policy
from torchrl.commands import export


def test_it_writes_the_policy_of_the_best_checkpoint_into_the_run(torchrl, saved_run):
    assert torchrl("export", str(saved_run)) == ["taken from run/best.pt", "the policy is in run/policy.pt2"]
    assert load_policy(saved_run / "policy.pt2")(np.zeros(4, np.float32)) in (0, 1)


def test_a_checkpoint_and_a_file_may_be_named(torchrl, saved_run, monkeypatch):
    written = []
    monkeypatch.setattr(export, "export_policy", lambda path, agent, env: written.append(path))
    assert torchrl("export", f"{saved_run}/last.pt", "mine.onnx") == ["taken from run/last.pt"]
    torchrl("export", f"{saved_run}/last.pt")
    assert written == ["mine.onnx", saved_run / "policy.pt2"]


def test_the_folder_of_several_seeds_is_refused(refused, saved_seeds):
    assert "RUN: expected the run of one seed, got runs. The first is runs/seed_0." in refused("export", "runs")
