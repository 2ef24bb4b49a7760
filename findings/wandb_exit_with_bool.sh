#!/bin/sh
# wandb: a script that ends with sys.exit(True), as in sys.exit(loss > limit), prints a TypeError of wandb's exit hook, since
# the status it notes must be a whole number to its messages: True is one to Python. Its run was finished before. Exits with 0
# as long as it does so, and with an error as soon as not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "wandb==0.31.0"
venv/bin/python -I - <<'END'
import subprocess
import sys

import wandb

SCRIPT = """
import sys
import wandb
run = wandb.init(mode="offline", dir=".", settings=wandb.Settings(silent=True))
run.log({"loss": 1.0})
run.finish()
sys.exit(%s)
"""

print("wandb", wandb.__version__)
printed = {}
for status in ("1", "True"):
    ended = subprocess.run([sys.executable, "-I", "-c", SCRIPT % status], capture_output=True, text=True, check=False)
    printed[status] = ended.stderr
    print(f"sys.exit({status}): status {ended.returncode}, last line {ended.stderr.strip().splitlines()[-1:]}")
assert "TypeError" not in printed["1"]
assert "TypeError" in printed["True"] and "exit_code" in printed["True"], "a bool is taken as a status"
END
