"""Columns as lines of text: in parts, in the forms asked for, whole or not at all."""

import csv
import io

import numpy as np
import pytest

from led_fast.data import text
from led_fast.data.text import write_csv
from led_fast.kinds.kind import Rows
from led_fast.kinds.write import write_rows


def test_parts_make_the_same_lines_as_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    columns = {"x": rng.normal(size=11), "n": np.arange(11), "name": [f'"{i}", é' for i in range(11)]}
    whole = io.StringIO()
    write_csv(whole, columns, {"x": repr})
    rows = list(csv.reader(whole.getvalue().splitlines()))
    assert rows[0] == list(columns) and len(rows) == 12
    assert [float(row[0]) for row in rows[1:]] == columns["x"].tolist()
    assert [row[1:] for row in rows[1:]] == [[str(i), f'"{i}", é'] for i in range(11)]
    for size in (1, 2, 10, 11, 12):
        monkeypatch.setattr(text, "_AT_A_TIME", size)
        part = io.StringIO()
        write_csv(part, columns, {"x": repr})
        assert part.getvalue() == whole.getvalue()


def test_names_that_are_not_utf_8_are_escaped(tmp_path, capsys):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    rows = Rows({"name": [name, "né"], "log_density": np.array([-1.5, 2.0])}, {"log_density": ".3f"})
    write_rows(rows, tmp_path / "s.csv")
    write_rows(rows, None)
    wanted = "name,log_density\ncaf\\xe9.png,-1.500\nné,2.000\n"
    assert (tmp_path / "s.csv").read_bytes() == wanted.encode() and capsys.readouterr().out == wanted


def test_nothing_half_written_is_left(tmp_path):
    (tmp_path / "s.csv").write_text("before")

    class Broken(list):
        def __getitem__(self, part):
            raise RuntimeError("no more")

    for out in ("s.csv", "t.csv"):
        with pytest.raises(RuntimeError, match="no more"):
            write_rows(Rows({"a": Broken([1.0])}), tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    assert (tmp_path / "s.csv").read_text() == "before"
