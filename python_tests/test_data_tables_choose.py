"""Which columns of a file are a table's, by which names."""

import numpy as np
import pandas as pd
import pytest
from written_tables import everything, refused, write, write_parquet

from led_fast.data.tables import column_names, read_table
from led_fast.errors import InputError


@pytest.fixture
def read(tmp_path):
    """Reads a text given as content: read(content, name=…, **options)."""
    return lambda content, name="t.csv", **options: read_table(write(tmp_path / name, content), **options)


def test_columns_are_found_by_name(read):
    table = read("b,c,a\n1,x,3\n4,y,6\n", columns=["a", "b"])
    assert table.names == ("a", "b") and everything(table).tolist() == [[3, 1], [6, 4]]
    assert any("passed over" in note and "c" in note for note in table.notes)
    message = refused(read, "b,c,a\n1,x,3\n", "d, e", "b, c, a", columns=["a", "d", "e"])
    assert "lacks the columns" in message
    refused(read, "b,a\n1,3\n", "lacks the column a", columns=["a", "b"], ignore=["a"])


def test_columns_by_position_without_a_header(read, tmp_path):
    assert read("1,2\n3,4\n", columns=["a", "b"]).names == ("a", "b")
    assert read("z,1,2\ny,3,4\n", columns=["a", "b"], ignore=["x1"]).names == ("a", "b")
    assert read("z,1,2\ny,3,4\n", columns=["x2", "x3"]).names == ("x2", "x3")
    refused(read, "1,2,3\n3,4,5\n", "no header and 3 columns", "2 columns a, b", columns=["a", "b"])
    np.save(tmp_path / "t.npy", np.ones((3, 2)))
    assert read_table(tmp_path / "t.npy", columns=["a", "b"]).names == ("a", "b")
    with pytest.raises(InputError, match="want the 3 columns a, b, c"):
        read_table(tmp_path / "t.npy", columns=["a", "b", "c"])


def test_labels(read):
    table = read("a,k,n\n1,u,3.0\n2,,4.0\n3,u,3.0\n", ignore=["k", "n", "k"])
    assert table.names == ("a",)
    assert table.labels["k"].take(slice(None)) == ["u", "", "u"]
    assert table.labels["k"].equal("u").tolist() == [True, False, True]
    assert table.labels["n"].equal("3", np.array([1, 2])).tolist() == [False, True]
    with pytest.raises(InputError, match=r"column 'k': want one of its values, '', 'u'.*, got 'w'"):
        table.labels["k"].equal("w")


def test_an_identifier_is_no_label(read):
    table = read("a,id\n" + "".join(f"{i % 7},r{i}\n" for i in range(70_000)), ignore=["id"])
    assert table.labels == {} and any("column id has more than" in note for note in table.notes)


# ---- names alone


@pytest.mark.parametrize("name", ["t.csv", "t.npy", "t.parquet"])
def test_names_come_without_the_values(tmp_path, name):
    """What the values are does not matter yet: a text, a missing one."""
    path = tmp_path / name
    if name == "t.npy":
        np.save(path, np.array([[1.0, np.nan, 3.0]]))
    elif name == "t.parquet":
        write_parquet(path, "SELECT 1 AS x1, NULL AS x2, 'text' AS x3")
    else:
        write(path, "x1,x2,x3\n1,,text\n2,3,more\n")
    assert column_names(path) == ("x1", "x2", "x3")


@pytest.mark.parametrize("content, message", [("", "is empty"), ("a,a\n1,2\n", "'a'")])
def test_names_are_those_of_a_table(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        column_names(write(tmp_path / "t.csv", content))


# ---- frames in .parquet files


def test_a_frames_index_is_no_column(tmp_path):
    frame = pd.DataFrame({"x": [0.5, 1.5, 2.5], "y": [3, 4, 6]})
    for index, left_out in (
        (None, ()),
        ([7, 9, 8], ("__index_level_0__",)),
        (pd.Index([1, 2, 9], name="id"), ("id",)),
    ):
        framed = frame if index is None else frame.set_axis(index)
        framed.to_parquet(tmp_path / "t.parquet")
        table = read_table(tmp_path / "t.parquet")
        assert table.names == column_names(tmp_path / "t.parquet") == ("x", "y")
        assert np.array_equal(everything(table), frame.to_numpy())
        assert len(table.notes) == len(left_out) and all(name in table.notes[0] for name in left_out)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_names_that_differ_by_case_alone_stay_apart(tmp_path, suffix):
    frame = pd.DataFrame({"A": [0.5, 1.5], "a": [3.0, 4.0], "b": [5.0, 6.0], "a_1": [7.0, 8.0]})
    path = tmp_path / f"t{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    assert read_table(path).names == tuple(frame.columns)
    assert np.array_equal(everything(read_table(path, columns=["a", "A", "a_1"])), frame[["a", "A", "a_1"]])
