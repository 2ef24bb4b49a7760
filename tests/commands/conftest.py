"""A run in this process, as a user would write it."""

import pytest
import torch

from torchrl.commands.main import main


@pytest.fixture
def torchrl(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; return the lines that it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        main(list(words))
        return capsys.readouterr().out.splitlines()

    yield run
    torch.set_flush_denormal(False)


@pytest.fixture
def refused(torchrl, capsys):
    """Run a command that ends with status 2; return its one message."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            torchrl(*words)
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert printed.out == "" and printed.err.count("\n") == 1
        return printed.err

    return run
