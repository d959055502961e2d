"""A user's file as a table of numbers: .csv, .tsv and .parquet through duckdb, .npy by NumPy."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from led_fast.data.tables.dialect import find_dialect, plain_error, refuse_duplicates
from led_fast.data.tables.engine import connect
from led_fast.data.tables.npy import npy_names, read_npy
from led_fast.data.tables.schema import (
    MOST_CATEGORIES,
    SUFFIXES,
    AdvisedError,
    Choice,
    all_missing,
    choose,
    listed,
    no_number,
    not_finite,
    not_kept,
    report_missing,
    rounded_integer,
)
from led_fast.data.tables.table import Labels, RowStore, Table, copying
from led_fast.errors import InputError

_BATCH = 122_880  # rows of a duckdb row group
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_WHOLE = {*_INTEGERS, *(f"U{name}" for name in _INTEGERS)}


def read_table(
    path: str | Path,
    ignore: Sequence[str] = (),
    drop_missing: bool = False,
    columns: Sequence[str] | None = None,
) -> Table:
    """Reads a table of numbers in bounded memory.

    Separator, quotes, header, decimal comma, encoding and compression of a text file are found. Missing values are
    empty fields, `NA`, `N/A`, `NaN`, `null` and `None`; `true` and `false` are 1 and 0. A file without a header
    has the columns x1, …, xD. The numbers are copied, as float64 (of a `.npy` file as they are), to a temporary file
    (in TMPDIR) that goes with the table: what happens to the user's file afterwards changes nothing.

    Args:
        path: a `.csv`, `.csv.gz`, `.tsv`, `.tsv.gz`, `.parquet` or `.npy` file; `.npy` holds real numbers of shape
            (rows, columns) or (rows,).
        ignore: columns that are labels: kept as text in `Table.labels`, and no columns of the table.
        drop_missing: leave out rows with a missing value instead of refusing them.
        columns: the columns wanted, in this order, found by name; by position in a file without a header that has
            just as many. Other columns are passed over.

    Returns:
        The table, of one row at least.

    Raises:
        InputError: a file that is no table, or a value that is no finite number. The message names file, column and
            row (from 1, without the header).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("height,width\\n1.5,2\\n2.5,4\\n")
        >>> from led_fast.data.tables import read_table
        >>> read_table(path, ignore=["width"]).take(slice(None))
        array([[1.5], [2.5]])
    """
    path = _file_of_a_table(path)
    if path.suffix.lower() == ".npy":
        return read_npy(path, ignore, drop_missing, columns)
    with _opened(path) as (connection, origin):
        return _load(
            connection, origin, choose(path, origin.names, origin.header, ignore, columns), drop_missing
        )


def column_names(path: str | Path) -> tuple[str, ...]:
    """The columns of a file that `read_table` would read, without a look at all its values.

    Raises:
        InputError: a file that is no table.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("height,width\\n1.5,2\\n2.5,4\\n")
        >>> from led_fast.data.tables import column_names
        >>> column_names(path)
        ('height', 'width')
    """
    path = _file_of_a_table(path)
    if path.suffix.lower() == ".npy":
        return npy_names(path)
    with _opened(path) as (_, origin):
        return origin.names


def read_new_rows(path: str | Path, columns: Sequence[str] | None = None) -> Table:
    """Reads rows for a finished model, see `read_table`: nothing can be left out of them, so no error advises it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("height,width\\n1.5,2\\n2.5,4\\n")
        >>> from led_fast.data.tables import read_new_rows
        >>> read_new_rows(path, columns=["width", "height"]).take(slice(None))  # in this order
        array([[2. , 1.5], [4. , 2.5]])
    """
    try:
        return read_table(path, columns=columns)
    except AdvisedError as error:
        raise InputError(error.said) from None


def _file_of_a_table(path: str | Path) -> Path:
    """The path, if what lies there may be a table."""
    path = Path(path)
    name = path.name.lower()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; want a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    if not name.endswith(SUFFIXES):
        hint = "; save the sheet as .csv" if name.endswith((".xlsx", ".xls", ".ods")) else ""
        got = f"{path}: want a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, got suffix {path.suffix!r}"
        raise InputError(got + hint)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty")
    return path


@dataclass(frozen=True)
class _Origin:
    """What duckdb reads: the SQL of the source, and of each column as DOUBLE and as text."""

    path: Path
    names: tuple[str, ...]
    header: bool
    source: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    dtypes: tuple[str, ...]  # "int", "float", "bool", or what a column holds that is no numbers
    notes: tuple[str, ...]


# ---- through duckdb


@contextmanager
def _opened(path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, _Origin]]:
    """A file as duckdb reads it; what goes wrong in the `with` block is said of the file."""
    with tempfile.TemporaryDirectory(prefix="led_fast_") as folder, connect(Path(folder)) as connection:
        open_file = _open_parquet if path.suffix.lower() == ".parquet" else _open_text
        try:
            with copying(path):
                yield connection, open_file(connection, path, Path(folder))
        except duckdb.Error as error:
            raise plain_error(path, error) from None


def _open_text(connection: duckdb.DuckDBPyConnection, path: Path, folder: Path) -> _Origin:
    found = find_dialect(connection, path, folder)
    every = range(len(found.names))
    return _Origin(
        path=path,
        names=found.names,
        header=found.header,
        source=found.source(),
        numbers=tuple(found.number(i) for i in every),
        texts=tuple(f"c{i}" for i in every),
        dtypes=found.dtypes,
        notes=found.notes,
    )


def _open_parquet(connection: duckdb.DuckDBPyConnection, path: Path, folder: Path) -> _Origin:
    link = folder / "table.parquet"  # a name without *, ? and [, which duckdb takes for patterns
    link.symlink_to(path.resolve())
    source = f"read_parquet('{link}')"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        top = connection.execute(f"SELECT name, num_children FROM parquet_schema('{link}')").fetchall()
    except duckdb.Error as error:
        raise InputError(f"{path}: not a readable .parquet file ({str(error).splitlines()[0]})") from None
    own = [row[0] for row in described]
    if len(top) == len(described) + 1:  # flat: the root and its columns
        own = [name for name, _ in top[1:]]  # of `A` and `a` duckdb renames one
        refuse_duplicates(own, path)
    index = _pandas_index(connection, link)
    columns = [(name, row) for name, row in zip(own, described, strict=True) if name not in index]
    left_out = [name for name in own if name in index]
    quoted = ('"' + row[0].replace('"', '""') + '"' for _, row in columns)
    source = f"(SELECT {', '.join(f'{name} AS c{i}' for i, name in enumerate(quoted))} FROM {source})"
    numbers = (f"c{i}::DOUBLE" for i in range(len(columns)))
    return _Origin(
        path=path,
        names=tuple(name for name, _ in columns),
        header=True,
        source=source,
        # Not isnan, which duckdb takes for false where a file's statistics, that leave NaN out, have no NaN.
        numbers=tuple(f"CASE WHEN isfinite({c}) OR isinf({c}) THEN {c} END" for c in numbers),
        texts=tuple(f"c{i}::VARCHAR" for i in range(len(columns))),
        dtypes=tuple(_parquet_dtype(row[1]) for _, row in columns),
        notes=(f"left out the frame's index, {listed(left_out)}",) if left_out else (),
    )


def _pandas_index(connection: duckdb.DuckDBPyConnection, link: Path) -> set[str]:
    """The columns that are the index of the pandas frame that a file was written from."""
    query = f"SELECT decode(value) FROM parquet_kv_metadata('{link}') WHERE decode(key) = 'pandas'"
    found = connection.execute(query).fetchall()
    try:
        index = json.loads(found[0][0])["index_columns"] if found else []
        return {name for name in index if isinstance(name, str)}  # a range has no column
    except (
        ValueError,
        RecursionError,
        LookupError,
        TypeError,
    ):  # pandas' own notes, without which the table is whole
        return set()


def _parquet_dtype(kind: str) -> str:
    if kind in _WHOLE:
        return "int"
    if kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        return "float"
    return "bool" if kind == "BOOLEAN" else kind


def _load(
    connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: Choice, drop_missing: bool
) -> Table:
    path = origin.path
    _refuse_types(connection, origin, choice)
    numbers = [f"{origin.numbers[i]} AS v{k}" for k, i in enumerate(choice.modelled)]
    labels = [f"coalesce({origin.texts[i]}, '') AS l{k}" for k, i in enumerate(choice.labels)]
    connection.execute(f"CREATE TABLE t AS SELECT {', '.join(numbers + labels)} FROM {origin.source}")
    rows = connection.execute("SELECT count(*) FROM t").fetchall()[0][0]
    if rows == 0:
        raise InputError(f"{path}: holds no rows")
    dtypes = _check_values(connection, origin, choice, rows)
    keep, notes = _missing(connection, path, choice.names, rows, drop_missing)
    store = RowStore(len(choice.modelled))
    codes: list[list[np.ndarray]] = [[] for _ in choice.labels]
    lookup = [_categories(connection, f"l{k}", keep) for k in range(len(choice.labels))]
    for start in range(0, rows, _BATCH):
        part = (
            f"SELECT * FROM t WHERE rowid >= {start} AND rowid < {start + _BATCH} AND {keep} ORDER BY rowid"
        )
        batch = connection.execute(part).fetchnumpy()
        store.append(np.stack([np.ma.getdata(batch[f"v{k}"]) for k in range(len(choice.names))], axis=1))
        for k, found in enumerate(lookup):
            if found is not None:
                codes[k].append(np.array([found[text] for text in batch[f"l{k}"]], dtype=np.int32))
    kept = {}
    for k, (i, found) in enumerate(zip(choice.labels, lookup, strict=True)):
        name = origin.names[i]
        if found is None:
            notes.append(not_kept(name))
        else:
            kept[name] = Labels(name, tuple(found), np.concatenate(codes[k]))
    every = tuple(range(len(choice.names)))
    all_notes = (*origin.notes, *choice.notes, *notes)
    return Table(str(path), choice.names, dtypes, store.close(), every, kept, all_notes, origin.header)


def _refuse_types(connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: Choice) -> None:
    """Raises InputError where a file that knows its types has a modelled column that is not of numbers."""
    bad = [i for i in choice.modelled if origin.dtypes[i] not in ("int", "float", "bool")]
    if bad:
        text = origin.texts[bad[0]]
        query = f"SELECT {text}, row FROM (SELECT *, row_number() OVER () AS row FROM {origin.source})"
        found = connection.execute(f"{query} WHERE {text} IS NOT NULL ORDER BY row LIMIT 1").fetchall()
        names = [origin.names[i] for i in bad]
        if not found:
            raise all_missing(origin.path, names[:1])
        value, row = found[0]
        raise no_number(origin.path, names, row, value, f" but {origin.dtypes[bad[0]]}")


def _check_values(
    connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: Choice, rows: int
) -> tuple[str, ...]:
    """The columns' types; InputError where one holds text, nothing, infinities or integers too long."""
    path, names = origin.path, choice.names
    asked = "count(v{k}), count_if(isnan(v{k})), count_if(isinf(v{k})), max(abs(v{k})), bool_and(v{k} = trunc(v{k}))"
    query = ", ".join(asked.format(k=k) for k in range(len(names)))
    answer = connection.execute(f"SELECT {query} FROM t").fetchall()[0]
    filled, text, infinite, largest, whole = (answer[part::5] for part in range(5))
    if any(text):
        bad = [k for k in range(len(names)) if text[k]]
        row, value = _first(connection, origin, choice, bad[0], f"isnan(v{bad[0]})")
        alone = (
            ", and neither , ; | nor tabs or blanks split the lines alike" if len(origin.names) == 1 else ""
        )
        raise no_number(path, [names[k] for k in bad], row, value, alone)
    empty = [name for name, count in zip(names, filled, strict=True) if count == 0]
    if empty:
        raise all_missing(path, empty)
    if any(infinite):
        k = next(k for k in range(len(names)) if infinite[k])
        row, value = _first(connection, origin, choice, k, f"isinf(v{k})")
        raise not_finite(path, names[k], row, value)
    dtypes = []
    for k, i in enumerate(choice.modelled):
        dtype = origin.dtypes[i]
        if largest[k] >= 2.0**53:
            _refuse_rounded(connection, origin, names[k], i)
        dtypes.append("float" if dtype == "int" and not whole[k] else dtype)
    return tuple(dtypes)


