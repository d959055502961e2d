"""Files of any dialect come out as the numbers that were written, and bad ones are named by column and row."""

import csv
import datetime
import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_tables import everything, refused, write, write_parquet

from led_fast.data.tables import read_table
from led_fast.errors import InputError


@pytest.fixture
def read(tmp_path):
    """Reads a text given as content: read(content, name=…, **options)."""
    return lambda content, name="t.csv", **options: read_table(write(tmp_path / name, content), **options)


# ---- dialects

floats = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def files(draw):
    """(bytes, suffix, values, names or None): a table as some program may have written it."""
    width = draw(st.integers(1, 5))
    rows = draw(st.integers(1, 12))
    values = np.array(
        draw(st.lists(st.lists(floats, min_size=width, max_size=width), min_size=rows, max_size=rows))
    )
    separator = draw(st.sampled_from(",;\t|"))
    decimal = draw(st.sampled_from(".,")) if separator in ";\t" and width > 1 else "."
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"]))
    names = [
        f"{word}{i}"
        for i, word in enumerate(
            draw(st.lists(st.sampled_from(["größe", "x y", "T.1", "é"]), min_size=width, max_size=width))
        )
    ]
    names = names if draw(st.booleans()) else None
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=separator, quoting=quoting, lineterminator=draw(st.sampled_from(["\n", "\r\n"]))
    )
    if names:
        writer.writerow(names)
    writer.writerows([[repr(float(v)).replace(".", decimal) for v in row] for row in values])
    return text.getvalue().encode(encoding), draw(st.sampled_from([".csv", ".tsv", ".csv.gz"])), values, names


@settings(max_examples=60, deadline=None, derandomize=True)
@given(files())
def test_any_dialect_reads_back_exactly(file):
    content, suffix, values, names = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{suffix}"
        path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
        table = read_table(path)
    np.testing.assert_array_equal(everything(table), values)
    assert table.names == tuple(names or (f"x{i + 1}" for i in range(values.shape[1])))
    assert table.header == (names is not None)
    assert set(table.dtypes) == {"float"}


