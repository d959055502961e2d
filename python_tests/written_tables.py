"""Files of tables for tests: written as given, read, refused."""

import duckdb
import pytest

from led_fast.errors import InputError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def everything(table):
    return table.take(slice(0, len(table)))


def write_parquet(path, query):
    duckdb.connect().execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


def refused(read, content, *wanted, name="t.csv", **options):
    with pytest.raises(InputError) as caught:
        read(content, name, **options)
    message = str(caught.value)
    assert name in message
    for part in wanted:
        assert part in message
    return message
