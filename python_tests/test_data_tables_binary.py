"""Parquet and NumPy files come out as the numbers that were written, and bad ones are named by column and row."""

import numpy as np
import pytest
from written_tables import everything, write_parquet

from led_fast.data.tables import read_table
from led_fast.errors import InputError


def test_parquet_of_every_number_type(tmp_path):
    query = "SELECT 1::TINYINT a, 2::UBIGINT b, 0.1::FLOAT c, 0.1::DOUBLE d, true e, 1.25::DECIMAL(9,2) f, 7::HUGEINT g"
    table = read_table(write_parquet(tmp_path / "t.parquet", query))
    assert table.dtypes == ("int", "int", "float", "float", "bool", "float", "float")
    assert everything(table).tolist() == [[1, 2, float(np.float32(0.1)), 0.1, 1, 1.25, 7]]


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "i2", "u8", "?"])
def test_npy(tmp_path, dtype, order):
    values = np.asarray(np.arange(12).reshape(4, 3) % 5, dtype=dtype, order=order)
    np.save(tmp_path / "t.npy", values)
    table = read_table(tmp_path / "t.npy", ignore=["x2"])
    assert isinstance(table.values, np.memmap)
    np.testing.assert_array_equal(everything(table), values[:, [0, 2]].astype(np.float64))
    assert table.names == ("x1", "x3")
    assert table.dtypes[0] == {"f": "float", "i": "int", "u": "int", "b": "bool"}[np.dtype(dtype).kind]
    assert table.labels["x2"].take(slice(None)) == [str(v) for v in values[:, 1].tolist()]


def test_a_flat_array_is_one_column(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(5.0))
    assert everything(read_table(tmp_path / "t.npy")).tolist() == [[0], [1], [2], [3], [4]]


def test_missing_values_of_other_files(tmp_path):
    query = "FROM (VALUES (1.5::DOUBLE, 2, 'u'), ('nan'::DOUBLE, 3, 'v'), (2.5, NULL, 'w'), (4, 5, 'z')) t(a, b, k)"
    write_parquet(tmp_path / "t.parquet", query)
    np.save(tmp_path / "t.npy", np.array([[1.5, 2, 0], [np.nan, 3, 1], [2.5, np.nan, 2], [4, 5, 3]]))
    for name, first, label, kept in (
        ("t.parquet", "a", "k", ["u", "z"]),
        ("t.npy", "x1", "x3", ["0.0", "3.0"]),
    ):
        with pytest.raises(
            InputError, match=f"column '{first}', row 2: the value is missing, as in 2 of 4 rows"
        ):
            read_table(tmp_path / name, ignore=[label])
        table = read_table(tmp_path / name, ignore=[label], drop_missing=True)
        assert everything(table).tolist() == [[1.5, 2], [4, 5]]
        assert table.labels[label].take(slice(None)) == kept


@pytest.mark.parametrize(
    "value, kind",
    [
        ("'x'", "VARCHAR"),
        ("DATE '2020-01-02'", "DATE"),
        ("TIMESTAMP '2020-01-02 03:04:05'", "TIMESTAMP"),
        ("[1, 2]", "INTEGER[]"),
    ],
)
def test_other_types_of_parquet(tmp_path, value, kind):
    write_parquet(tmp_path / "t.parquet", f"SELECT 1 AS a, NULL AS b UNION ALL SELECT 2, {value}")
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.parquet")
    assert "column 'b', row 2" in str(caught.value)
    assert f"not a number but {kind}" in str(caught.value) and "--ignore b" in str(caught.value)


def test_infinities_of_an_array(tmp_path):
    np.save(tmp_path / "t.npy", np.array([[1, 2], [3, -np.inf]]))
    with pytest.raises(InputError, match="column 'x2', row 2: -inf is not finite"):
        read_table(tmp_path / "t.npy")


@pytest.mark.parametrize("values, wanted", [
    (np.ones((2, 2), dtype=complex), "real numbers"),
    (np.ones((2, 2), dtype="U3"), "real numbers"),
    (np.ones(3, dtype=[("a", "f8")]), "real numbers"),
    (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
    (np.ones((0, 2)), "no rows"),
    (np.array([[None, 1]], dtype=object), "not a readable"),
])  # fmt: skip
def test_other_arrays(tmp_path, values, wanted):
    np.save(tmp_path / "t.npy", values)
    with pytest.raises(InputError, match=wanted):
        read_table(tmp_path / "t.npy")


def test_nan_that_the_statistics_of_parquet_leave_out(tmp_path):
    """pandas and pyarrow write such files; duckdb then answers isnan by the statistics, that there is none."""
    import pandas

    for dtype in ("float64", "float32"):
        frame = pandas.DataFrame({"a": np.array([np.nan, 1, 2], dtype), "b": np.array([3, 4, np.inf], dtype)})
        frame.to_parquet(tmp_path / "t.parquet")
        with pytest.raises(InputError, match="column 'b', row 3: inf is not finite"):
            read_table(tmp_path / "t.parquet")
        frame["b"] = frame["a"][::-1].to_numpy()
        frame.to_parquet(tmp_path / "t.parquet")
        with pytest.raises(InputError, match="column 'a', row 1: the value is missing, as in 2 of 3 rows"):
            read_table(tmp_path / "t.parquet")
        assert everything(read_table(tmp_path / "t.parquet", drop_missing=True)).tolist() == [[1, 1]]


@pytest.mark.parametrize("query, wanted", [
    ("SELECT 1.5 AS b, 'x' AS row", "column 'row', row 1: 'x' is not a number but VARCHAR"),
    (f"SELECT 1.5 AS b, {2**53 + 1} AS row", f"column 'row', row 1: {2**53 + 1} has more digits"),
    ("SELECT 1.5 AS b, NULL::VARCHAR AS a", "all values of column a are missing; leave out with --ignore a"),
    ("SELECT 1.5 AS b, 2.5 AS c1, 'x' AS c0", "column 'c0', row 1: 'x'"),
])  # fmt: skip
def test_names_of_parquet_are_no_sql(tmp_path, query, wanted):
    with pytest.raises(InputError) as caught:
        read_table(write_parquet(tmp_path / "t.parquet", query))
    assert wanted in str(caught.value)


def test_notes_of_pandas_that_are_damaged(tmp_path):
    import pyarrow
    from pyarrow import parquet

    for notes in (b"{", b"[]", b'{"index_columns": 3}', b"[" * 100_000):
        table = pyarrow.table({"a": [1.5, 2.5]}).replace_schema_metadata({"pandas": notes})
        parquet.write_table(table, tmp_path / "t.parquet")
        assert read_table(tmp_path / "t.parquet").names == ("a",)


@pytest.mark.parametrize("dtype", ["m8[s]", "M8[s]"])
def test_times_are_no_numbers(tmp_path, dtype):
    np.save(tmp_path / "t.npy", np.zeros((3, 2), dtype))
    with pytest.raises(InputError, match="real numbers"):
        read_table(tmp_path / "t.npy")
