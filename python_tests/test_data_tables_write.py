"""Rows are written as their table has them: names, order and types; a file is replaced at once or not at all."""

import csv
import io

import duckdb
import numpy as np
import pytest

from led_fast.data.tables import Column, Constant, check_suffix, describe, read_table, table_of, write_table
from led_fast.errors import InputError

NAMES = ("größe", "n", 'a "b", c', "fixed", "tenths", "flag", "whole")
COLUMNS = (
    Column("größe", 0, "float", 0.0, 0.0, 0, -3.0, 3.0, None),
    Column("n", 1, "int", 1.0, 0.0, 0, 0.0, 4.0, 5),
    Column('a "b", c', 2, "float", 2.0, 1.0, 0, 1.0, 9.0, 5),
    Column("tenths", 4, "float", 0.1, -0.2, 1, -0.2, 0.7, 10),
    Column("flag", 5, "bool", 1.0, 0.0, 0, 0.0, 1.0, 2),
    Column("whole", 6, "int", 0.0, 0.0, 0, 0.0, 1e9, None),
)
CONSTANTS = (Constant("fixed", 3, "int", 12.0),)
DRAWN = np.array(
    [
        [0.1 + 0.2, 1.4, 2.9, 0.349, 0.4, 123456.6],
        [-1e-300, -0.3, 8.1, -0.06, 0.6, -2.2],
        [1 / 3, 3.6, 5.0, 0.1 * 3, 1.3, 2.0**40 + 0.2],
    ]
)
WANTED = np.array(
    [
        [0.1 + 0.2, 1, 3, 12, 0.3, 0, 123457],
        [-1e-300, 0, 9, 12, -0.1, 1, -2],
        [1 / 3, 4, 5, 12, 0.3, 1, 2**40],
    ]
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_what_is_written_reads_back(tmp_path, suffix):
    path = tmp_path / f"it's{suffix}"
    write_table(path, COLUMNS, DRAWN, CONSTANTS)
    table = read_table(path)
    assert table.names == NAMES
    assert table.dtypes == ("float", "int", "float", "int", "float", "bool", "int")
    np.testing.assert_array_equal(table.take(slice(None)), WANTED)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_csv_is_plain(capsys):
    write_table(None, COLUMNS, DRAWN, CONSTANTS)
    text = capsys.readouterr().out
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        ["0.30000000000000004", "1", "3.0", "12", "0.3", "false", "123457"],
        ["-1e-300", "0", "9.0", "12", "-0.1", "true", "-2"],
        ["0.3333333333333333", "4", "5.0", "12", "0.3", "true", "1099511627776"],
    ]


def test_types_of_parquet(tmp_path):
    write_table(tmp_path / "t.parquet", COLUMNS, DRAWN, CONSTANTS)
    kinds = duckdb.connect().execute(f"DESCRIBE SELECT * FROM '{tmp_path}/t.parquet'").fetchall()
    assert [kind[1] for kind in kinds] == [
        "DOUBLE",
        "BIGINT",
        "DOUBLE",
        "BIGINT",
        "DOUBLE",
        "BOOLEAN",
        "BIGINT",
    ]


def test_npy(tmp_path):
    write_table(tmp_path / "t.npy", COLUMNS, DRAWN, CONSTANTS)
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), WANTED)
    write_table(tmp_path / "n.npy", COLUMNS[1:2], DRAWN[:, 1:2], CONSTANTS)
    assert np.load(tmp_path / "n.npy").dtype == np.int64
    write_table(tmp_path / "b.npy", COLUMNS[4:5], DRAWN[:, 4:5])
    assert np.load(tmp_path / "b.npy").tolist() == [[False], [True], [True]]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".npy"])
def test_a_table_described_and_written_is_the_table(tmp_path, suffix):
    rng = np.random.default_rng(0)
    values = np.stack(
        [
            rng.standard_normal(500),
            np.full(500, 0.1),
            rng.integers(-9, 9, 500) * 0.01,
            rng.integers(0, 2, 500),
        ],
        1,
    )
    columns, constants, _ = describe(table_of(values))
    noisy = values[:, [c.position for c in columns]]
    noisy = noisy + rng.uniform(-0.49, 0.49, noisy.shape) * [c.step for c in columns]
    write_table(tmp_path / f"t{suffix}", columns, noisy, constants)
    np.testing.assert_array_equal(read_table(tmp_path / f"t{suffix}").take(slice(None)), values + 0.0)


def test_no_rows(tmp_path, capsys):
    write_table(None, COLUMNS[:2], np.empty((0, 2)))
    assert capsys.readouterr().out == "größe,n\n"
    write_table(tmp_path / "t.parquet", COLUMNS[:2], np.empty((0, 2)))
    assert duckdb.connect().execute(f"SELECT count(*) FROM '{tmp_path}/t.parquet'").fetchall() == [(0,)]


def test_bad_places(tmp_path):
    with pytest.raises(
        InputError, match=r"want a .csv, .tsv, .parquet or .npy file to write, got suffix '.xlsx'"
    ):
        check_suffix(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match="no folder"):
        write_table(tmp_path / "none" / "t.csv", COLUMNS, DRAWN)
    with pytest.raises(ValueError, match=r"values must have shape \(n, 6\), got \(3, 2\)"):
        write_table(tmp_path / "t.csv", COLUMNS, DRAWN[:, :2])


def test_a_file_is_replaced_at_once(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("before")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_table(path, COLUMNS, DRAWN)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1
