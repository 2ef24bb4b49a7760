"""Ctrl-C in a script with two worker processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fakes import wait_until

TESTS = Path(__file__).parents[1]


def assert_ctrl_c_leaves_nothing(code):
    """Interrupt a script that prints the numbers of its workers and goes on for ever."""
    code = f"import sys\nsys.path[:0] = {[str(TESTS), str(TESTS.parent)]}\n{code}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen([sys.executable, "-c", code], text=True, start_new_session=True, **pipes)
    workers = [int(pid) for pid in run.stdout.readline().split()]
    time.sleep(0.3)
    os.killpg(run.pid, signal.SIGINT)  # the terminal sends it to the whole group
    _, printed = run.communicate()
    assert printed.rstrip().endswith("KeyboardInterrupt") and printed.count("Traceback") == 1, printed
    assert len(workers) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
