"""A logger that keeps what it is given, for tests that look at the log."""

from torchrl.record import Logger


class Recorder(Logger):
    """Keeps ``(step, metrics)`` in ``rows`` and ``(step, name, text)`` in ``texts``."""

    def __init__(self):
        self.rows, self.texts, self.is_closed = [], [], False

    def log_scalars(self, metrics, step):
        self.rows.append((step, dict(metrics)))

    def log_text(self, name, text, step):
        self.texts.append((step, name, text))

    def close(self):
        self.is_closed = True
