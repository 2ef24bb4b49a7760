"""Several sinks as one."""

import pytest

from torchrl.record import FanOut, Logger


class Recorder(Logger):
    def __init__(self, *, fails: bool = False):
        self.calls, self.fails = [], fails

    def log_scalars(self, metrics, step):
        self.calls.append((dict(metrics), step))

    def log_text(self, name, text, step):
        self.calls.append((name, text, step))

    def close(self):
        self.calls.append("closed")
        if self.fails:
            raise OSError("disk full")


def test_every_sink_gets_everything_in_order():
    sinks = Recorder(), Recorder()
    with FanOut(*sinks) as logger:
        logger.log_scalars({"a": 1.0}, 2)
        logger.log_text("b", "c", 3)
    for sink in sinks:
        assert sink.calls == [({"a": 1.0}, 2), ("b", "c", 3), "closed"]


def test_a_sink_that_fails_to_close_keeps_no_other_open():
    sinks = Recorder(fails=True), Recorder()
    with pytest.raises(OSError, match="disk full"):
        FanOut(*sinks).close()
    assert [sink.calls for sink in sinks] == [["closed"], ["closed"]]


def test_a_logger_lacking_a_method_cannot_be_made():
    class Half(Logger):
        def log_scalars(self, metrics, step):
            pass

    with pytest.raises(TypeError, match="abstract"):
        Half()
