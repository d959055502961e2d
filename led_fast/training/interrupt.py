"""Ctrl-C and SIGTERM ask a run to stop after the step it is in, so that what it saves is whole."""

import signal
import threading
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Catches SIGINT and SIGTERM while it is open; a second one takes its usual effect at once.

    Python hands signals to the main thread alone: in another one nothing is caught. What the program has told a signal
    to do from outside of Python cannot be put back, so such a signal is left alone.

    Attributes:
        received: the signal's number, None as long as there was none.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int] = {}

    def __enter__(self) -> "StopSignal":
        """Starts to catch."""
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                if (handler := signal.getsignal(number)) is not None:
                    self._previous[number] = handler
                    signal.signal(number, self._catch)
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
