"""Slow and failing trackers: what of a run still reaches them, and that the run never notices."""

import warnings

import pytest
from recorder import Recorder

from torchrl.errors import ConfigError, SpecError
from torchrl.record import FanOut, Throttled, Tolerant


class Clock:
    """Seconds that pass only where a test, or a slow logger, says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow(Recorder):
    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def log_scalars(self, metrics, step):
        self.clock.now += self.seconds
        super().log_scalars(metrics, step)


def test_of_numbers_between_two_records_the_latest_of_each_goes_on_with_its_own_step():
    clock, recorder = Clock(), Recorder()
    logger = Throttled(recorder, records_per_second=2.0, clock=clock)
    for step, metrics in enumerate([{"loss": 0.0}, {"loss": 1.0}, {"eval": 5.0}, {"loss": 3.0}]):
        logger.log_scalars(metrics, step)
        clock.now += 0.125
    assert recorder.rows == [(0, {"loss": 0.0})]
    logger.log_scalars({"loss": 4.0}, 4)  # half a second after the first
    assert recorder.rows[1:] == [(2, {"eval": 5.0}), (4, {"loss": 4.0})]
    logger.log_scalars({"loss": 5.0, "other": 1.0}, 5)
    logger.log_scalars({"loss": 6.0}, 6)
    logger.close()
    logger.close()
    assert recorder.rows[3:] == [(5, {"other": 1.0}), (6, {"loss": 6.0})] and recorder.is_closed


def test_a_slow_tracker_takes_the_share_of_time_that_it_may():
    clock = Clock()
    slow = Slow(clock, seconds=0.5)
    logger = Throttled(slow, share=0.02, clock=clock)
    for step in range(10_000):  # 100 s of a run that logs every 10 ms
        logger.log_scalars({"loss": step}, step)
        clock.now += 0.01
    assert 0.5 * len(slow.rows) == pytest.approx(0.02 * clock.now, rel=0.2)


def test_what_is_no_number_goes_on_at_once_after_the_numbers_that_wait():
    recorder = Recorder()
    logger = Throttled(recorder, records_per_second=1e-3)
    logger.log_scalars({"loss": 0.0}, 0)
    logger.log_scalars({"loss": 1.0}, 1)
    assert len(recorder.rows) == 1
    logger.log_text("notes", "half way", 1)
    assert recorder.rows[1:] == [(1, {"loss": 1.0})] and recorder.texts == [(1, "notes", "half way")]


def test_numbers_that_have_no_meaning_are_refused():
    for options in ({"records_per_second": 0}, {"share": 0}, {"share": 1.5}):
        with pytest.raises(ConfigError, match="Throttled: expected records_per_second above 0"):
            Throttled(Recorder(), **options)


class Failing(Recorder):
    """Fails where the step is odd, and at the end."""

    def log_scalars(self, metrics, step):
        if step % 2:
            raise ConnectionError("the server is away")
        super().log_scalars(metrics, step)

    def close(self):
        super().close()
        raise OSError("disk full")


def test_the_first_failure_is_told_and_the_others_counted():
    failing, other = Failing(), Recorder()
    logger = FanOut(Tolerant(failing, "wandb"), other)
    with pytest.warns(UserWarning) as caught, logger:
        for step in range(6):
            logger.log_scalars({"loss": step}, step)
    first, last = (str(warning.message) for warning in caught)
    expected = "wandb: log_scalars failed with ConnectionError: the server is away. The run goes on; "
    assert first == f"{expected}later failures are counted."
    assert last == "wandb: 4 calls failed; its record is not whole."
    assert [step for step, _ in failing.rows] == [0, 2, 4] and len(other.rows) == 6 and other.is_closed


def test_a_single_failure_is_told_once_also_at_the_end():
    with pytest.warns(UserWarning, match="wandb: close failed with OSError: disk full. The run") as caught:
        Tolerant(Failing(), "wandb").close()
    assert len(caught) == 1


def test_a_mistake_of_who_logs_is_no_failure_of_the_tracker():
    with warnings.catch_warnings(), pytest.raises(SpecError, match="metric 'loss'"):
        warnings.simplefilter("error")
        Tolerant(Throttled(Recorder()), "wandb").log_scalars({"loss": "high"}, 0)


def test_a_failing_tracker_is_closed_and_slows_the_run_no_more_than_a_slow_one():
    clock = Clock()

    class Away(Slow):
        def log_scalars(self, metrics, step):
            super().log_scalars(metrics, step)
            raise TimeoutError

    away = Away(clock, seconds=10.0)
    logger = Tolerant(Throttled(away, clock=clock), "mlflow")
    with pytest.warns(UserWarning, match="mlflow: log_scalars failed with TimeoutError"):
        for step in range(100):
            clock.now += 1.0
            logger.log_scalars({"loss": step}, step)
        logger.close()
    assert len(away.rows) == 2 and away.is_closed and logger.num_failures == 2
