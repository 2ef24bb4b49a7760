"""What tests put into processes. Children import this module, so it imports no test tools."""

import os
import signal
import sys
import threading
import time

from fakes import FOREVER_S
from torchrl.processes import serving

SERVE = f"{serving.__name__}:serve_object"


class Awkward(Exception):
    """Its constructor does not take its own ``args``."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class Thing:
    COMMANDS = frozenset(
        {"add", "copy_dies", "environment", "fail", "fail_with", "fail_with_lock", "give", "imported", "sleep", "stop"}
    )

    def __init__(self, base=0, *, closes_slowly=False):
        if base is None:
            raise Awkward(1, reason="planted in __init__")
        self.base, self.closes_slowly = base, closes_slowly

    def add(self, number):
        return self.base + number

    def copy_dies(self):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(theirs, b"+")
            time.sleep(FOREVER_S)
        os.read(ours, 1)  # Python forgets a signal that comes before a copy has begun
        os.close(ours), os.close(theirs)
        os.kill(pid, signal.SIGTERM)
        return os.WTERMSIG(os.waitpid(pid, 0)[1])

    def environment(self, name):
        return os.environ.get(name), os.environ["OMP_NUM_THREADS"], os.getcwd()

    def imported(self):
        return "torch" in sys.modules

    def fail(self):
        raise Awkward(7, reason="planted")

    def fail_with(self, error):
        raise error

    def fail_with_lock(self):
        return threading.Lock()

    def give(self, name):
        return {"Sealed": Sealed}[name]()

    def sleep(self, seconds):
        time.sleep(seconds)

    def stop(self):
        os._exit(3)

    def hidden(self):
        return "secret"

    def close(self):
        if self.closes_slowly:
            time.sleep(FOREVER_S)


class Sealed:
    """Cannot be unpickled."""

    def __reduce__(self):
        return (_refuse, ())


def _refuse():
    raise ValueError("sealed")
