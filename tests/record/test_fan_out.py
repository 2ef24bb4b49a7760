"""Several sinks as one."""

import pytest
from recorder import Recorder

from torchrl.record import FanOut, Logger


def test_every_sink_gets_everything():
    sinks = Recorder(), Recorder()
    with FanOut(*sinks) as logger:
        logger.log_scalars({"a": 1.0}, 2)
        logger.log_text("b", "c", 3)
    for sink in sinks:
        assert sink.rows == [(2, {"a": 1.0})] and sink.texts == [(3, "b", "c")] and sink.is_closed


def test_a_sink_that_fails_to_close_keeps_no_other_open():
    class Failing(Recorder):
        def close(self):
            super().close()
            raise OSError("disk full")

    sinks = Failing(), Recorder()
    with pytest.raises(OSError, match="disk full"):
        FanOut(*sinks).close()
    assert all(sink.is_closed for sink in sinks)


def test_a_logger_lacking_a_method_cannot_be_made():
    class Half(Logger):
        def log_scalars(self, metrics, step):
            pass

    with pytest.raises(TypeError, match="abstract"):
        Half()
