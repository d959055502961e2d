"""Memory does not grow with the rows: measured in processes of their own."""

import os
import subprocess
import sys

import pytest

from led_fast.data.tables.engine import connect

READ = """
import resource, sys
from led_fast.data.tables import TableSource, read_table

TableSource(sys.argv[1], read_table(sys.argv[1], ["k"])).sample(1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def table(path, rows, columns=10):
    """A file of ten columns, three of them discrete, and a label."""
    numbers = ", ".join(
        f"hash(i * 10 + {j})::DOUBLE / 1e17 AS a{j}" if j < 7 else f"hash(i * 10 + {j}) % 20 AS a{j}"
        for j in range(columns)
    )
    options = "FORMAT parquet" if path.suffix == ".parquet" else "HEADER"
    query = f"SELECT {numbers}, 'k' || (i % 3) AS k FROM range({rows}) r(i)"
    with connect(path.parent) as connection:
        connection.execute(f"COPY ({query}) TO '{path}' ({options})")
    (path.parent / "table.duckdb").unlink()
    return path


def peak(path):
    """Bytes that a process holds at most which reads a file and draws from it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(path.parent)}
    done = subprocess.run(
        [sys.executable, "-c", READ, path],
        env=environment,
        cwd=path.parent,  # where no folder of sources is imported
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_is_bounded(tmp_path, suffix):
    """Another 900,000 rows add at most the mapped file (80 bytes a row) and an index (5), and little else."""
    small = peak(table(tmp_path / f"small{suffix}", 300_000))
    large = peak(table(tmp_path / f"large{suffix}", 1_200_000))
    assert large - small < 900_000 * 160


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ten_million_rows_within_four_gibibytes(tmp_path, suffix):
    assert peak(table(tmp_path / f"t{suffix}", 10_000_000)) < 2 * 2**30  # half of what is promised
