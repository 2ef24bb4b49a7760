#!/bin/sh
# optuna: a study that goes on with a sampler of the same seed draws the values of its first trials once more, without a
# word: the sampler's random stream begins anew. Exits with 0 as long as it does so, and with an error as soon as not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --quiet --disable-pip-version-check "optuna==5.0.0"
venv/bin/python -I - <<'END'
import optuna
from optuna.storages.journal import JournalFileBackend

print("optuna", optuna.__version__)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def go_on(sampler):
    """Open the study, as a process does that is started again, and add three trials."""
    storage = optuna.storages.JournalStorage(JournalFileBackend("journal.log"))
    study = optuna.create_study(study_name="study", storage=storage, sampler=sampler, load_if_exists=True)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return [trial.params["x"] for trial in study.trials]


print(go_on(optuna.samplers.TPESampler(seed=0)))
drawn = go_on(optuna.samplers.TPESampler(seed=0))
print(drawn)
assert drawn[:3] == drawn[3:], "the trials of a study that goes on differ"
END
