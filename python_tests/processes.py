"""Processes that tests start, none of which outlives its test."""

import time


def join_all(processes, seconds=300):
    """The exit codes of all; a process that is late is killed, because pytest would wait for it at its own end."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(timeout=max(0.0, end - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
