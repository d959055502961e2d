"""What is recorded when, by a stand-in for torch.cuda that computes nothing."""

import types
from contextlib import contextmanager, nullcontext

import pytest
import torch

from led_fast.training import graph
from led_fast.training.feed import Feed


class Cuda(types.SimpleNamespace):
    """torch.cuda, as far as graph.py needs it; `events` is what happened."""

    def __init__(self):
        events = []
        stream = types.SimpleNamespace(wait_stream=lambda _: events.append("wait"))

        class CUDAGraph:
            def replay(self):
                events.append("replay")

        @contextmanager
        def recording(recorded, pool, stream_of_its_own, capture_error_mode):
            assert stream_of_its_own is stream and capture_error_mode == "thread_local"
            events.append(("record", pool))
            yield

        generator = types.SimpleNamespace(
            clone_state=lambda: "state", graphsafe_set_state=lambda state: events.append(state)
        )
        super().__init__(
            events=events,
            CUDAGraph=CUDAGraph,
            graph=recording,
            graph_pool_handle=object,
            current_stream=lambda: stream,
            Stream=lambda: stream,
            stream=lambda _: nullcontext(),
            set_stream=lambda s: events.append("stream" if s is stream else "another stream"),
            current_device=lambda: 0,
            default_generators=[generator],
        )


@pytest.fixture
def cuda(monkeypatch):
    stub = Cuda()
    monkeypatch.setattr(graph, "torch", types.SimpleNamespace(cuda=stub))
    return stub


@pytest.fixture
def feed():
    numbers = iter(range(1000))
    return Feed(lambda n: torch.full((n,), next(numbers)), torch.device("cpu"))


def test_a_step_is_taken_eagerly_then_recorded_once_then_replayed(cuda, feed):
    steps, calls = graph.StepGraphs(feed, 2, pytest.fail), []

    def step():
        calls.append((feed(3).tolist(), feed(1).tolist()))
        return "result"

    assert [steps("a", step) for _ in range(6)] == ["result"] * 6
    assert calls == [([i] * 3, [i + 1]) for i in range(0, 12, 2)] and steps.steps_before == 8
    assert cuda.events == ["wait", "wait"] * 6  # on a stream of its own, before and after
    cuda.events.clear()
    assert steps("a", step) == "result" and calls[6:] == [([12] * 3, [13])]
    ((_, pool), replay) = cuda.events
    assert replay == "replay"
    batches = steps._recorded["a"].batches
    memory = [batch.data_ptr() for batch in batches]
    assert [steps("a", step) for _ in range(3)] == ["result"] * 3
    assert len(calls) == 7 and cuda.events[2:] == ["replay"] * 3
    assert [batch.tolist() for batch in batches] == [[18] * 3, [19]]  # drawn anew, into the same memory
    assert [batch.data_ptr() for batch in batches] == memory
    # A kind that was never seen is run once; then it is recorded into the same pool.
    steps("b", step)
    steps("b", step)
    assert len(calls) == 9 and cuda.events[-2:] == [("record", pool), "replay"]
    steps.begin()  # a new stage
    assert steps("a", step) == "result" and len(calls) == 10 and not steps._recorded


def test_a_failure_is_told_once_and_the_same_data_are_used(cuda, feed):
    said, calls = [], []
    steps = graph.StepGraphs(feed, 1, said.append)

    def step():
        calls.append(feed(1).item())
        if cuda.events and cuda.events[-1][0] == "record":
            raise RuntimeError("operation would make the stream wait\nand more")
        return calls[-1]

    assert [steps("a", step) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert calls == [0, 1, 2, 3, 3, 4, 5]  # the fourth was tried twice
    assert [event for event in cuda.events if event in ("stream", "state", "replay")] == ["stream", "state"]
    assert said == [
        "the training step could not be recorded as a CUDA graph (operation would make the stream wait); it goes on "
        "without, with the same results, but more slowly"
    ]


def test_other_errors_are_not_hidden(cuda, feed):
    steps = graph.StepGraphs(feed, 1, pytest.fail)

    def step():
        if cuda.events and cuda.events[-1][0] == "record":
            raise ValueError("a mistake")

    for _ in range(3):
        steps("a", step)
    with pytest.raises(ValueError, match="a mistake"):
        steps("a", step)