def test_the_standard_files_of_two_programs(tmp_path):
    import pandas

    frame = pandas.DataFrame(
        {"a": [1, 2, 3], "b": [0.5, 0.25, -3e-9], "c": [True, False, True], "d": ["u", "v", "u"]}
    )
    frame.to_csv(tmp_path / "p.csv", index=False)
    frame.to_parquet(tmp_path / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        table = read_table(tmp_path / name, ignore=["d"])
        np.testing.assert_array_equal(everything(table), frame[["a", "b", "c"]].to_numpy(np.float64))
        assert table.dtypes == ("int", "float", "bool")
        assert table.labels["d"].take(slice(None)) == ["u", "v", "u"]
    np.savetxt(tmp_path / "n.csv", frame[["a", "b"]], delimiter=",", header="a,b", comments="")
    np.testing.assert_array_equal(
        everything(read_table(tmp_path / "n.csv")), frame[["a", "b"]].to_numpy(np.float64)
    )


def test_utf_16_without_a_mark_and_late_latin_1(read):
    assert read("größe,b\n1,2\n".encode("utf-16-le")).names == ("größe", "b")
    late = ("a,b\n" + "1,2\n" * 300_000).encode() + "3,é\n".encode("latin-1")  # beyond the first block
    table = read(late, ignore=["b"])
    assert len(table) == 300_001
    assert table.labels["b"].categories == ("2", "é")
    assert any("cp1252" in note for note in table.notes)


def test_numbers_above_columns(read):
    """What looks like a number may be a name; whatever is decided is said."""
    table = read("0,1,2,3\n5,6,7,8\n1,1,1,1\n")  # pandas, without names of columns
    assert table.names == ("0", "1", "2", "3") and len(table) == 2
    assert any("header" in note for note in table.notes)
    table = read("id,2019,2020\n1,5,6\n2,7,8\n")
    assert table.names == ("id", "2019", "2020") and any("'2019'" in note for note in table.notes)
    table = read("2019,2020\n1.5,2\n")
    assert (
        len(table) == 2
        and table.names == ("x1", "x2")
        and any("not a header" in note for note in table.notes)
    )
    table = read("0,1\n1,0\n2,1\n")  # small integers are data
    assert len(table) == 3


def test_labels_beside_numbers_are_no_header(read):
    table = read("T,2,8\nI,5,12\nT,1,1\n", ignore=["x1"])
    assert len(table) == 3 and table.labels["x1"].take(np.array([2, 1])) == ["T", "I"]


def test_a_column_without_a_name(read):
    table = read(",a\n0,1.5\n1,2.5\n")
    assert table.names == ("x1", "a") and any("no name" in note for note in table.notes)


@pytest.mark.parametrize("content", ["a;b\n1,234;2\n", "a\tb\n1,25\t2\n", 'a,b\n"1,25","2,0"\n'])
def test_decimal_comma(read, content):
    table = read(content)
    assert everything(table)[0, 0] in (1.234, 1.25) and everything(table)[0, 1] == 2
    assert any("decimal comma" in note for note in table.notes)


@pytest.mark.parametrize("value", ["1.234,5", "1,234.5", "1_000", "1 000", "0x10", "1,234"])
def test_thousands_are_left_alone(read, value):
    refused(read, f'a,b\n"{value}",2\n3,4.5\n', "column 'a'", "row 1", repr(value), "--ignore a")


def test_a_thousand_is_no_decimal_comma(read):
    refused(read, 'a,b\n"1,234",2\n"5,678",3\n', "column 'a'", "row 1", "'1,234'")
    refused(read, "1,5\n3,4\n" * 50 + "4\n", "line 101: want 2 fields, got 1")  # nor one column of fractions


def test_patterns_in_a_path_are_plain_characters(tmp_path):
    folder = tmp_path / "x=1" / "it's [1]"
    folder.mkdir(parents=True)
    write(folder / "a*.csv", "a,b\n1,2\n")
    write(folder / "ab.csv", "a,b\n3,4\n5,6\n")
    assert everything(read_table(folder / "a*.csv")).tolist() == [[1, 2]]
    write_parquet(tmp_path / "q.parquet", "SELECT 1 AS a").rename(folder / "p[1].parquet")
    assert read_table(folder / "p[1].parquet").names == ("a",)


def test_types_are_those_written(read):
    table = read("i,f,w,t,m\n1,1.5,2.0,True,1\n-2,2,3.0,false,2.5\n")
    assert table.dtypes == ("int", "float", "float", "bool", "float")
    assert everything(table).tolist() == [[1, 1.5, 2, 1, 1], [-2, 2, 3, 0, 2.5]]
    assert read("a\n" + "1\n" * 20_000 + "0.5\n").dtypes == ("float",)  # beyond the rows looked at


# ---- missing values


@pytest.mark.parametrize("gap", ["", "NA", "NaN", "nan", "null", "NULL", "None", "N/A", '""', " "])
def test_missing_values(read, gap):
    content = f"a,b,k\n1,2,\n3,{gap},u\n{gap},6,v\n7,8,w\n"
    refused(read, content, "column 'b', row 2", "2 of 4 rows", "--drop-missing", "--ignore b", ignore=["k"])
    table = read(content, ignore=["k"], drop_missing=True)
    assert everything(table).tolist() == [[1, 2], [7, 8]]
    assert table.labels["k"].take(slice(None)) == ["", "w"]
    assert table.dtypes == ("int", "int") and any("left out 2 of 4 rows" in note for note in table.notes)


def test_nothing_left(read, tmp_path):
    refused(read, "a,b\n1,\n,2\n", "nothing is left", drop_missing=True)
    refused(read, "a,b\n1,\n3,NA\n", "all values of column b are missing", "--ignore b", drop_missing=True)
    np.save(tmp_path / "t.npy", np.array([[1, np.nan], [2, np.nan]]))
    with pytest.raises(InputError, match="all values of column x2 are missing"):
        read_table(tmp_path / "t.npy")


# ---- what cannot be used


def test_text_in_a_column(read):
    refused(
        read,
        "a,class,when\n1,x y,2020-01-02\n",
        "column 'class', row 1: 'x y'",
        "--ignore class --ignore when",
    )
    refused(
        read,
        "a,b\n" + "1,2\n" * 50_000 + "3,?\n" + "1,2\n" * 50_000,
        "column 'b', row 50001: '?' is not a number",
    )
    refused(read, "a,b\n1,2\ntrue,3\n", "column 'a', row 2: 'true'")


@pytest.mark.parametrize("value", ["inf", "-inf", "Infinity", "1e400"])
def test_infinities(read, value):
    refused(read, f"a,b\n1,2\n3,{value}\n", f"column 'b', row 2: {value} is not finite")


def test_integers_that_float64_rounds(read, tmp_path):
    for number in (2**53 + 1, -(2**53) - 1, 10**40 + 1):
        refused(read, f"a,b\n1,2\n3,{number}\n", f"column 'b', row 2: {number} has more digits", "--ignore b")
    assert everything(read(f"a,b\n1,{2**53}\n3,{2**60}\n"))[:, 1].tolist() == [2.0**53, 2.0**60]
    np.save(tmp_path / "t.npy", np.array([[1, 2], [3, 2**53 + 1]]))
    write_parquet(tmp_path / "t.parquet", f"SELECT 1 AS x1, 2 AS x2 UNION ALL SELECT 3, {2**53 + 1}")
    for name in ("t.npy", "t.parquet"):
        with pytest.raises(InputError, match=f"column 'x2', row 2: {2**53 + 1} has more digits"):
            read_table(tmp_path / name)


def test_duplicate_names(read, tmp_path):
    refused(read, "a,b,a\n1,2,3\n", "columns 1 and 3 are both called 'a'")
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="columns 1 and 2 are both called 'a'"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("content, wanted", [
    ("a,b\n1,2\n3\n4,5\n", "line 3: want 2 fields, got 1"),
    ("a,b\n1,2\n3,4,5\n4,5\n", "line 3: want 2 fields, got 3"),
    ("a,b\n" + "1,2\n" * 30_000 + "7\n", "line 30002: want 2 fields, got 1"),
    ("a;b\n1,5;2,5\n3,5\n", "line 3: want 2 fields, got 1"),
    ("1,5\n2\n3,5\n", "line 2: want 2 fields, got 1"),  # not one column of decimal commas
    ("My table\n\na,b\n1,2\n", "'a,b' is not a number, and neither"),
    ("", "is empty"),
    ("a,b\n", "holds no rows"),
    ("\n\n", "is empty"),
    (bytes(range(256)) * 64, "is not text"),
    ("It was a dark, stormy night.\nThe end.\n", "line 2"),
    ("1:2\n3:4\n", "'1:2' is not a number, and neither , ; | nor tabs or blanks split the lines alike"),
])  # fmt: skip
def test_what_is_no_table(read, content, wanted):
    refused(read, content, wanted)


@pytest.mark.parametrize("name, content, wanted", [
    ("t.parquet", b"PAR1 but not really", "not a readable .parquet file"),
    ("t.npy", b"\x93NUMPY\x01\x00", "not a readable .npy array"),
    ("t.npy", b"a,b\n1,2\n", "not a readable .npy array"),
    ("t.csv.gz", b"\x1f\x8ba,b\n1,2\n", "cannot be read"),
    ("t.xlsx", b"PK", "save the sheet as .csv"),
    ("t.txt", b"1,2\n", "want a .csv, .csv.gz, .tsv, .tsv.gz, .parquet or .npy file, got suffix '.txt'"),
])  # fmt: skip
def test_files_of_other_kinds(read, name, content, wanted):
    refused(read, content, wanted, name=name)


def test_places_that_are_no_files(tmp_path):
    (tmp_path / "d.csv").mkdir()
    for name, wanted in (("d.csv", "is a folder"), ("e.csv", "no such file"), ("e", "got suffix ''")):
        with pytest.raises(InputError, match=wanted):
            read_table(tmp_path / name)


def test_ignored_names(read):
    refused(read, "a,b\n1,2\n", "no column 'c' to ignore; its columns are a, b", ignore=["c"])
    refused(read, "a,b\n1,2\n", "all columns are ignored", ignore=["a", "b"])


def test_one_row_is_a_table_to_score(read):
    assert everything(read("a,b\n1,2\n")).tolist() == [[1, 2]]


def test_temporary_files_go(read, tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    table = read("größe,b\n1,2\n".encode("utf-16"), name="t.csv")
    assert list(place.iterdir()) == [] and sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "tmp"]
    assert everything(table).tolist() == [[1, 2]]
    refused(read, "a,b\n1,x\n", "'x'")
    assert list(place.iterdir()) == []


def test_the_time_is_no_number(tmp_path):
    import pandas

    frame = pandas.DataFrame({"a": [1.0], "t": [datetime.datetime(2020, 1, 2)]})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'2020-01-02 00:00:00' is not a number but TIMESTAMP"):
        read_table(tmp_path / "t.parquet")


# ---- as people have them


@pytest.mark.parametrize("content, names, note", [
    ("1.5e+00 2.000000000000000000e+00\n3.5e+00 4.0e+00\n", ("x1", "x2"), "blanks separate"),  # numpy.savetxt
    ("# a b\n1.5 2\n3.5 4\n", ("a", "b"), "blanks separate"),
    ("  a      b\n  1.5    2\n  3.5  4 \n", ("a", "b"), "blanks separate"),
    ("# a,b\n1.5,2\n3.5,4\n", ("a", "b"), None),
    ("sep=;\r\na;b\r\n1,5;2\r\n3,5;4\r\n", ("a", "b"), "decimal comma"),  # Excel
    ("\ufeffsep=|\na|b\n1.5|2\n3.5|4\n", ("a", "b"), None),
    ("a,b\r\n1.5,2\n3.5,4\r\n", ("a", "b"), None),
    ("a,b\n1.5,2\r3.5,4", ("a", "b"), None),
    ("a,b\r1.5,2\r3.5,4\r", ("a", "b"), None),
    ("\n \t\n\na,b\n1.5,2\n3.5,4\n", ("a", "b"), None),
    ("x2,,\n1.5,2,0\n3.5,4,0\n", ("x2", "x2_", "x3"), "2 columns have no names and are called x2_, x3"),
    ('"a";"b"\n"1.5";"2"\n"3.5";"4"\n', ("a", "b"), None),
    ("\ufeff\"a\",\"b\"\n1.5,2\n3.5,4\n", ("a", "b"), None),
    ("a,b\n1.5,2,\n3.5,4,\n", ("a", "b"), None),  # a separator too many at the ends of rows
])  # fmt: skip
def test_texts_as_programs_write_them(read, content, names, note):
    table = read(content)
    assert table.names == names
    assert everything(table)[:, :2].tolist() == [[1.5, 2], [3.5, 4]]
    assert note is None or any(note in said for said in table.notes)


def test_blanks_do_not_hide_uneven_lines(read):
    refused(read, "a b\n1 2\n3 4\n\n5 6 7\n", "line 5: want 2 fields, got 3")
    assert read("a,k\n1,u v\n2,w z\n", ignore=["k"]).labels["k"].categories == ("u v", "w z")


def test_a_sign_of_nothing_is_not_taken_for_a_number(read):
    refused(read, "a,b\n1,2\n-,3\n", "column 'a', row 2: '-' is not a number")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_gzipped_whatever_its_name_says(read, name):
    for content in (gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n"), b"a,b\n1,2\n3,4\n"):
        table = read(content, name)
        assert table.names == ("a", "b") and everything(table).tolist() == [[1, 2], [3, 4]]


def test_all_rows_in_a_mapped_file(read, tmp_path):
    np.save(tmp_path / "t.npy", np.arange(12, dtype=np.int32).reshape(4, 3))
    for table in (
        read("a,b,k\n1,2,u\n3,4,v\n", ignore=["k"]),
        read_table(tmp_path / "t.npy"),
        read_table(tmp_path / "t.npy", ignore=["x2"]),
    ):
        mapped = table.mapped()
        assert isinstance(mapped, np.memmap) and mapped.dtype == np.float64
        np.testing.assert_array_equal(mapped, everything(table))
