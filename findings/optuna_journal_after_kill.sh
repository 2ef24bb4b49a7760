#!/bin/sh
# optuna: a process that is killed while it writes a study's journal leaves its lock, a file, for which the next process
# waits 30 s. If half a line was written, no process can read the study any more from the next write on. Exits with 0 as
# long as it does so, and with an error as soon as it does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "optuna==5.0.0"
venv/bin/python -I - <<'END'
import os
import signal
import time

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

print("optuna", optuna.__version__)
optuna.logging.set_verbosity(optuna.logging.ERROR)


def go_on(path):
    """Open the study, add a trial, and return how many there are and how long it took."""
    begun = time.monotonic()
    storage = optuna.storages.JournalStorage(JournalFileBackend(path))
    study = optuna.create_study(study_name="study", storage=storage, load_if_exists=True)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    return len(study.trials), time.monotonic() - begun


def killed(path, text):
    """Kill a process that has taken the lock and written a text, as one does for each line."""
    process = os.fork()
    if process == 0:
        JournalFileSymlinkLock(path).acquire()
        with open(path, "ab") as file:
            file.write(text)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)


go_on("whole.log")
killed("whole.log", b"")
trials, seconds = go_on("whole.log")
print(f"killed before the line: {trials} trials after {seconds:.0f} s")
assert trials == 2 and seconds > 28.0

go_on("half.log")
killed("half.log", b'{"op_code":4,"worker')
for _ in range(2):
    try:
        came = go_on("half.log")
    except ValueError as error:
        came = type(error).__name__
    print("killed in the middle of it:", came)
assert came == "JSONDecodeError"
END
