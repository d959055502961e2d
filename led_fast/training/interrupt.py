"""Ctrl-C and SIGTERM ask a run to stop after the step it is in, so that what it saves is whole."""

import signal
from types import FrameType


class StopSignal:
    """Catches SIGINT and SIGTERM while it is open; a second one takes its usual effect at once.

    Attributes:
        received: the signal's number, None as long as there was none.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopSignal":
        """Starts to catch."""
        self._previous = {number: signal.signal(number, self._catch) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back to whoever had them."""
        self._restore()

    def _catch(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
