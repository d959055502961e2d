"""Training steps as CUDA graphs: the kernels of a step are recorded once and then launched all at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from led_fast.errors import first_line
from led_fast.training.feed import Feed

_WARM_UP = 3  # steps of a kind before it is recorded: libraries set themselves up, Adam makes its moments

_Result = TypeVar("_Result")


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batches: list[Tensor]
    result: Any


class StepGraphs:
    """Runs steps eagerly at first, then records one of each kind and replays it.

    A kind of step launches the same kernels on the same memory every time. What changes from step to step lies on the
    device, where it is filled in beforehand: the batches, by the feed, and whatever the caller fills. Random numbers
    go on as in eager steps, because a graph moves on the device's generator by what it takes.

    Args:
        feed: from which the steps take their data.
        interval: steps within which each kind of them comes at least once.
        say: tells the user.
    """

    def __init__(self, feed: Feed, interval: int, say: Callable[[str], None]) -> None:
        self._feed, self._interval, self._say = feed, interval, say
        self._failed = False
        self._stream: torch.cuda.Stream | None = (
            None  # where steps run before they are recorded, and are recorded
        )
        self.begin()

    @property
    def steps_before(self) -> int:
        """Steps from `begin` until all kinds have been recorded."""
        return (_WARM_UP + 1) * self._interval

    def begin(self) -> None:
        """Forgets what was recorded, and its memory with it: other steps are to come."""
        self._recorded: dict[Hashable, _Recorded] = {}
        self._batches: dict[Hashable, list[Tensor]] = {}
        self._eager = (
            _WARM_UP * self._interval
        )  # all kinds at first, so that none runs beside the graphs' memory
        self._pool: Any = None

    def __call__(self, kind: Hashable, step: Callable[[], _Result]) -> _Result:
        """Takes a step of a kind; `step()` returns what a replay leaves the values of in the same tensors."""
        if self._failed:
            return step()
        if (recorded := self._recorded.get(kind)) is not None:
            self._feed.refill(recorded.batches)
            recorded.graph.replay()
            return recorded.result
        if self._eager > 0 or kind not in self._batches:
            self._eager -= 1
            with self._feed.noting() as self._batches[kind], self._aside():
                return step()
        batches = self._batches[kind]
        self._feed.refill(batches)
        if (recorded := self._record(step, batches)) is None:
            with self._feed.giving(batches):
                return step()
        self._recorded[kind] = recorded
        recorded.graph.replay()  # because recording computed nothing
        return recorded.result

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On a stream of its own, as PyTorch wants the steps before a recording; one, because each keeps memory."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def _record(self, step: Callable[[], object], batches: list[Tensor]) -> _Recorded | None:
        """Records a step; None where that cannot be."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                self._feed.giving(batches),
                _undone_where_it_fails(),
                # Other threads of the program may use the device meanwhile.
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                return _Recorded(graph, batches, step())
        except RuntimeError as error:
            self._failed = True
            self.begin()
            self._say(
                f"the training step could not be recorded as a CUDA graph ({first_line(error)}); it goes on "
                "without, with the same results, but more slowly"
            )
            return None


@contextmanager
def _undone_where_it_fails() -> Iterator[None]:
    """Puts the stream and the generator back, which a recording that fails leaves as they were within it."""
    stream, generator = (
        torch.cuda.current_stream(),
        torch.cuda.default_generators[torch.cuda.current_device()],
    )
    state = generator.clone_state()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(state)
        raise
