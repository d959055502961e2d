"""A user's file as a table of numbers: .csv, .tsv and .parquet through duckdb, .npy mapped where it lies."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np

from led_fast.data.tables.dialect import find_dialect, plain_error, refuse_duplicates
from led_fast.data.tables.table import Labels, RowStore, Table, kind_of, made_up_names, refuse_rounded, rounded_integer
from led_fast.errors import InputError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npy")
_MEMORY = "1GB"  # what duckdb may take; beyond it duckdb goes to the temporary folder
_BATCH = 122_880  # rows of a duckdb row group
_MOST_CATEGORIES = 65_536  # of a column of labels
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
    has the columns x1, …, xD. The numbers of a `.npy` file are mapped where they lie; all others are copied, as
    float64, to a temporary file (in TMPDIR) that goes with the table.

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
    """
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
    if name.endswith(".npy"):
        return _read_npy(path, ignore, drop_missing, columns)
    with tempfile.TemporaryDirectory(prefix="led_fast_") as folder:
        settings = {
            "memory_limit": _MEMORY,
            "threads": min(4, os.cpu_count() or 1),
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(str(Path(folder) / "table.duckdb"), config=settings) as connection:
            open_file = _open_parquet if name.endswith(".parquet") else _open_text
            origin = open_file(connection, path, Path(folder))
            try:
                return _load(connection, origin, _choose(origin, ignore, columns), drop_missing)
            except duckdb.Error as error:
                raise plain_error(path, error) from None


# ---- which columns


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


@dataclass(frozen=True)
class _Choice:
    """Positions in the file."""

    modelled: tuple[int, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    notes: tuple[str, ...]


def _choose(origin: _Origin, ignore: Sequence[str], columns: Sequence[str] | None) -> _Choice:
    names, path = origin.names, origin.path
    for name in ignore:
        if name not in names:
            raise InputError(f"{path}: has no column {name!r} to ignore; its columns are {_listed(names)}")
    labels = tuple(names.index(name) for name in dict.fromkeys(ignore))
    left = tuple(i for i in range(len(names)) if i not in labels)
    if columns is None:
        if not left:
            raise InputError(f"{path}: all columns are ignored; nothing is left to model")
        return _Choice(left, tuple(names[i] for i in left), labels, ())
    wanted = tuple(columns)
    if not origin.header and len(left) == len(wanted):
        return _Choice(left, wanted, labels, ("no header: columns are taken in the order of training",))
    missing = [name for name in wanted if name not in names or names.index(name) in labels]
    if missing and not origin.header:
        raise InputError(f"{path}: has no header and {len(left)} columns; want the {len(wanted)} columns {_listed(wanted)}")
    if missing:
        raise InputError(f"{path}: lacks the column {_listed(missing)}; its columns are {_listed(names)}")
    extra = [names[i] for i in left if names[i] not in wanted]
    notes = (f"passed over {len(extra)} columns that the model does not know: {_listed(extra)}",) if extra else ()
    return _Choice(tuple(names.index(name) for name in wanted), wanted, labels, notes)


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ---- through duckdb


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
    if len(top) == len(described) + 1:  # flat: the root and its columns
        refuse_duplicates([name for name, _ in top[1:]], path)
    names = tuple(row[0] for row in described)
    quoted = tuple('"' + name.replace('"', '""') + '"' for name in names)
    return _Origin(
        path=path,
        names=names,
        header=True,
        source=source,
        numbers=tuple(f"CASE WHEN isnan({c}::DOUBLE) THEN NULL ELSE {c}::DOUBLE END" for c in quoted),
        texts=tuple(f"{c}::VARCHAR" for c in quoted),
        dtypes=tuple(_parquet_dtype(row[1]) for row in described),
        notes=(),
    )


def _parquet_dtype(kind: str) -> str:
    if kind in _WHOLE:
        return "int"
    if kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        return "float"
    return "bool" if kind == "BOOLEAN" else kind


def _load(connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: _Choice, drop_missing: bool) -> Table:
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
        part = f"SELECT * FROM t WHERE rowid >= {start} AND rowid < {start + _BATCH} AND {keep} ORDER BY rowid"
        batch = connection.execute(part).fetchnumpy()
        store.append(np.stack([np.ma.getdata(batch[f"v{k}"]) for k in range(len(choice.names))], axis=1))
        for k, found in enumerate(lookup):
            if found is not None:
                codes[k].append(np.array([found[text] for text in batch[f"l{k}"]], dtype=np.int32))
    kept = {}
    for k, (i, found) in enumerate(zip(choice.labels, lookup, strict=True)):
        name = origin.names[i]
        if found is None:
            notes.append(f"column {name} has more than {_MOST_CATEGORIES} different values: ignored, and not kept")
        else:
            kept[name] = Labels(name, tuple(found), np.concatenate(codes[k]))
    every = tuple(range(len(choice.names)))
    all_notes = (*origin.notes, *choice.notes, *notes)
    return Table(str(path), choice.names, dtypes, store.close(), every, kept, all_notes, origin.header)


def _refuse_types(connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: _Choice) -> None:
    """Raises InputError where a file that knows its types has a modelled column that is not of numbers."""
    bad = [i for i in choice.modelled if origin.dtypes[i] not in ("int", "float", "bool")]
    if bad:
        text = origin.texts[bad[0]]
        query = f"SELECT {text}, row FROM (SELECT *, row_number() OVER () AS row FROM {origin.source})"
        found = connection.execute(f"{query} WHERE {text} IS NOT NULL ORDER BY row LIMIT 1").fetchall()
        names = [origin.names[i] for i in bad]
        value, row = found[0] if found else ("no value", 1)
        raise InputError(_no_number(origin.path, names, value, row, f" but {origin.dtypes[bad[0]]}"))


def _no_number(path: Path, names: Sequence[str], value: str, row: int, kind: str = "") -> str:
    also = f"; nor are all values of {_listed(names[1:])}" if names[1:] else ""
    advice = " ".join(f"--ignore {name}" for name in names[:30])
    short = value if len(value) <= 60 else value[:60] + "…"
    return f"{path}: column {names[0]!r}, row {row}: {short!r} is not a number{kind}{also}; leave out with {advice}"


def _check_values(
    connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: _Choice, rows: int
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
        raise InputError(_no_number(path, [names[k] for k in bad], value, row))
    empty = [name for name, count in zip(names, filled, strict=True) if count == 0]
    if empty:
        advice = " ".join(f"--ignore {name}" for name in empty)
        raise InputError(f"{path}: all values of column {_listed(empty)} are missing; leave out with {advice}")
    if any(infinite):
        k = next(k for k in range(len(names)) if infinite[k])
        row, value = _first(connection, origin, choice, k, f"isinf(v{k})")
        raise InputError(f"{path}: column {names[k]!r}, row {row}: {value} is not finite")
    dtypes = []
    for k, i in enumerate(choice.modelled):
        dtype = origin.dtypes[i]
        if largest[k] >= 2.0**53:
            _refuse_rounded(connection, origin, names[k], i)
        dtypes.append("float" if dtype == "int" and not whole[k] else dtype)
    return tuple(dtypes)


def _first(
    connection: duckdb.DuckDBPyConnection, origin: _Origin, choice: _Choice, k: int, condition: str
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
    query = f"SELECT row, {text} FROM (SELECT *, row_number() OVER () AS row FROM {origin.source}) WHERE {lost}"
    found = connection.execute(f"{query} ORDER BY row LIMIT 1").fetchall()
    if found:
        raise InputError(rounded_integer(str(origin.path), name, *found[0]))


def _missing(
    connection: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str], rows: int, drop: bool
) -> tuple[str, list[str]]:
    """(the SQL condition of the rows to keep, notes)."""
    keep = " AND ".join(f"v{k} IS NOT NULL" for k in range(len(names)))
    lacking = rows - connection.execute(f"SELECT count(*) FROM t WHERE {keep}").fetchall()[0][0]
    if lacking == 0:
        return keep, []
    row, *values = connection.execute(
        f"SELECT rowid, {', '.join(f'v{k}' for k in range(len(names)))} FROM t WHERE NOT ({keep}) ORDER BY rowid LIMIT 1"
    ).fetchall()[0]
    return keep, _report_missing(path, names[values.index(None)], row + 1, lacking, rows, drop)


def _report_missing(path: Path, name: str, row: int, lacking: int, rows: int, drop: bool) -> list[str]:
    if not drop:
        raise InputError(
            f"{path}: column {name!r}, row {row}: the value is missing, as in {lacking} of {rows} rows; "
            f"leave these rows out with --drop-missing, or the column with --ignore {name}"
        )
    if lacking == rows:
        raise InputError(f"{path}: every row has a missing value; nothing is left without them")
    return [f"left out {lacking} of {rows} rows with missing values"]


def _categories(connection: duckdb.DuckDBPyConnection, column: str, keep: str) -> dict[str, int] | None:
    query = f"SELECT DISTINCT {column} FROM t WHERE {keep} LIMIT {_MOST_CATEGORIES + 1}"
    found = [row[0] for row in connection.execute(query).fetchall()]
    return None if len(found) > _MOST_CATEGORIES else {text: code for code, text in enumerate(sorted(found))}


# ---- .npy


def _read_npy(path: Path, ignore: Sequence[str], drop_missing: bool, columns: Sequence[str] | None) -> Table:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a readable .npy array ({error})") from None
    dtype = kind_of(values.dtype, str(path))
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise InputError(f"{path}: want an array of shape (rows, columns), got shape {values.shape}")
    if 0 in values.shape:
        raise InputError(f"{path}: holds no rows")
    names = made_up_names(values.shape[1])
    dtypes = (dtype,) * len(names)
    origin = _Origin(path, names, False, "", (), (), dtypes, (f"a .npy array has no names: columns are called {names[0]} to {names[-1]}",))
    choice = _choose(origin, ignore, columns)
    kinds = (dtype,) * len(choice.names)
    table = Table(str(path), choice.names, kinds, values, choice.modelled, header=False)
    whole, notes = _check_npy(path, table, drop_missing)
    labels = {names[i]: _npy_labels(names[i], values[:, i]) for i in choice.labels}
    table = replace(table, labels=labels, notes=(*origin.notes, *choice.notes, *notes))
    return table if whole is None else _without(table, whole)


def _check_npy(path: Path, table: Table, drop: bool) -> tuple[np.ndarray | None, list[str]]:
    """(which rows are whole, None where all are; notes)."""
    first, lacking, filled = None, 0, np.zeros(len(table.names), dtype=np.int64)
    whole = np.ones(len(table), dtype=bool)
    for where, part in table.chunks():
        if np.isinf(part).any():
            row, column = np.argwhere(np.isinf(part))[0]
            value = part[row, column]
            raise InputError(f"{path}: column {table.names[column]!r}, row {where.start + row + 1}: {value} is not finite")
        refuse_rounded(table.values[where][:, list(table.picked)], part, table.names, where.start, str(path))
        absent = np.isnan(part)
        filled += (~absent).sum(0)
        if absent.any():
            whole[where] = ~absent.any(1)
            lacking += int(absent.any(1).sum())
            if first is None:
                row, column = np.argwhere(absent)[0]
                first = (where.start + row + 1, table.names[column])
    empty = [name for name, count in zip(table.names, filled, strict=True) if count == 0]
    if empty:
        advice = " ".join(f"--ignore {name}" for name in empty)
        raise InputError(f"{path}: all values of column {_listed(empty)} are missing; leave out with {advice}")
    if first is None:
        return None, []
    return whole, _report_missing(path, first[1], first[0], lacking, len(table), drop)


def _npy_labels(name: str, values: np.ndarray) -> Labels:
    categories, codes = np.unique(values, return_inverse=True)
    texts = tuple("" if value != value else str(value) for value in categories.tolist())
    return Labels(name, texts, codes.astype(np.int32))


def _without(table: Table, whole: np.ndarray) -> Table:
    """The table's whole rows, copied to a file of their own."""
    store = RowStore(len(table.names))
    for where, part in table.chunks():
        store.append(part[whole[where]])
    labels = {name: replace(labels, codes=labels.codes[whole]) for name, labels in table.labels.items()}
    return replace(table, values=store.close(), picked=tuple(range(len(table.names))), labels=labels)