def _first(
    connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: Choice, k: int, condition: str
) -> tuple[int, str]:
    """(row from 1, text in the file) of the first value that meets a condition."""
    row = connection.execute(f"SELECT min(rowid) FROM t WHERE {condition}").fetchall()[0][0]
    query = f"SELECT {origin.texts[choice.modelled[k]]} FROM {origin.source} LIMIT 1 OFFSET {row}"
    return row + 1, str(connection.execute(query).fetchall()[0][0])


def _refuse_rounded(connection: duckdb.DuckDBPyConnection, origin: _Origin, name: str, column: int) -> None:
    number, text = origin.numbers[column], origin.texts[column]
    exact = f"TRY_CAST({text} AS HUGEINT)"
    lost = f"({exact} IS NULL OR {exact} IS DISTINCT FROM TRY_CAST({number} AS HUGEINT))"
    lost = f"abs({number}) >= 9007199254740992 AND regexp_full_match(trim({text}), '[+-]?[0-9]+') AND {lost}"
    query = (
        f"SELECT row, {text} FROM (SELECT *, row_number() OVER () AS row FROM {origin.source}) WHERE {lost}"
    )
    found = connection.execute(f"{query} ORDER BY row LIMIT 1").fetchall()
    if found:
        raise rounded_integer(origin.path, name, *found[0])


def _missing(
    connection: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str], rows: int, drop: bool
) -> tuple[str, list[str]]:
    """(the SQL condition of the rows to keep, notes)."""
    keep = " AND ".join(f"v{k} IS NOT NULL" for k in range(len(names)))
    lacking = rows - connection.execute(f"SELECT count(*) FROM t WHERE {keep}").fetchall()[0][0]
    if lacking == 0:
        return keep, []
    values = ", ".join(f"v{k}" for k in range(len(names)))
    query = f"SELECT rowid, {values} FROM t WHERE NOT ({keep}) ORDER BY rowid LIMIT 1"
    row, *found = connection.execute(query).fetchall()[0]
    return keep, report_missing(path, names[found.index(None)], row + 1, lacking, rows, drop)


def _categories(connection: duckdb.DuckDBPyConnection, column: str, keep: str) -> dict[str, int] | None:
    query = f"SELECT DISTINCT {column} FROM t WHERE {keep} LIMIT {MOST_CATEGORIES + 1}"
    found = [row[0] for row in connection.execute(query).fetchall()]
    return None if len(found) > MOST_CATEGORIES else {text: code for code, text in enumerate(sorted(found))}
