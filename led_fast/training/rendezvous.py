"""How the processes of a run find each other: by the environment that `torchrun` sets, or that is set by hand."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from led_fast.errors import InputError
from led_fast.terminal import console, say

_QUIET = 5.0  # seconds of waiting before it is said for whom
_LOOK_EVERY = 0.1


class PeerLostError(RuntimeError):
    """Another process of the run has died or cannot be reached; this one cannot go on without it."""


@dataclass(frozen=True)
class Place:
    """A process's place among those of a run.

    Attributes:
        rank: its number.
        size: of all, two at least.
        local_rank: its number on this machine, None where that is unknown.
        host: where process 0 is.
        port: at which the others find it.
        hosted: whether somebody else, torchrun, listens there.
        attempt: how often torchrun has started the run again.
    """

    rank: int
    size: int
    local_rank: int | None
    host: str
    port: int
    hosted: bool
    attempt: str


def place() -> Place | None:
    """This process's place, None where it is the only one.

    Raises:
        InputError: the environment makes no sense.
    """
    size = _number("WORLD_SIZE", 1, 2**20, 1)
    if size == 1:
        return None
    host = os.environ.get("MASTER_ADDR", "")
    if not host:
        raise InputError(_wrong("MASTER_ADDR", "the host of process 0", os.environ.get("MASTER_ADDR")))
    return Place(
        rank=_number("RANK", 0, size - 1),
        size=size,
        local_rank=_number("LOCAL_RANK", 0, size - 1) if "LOCAL_RANK" in os.environ else None,
        host=host,
        port=_number("MASTER_PORT", 1, 2**16 - 1),
        hosted=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def meet(here: Place, minutes: float) -> dist.Store:
    """Waits until all processes are there; returns what they share.

    Raises:
        InputError: the port is in use, or two processes have one number.
        PeerLostError: one does not come in time.
    """
    wait = _Wait(here, minutes)
    listens = here.rank == 0 and not here.hosted
    if not listens:
        wait.until(lambda: _is_open(here.host, here.port), lambda: "process 0")
    store = dist.PrefixStore(f"led_fast/{here.attempt}", _connected(here, listens, minutes))
    if store.add(f"came/{here.rank}", 1) > 1:
        raise InputError(f"RANK: another process of this run is number {here.rank}, too")

    def missing() -> list[int]:
        return [rank for rank in range(here.size) if not store.check([f"came/{rank}"])]

    wait.until(lambda: not missing(), lambda: _named(missing()))
    return store


def _connected(here: Place, listens: bool, minutes: float) -> dist.Store:
    host = "localhost" if listens else here.host
    limit = timedelta(minutes=minutes)
    found: list[dist.Store | Exception] = []

    def connect() -> None:
        try:
            found.append(dist.TCPStore(host, here.port, None, listens, limit, wait_for_workers=False))
        except Exception as error:
            found.append(error)

    # Of its own, because torch waits forever for the answer of a server of another kind.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(limit.total_seconds() + _QUIET)
    store = found[0] if found else None
    if isinstance(store, dist.Store):
        return store
    if listens and "EADDRINUSE" in str(store):
        raise InputError(f"MASTER_PORT: {here.port} is in use on this machine: choose another one")
    raise PeerLostError(f"process 0: what listens at {here.host}:{here.port} is something else")


class _Wait:
    """Waits, says for whom where it takes long, and ends."""

    def __init__(self, here: Place, minutes: float) -> None:
        self._here, self._minutes = here, minutes
        self._began, self._said = time.monotonic(), False

    def until(self, come: Callable[[], bool], whom: Callable[[], str]) -> None:
        while not come():
            waited = time.monotonic() - self._began
            about = f"{whom()} of {self._here.size} at {self._here.host}:{self._here.port}"
            if waited > 60 * self._minutes:
                raise PeerLostError(f"{about} did not come within {self._minutes:g} minutes")
            if waited > _QUIET and not self._said:
                self._said = True
                say(
                    console(stderr=True),
                    f"led-fast: process {self._here.rank} waits for {about}, {self._minutes:g} minutes at most; "
                    "without WORLD_SIZE it would train alone",
                )
            time.sleep(_LOOK_EVERY)


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:  # also where the name is not known yet
        return False
    return True


def _named(ranks: list[int]) -> str:
    return f"process{'es' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _number(name: str, least: int, most: int, missing: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and missing is not None:
        return missing
    try:
        value = int(text or "")
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise InputError(_wrong(name, f"a number from {least} to {most}", text))
    return value


def _wrong(name: str, wanted: str, got: str | None) -> str:
    found = "and it is not set" if got is None else f"got {got!r}"
    return f"{name}: want {wanted} in the environment, {found}; torchrun sets it, and without WORLD_SIZE one trains"
