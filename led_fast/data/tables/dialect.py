"""How a text file writes its table: encoding, separator, quotes, header and decimal mark.

charset-normalizer finds the encoding and duckdb the quotes. The separator is the one under which most fields are
numbers, because duckdb's own guess takes the decimal commas of `1,5;2,5` for separators. Fields that blanks separate,
as numpy.savetxt writes them, are copied with tabs.
"""

import codecs
import io
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import charset_normalizer
import duckdb

from led_fast.data.gzipped import is_gzipped, open_unpacked
from led_fast.data.tables.schema import made_up_names, unnamed
from led_fast.errors import InputError

MISSING = ("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none")
_TRUTH = ("true", "false")
_SEPARATORS = (",", ";", "\t", "|")
_WESTERN = ["utf_8", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "cp1252", "latin_1"]
_NOT_OF_THE_TABLE = re.compile(
    rb'(\xef\xbb\xbf)?([^\S\r\n]*[\r\n]|"?sep=[^\r\n]"?[^\S\r\n]*[\r\n])', re.IGNORECASE
)
_INTEGER = re.compile(r"[+-]?\d+")
_BLOCK = 1 << 20
_LOOK = 10_000  # rows by which header, decimal mark and types are told
_FEW = 1_000  # rows by which the separator is told


@dataclass(frozen=True)
class Dialect:
    """How to read one text file.

    Attributes:
        file: the file in UTF-8, in the folder that `find_dialect` was given.
        names: the columns.
        dtypes: "int", "float" or "bool" by the first rows.
        header: whether the first line holds the names.
        decimal: "." or ",".
        notes: what was found that is not plain.
    """

    file: Path
    separator: str
    quote: str
    escape: str
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    header: bool
    decimal: str
    notes: tuple[str, ...]

    def source(self) -> str:
        """The SQL that reads all columns as text, named c0, c1, …."""
        return _source(self.file, self.separator, self.quote, self.escape, len(self.names), self.header)

    def number(self, column: int) -> str:
        """The SQL that turns a column into DOUBLE: NULL where missing, NaN where it is no number."""
        text = f"c{column}"
        blank = f"{text} IS NULL OR lower(trim({text})) IN ({', '.join(map(_quoted, MISSING))})"
        if self.dtypes[column] == "bool":
            truth = f"WHEN lower(trim({text})) = 'true' THEN 1 WHEN lower(trim({text})) = 'false' THEN 0"
            return f"CASE WHEN {blank} THEN NULL {truth} ELSE 'nan'::DOUBLE END"
        plain = f"replace({text}, '_', 'x')"  # because duckdb reads 1_000 as a number
        if self.decimal == ",":
            plain = f"replace(replace({plain}, '.', 'x'), ',', '.')"
        number = f"TRY_CAST({plain} AS DOUBLE)"
        return f"CASE WHEN isfinite({number}) THEN {number} WHEN {blank} THEN NULL ELSE coalesce({number}, 'nan') END"


def find_dialect(connection: duckdb.DuckDBPyConnection, path: Path, folder: Path) -> Dialect:
    """Finds how a file writes its table.

    Args:
        connection: runs duckdb's sniffer.
        path: the file; `.gz` is unpacked.
        folder: a temporary folder, for a link to the file or its text in UTF-8.

    Raises:
        InputError: not text, no rows, or no separator that splits all rows alike.
    """
    file, notes = _in_utf8(path, folder)
    separator, quote, escape, columns = _split(connection, path, file)
    rows = _rows(connection, path, _source(file, separator, quote, escape, columns, header=False), _LOOK)
    if not rows:
        raise InputError(f"{path}: is empty")
    if columns == 1 and _has_blanks_between([row[0] for row in rows[:_FEW]]):
        file = _with_tabs(file, folder)
        separator, quote, escape, columns = "\t", "", "", len(_unmarked(rows[0][0] or "").split())
        rows = _rows(connection, path, _source(file, separator, quote, escape, columns, header=False), _LOOK)
        notes.append("blanks separate the columns")
    rows[0] = (_unmarked(rows[0][0] or ""), *rows[0][1:])
    decimal = _decimal_mark(rows, separator)
    header = _has_header(rows, decimal)
    body = rows[1:] if header else rows
    names = _names(rows[0], path) if header else made_up_names(columns)
    if not header:
        notes.append(unnamed(names, "line 1 is not a header"))
    elif odd := [name for name in rows[0] if name and _is_number(name, decimal)]:
        notes.append(f"line 1 is taken for the header, though {odd[0]!r} looks like a number")
    if header and (blank := [i for i, name in enumerate(rows[0]) if not (name or "").strip()]):
        called = ", ".join(names[i] for i in blank)
        notes.append(
            f"column {blank[0] + 1} has no name and is called {called}"
            if len(blank) == 1
            else f"{len(blank)} columns have no names and are called {called}"
        )
    if decimal == ",":
        notes.append("numbers are written with a decimal comma")
    dtypes = tuple(_dtype([row[i] for row in body]) for i in range(columns))
    return Dialect(file, separator, quote, escape, names, dtypes, header, decimal, tuple(notes))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _source(file: Path, separator: str, quote: str, escape: str, columns: int, header: bool) -> str:
    kinds = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(columns))
    return (
        f"read_csv({_quoted(str(file))}, auto_detect = false, columns = {{{kinds}}}, header = {header}, "
        f"delim = {_quoted(separator)}, quote = {_quoted(quote)}, escape = {_quoted(escape)})"
    )


def plain_error(path: Path, error: duckdb.Error) -> InputError:
    """An error of duckdb while it reads a file, as one sentence."""
    text = str(error)
    line = re.search(r"CSV Error on Line: (\d+)", text)
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if line and fields:
        return InputError(f"{path}: line {line[1]}: want {fields[1]} fields, got {fields[2]}")
    if line and "unterminated quote" in text:
        return InputError(f"{path}: line {line[1]} has a quote that does not end where its field does")
    if "invalid state" in text:
        return InputError(f"{path}: cannot be read as a table (does it mix line endings or quotes?)")
    return InputError(f"{path}: cannot be read ({text.splitlines()[0]})")


# ---- encoding


def _in_utf8(path: Path, folder: Path) -> tuple[Path, list[str]]:
    """A link to the file where duckdb reads it as it is, else a copy in UTF-8 of plain lines."""
    try:
        sample, plain = _scan(path)
        if sample is None and plain:
            # A name of our own, because duckdb takes *, ? and [ in a path for patterns.
            link = folder / ("table.csv.gz" if is_gzipped(path) else "table.csv")
            link.symlink_to(path.resolve())
            return link, []
        encoding = "utf_8" if sample is None else _encoding(path, sample)
        copy = folder / "table.csv"
        with open_unpacked(path) as source, copy.open("w", encoding="utf-8", newline="") as target:
            _copy_lines(io.TextIOWrapper(source, encoding, newline=None), target)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: looks like {encoding} text, but is not ({error.reason})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if copy.stat().st_size == 0:
        raise InputError(f"{path}: is empty")
    return copy, [] if sample is None else [f"text is not UTF-8: read as {encoding.replace('_', '-')}"]


def _scan(path: Path) -> tuple[bytes | None, bool]:
    """(the first block that is not UTF-8, if any; whether lines end alike and the first is of the table)."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    odd, last = None, b""
    ends = {b"\r\n": 0, b"\n": 0, b"\r": 0}
    with open_unpacked(path) as file:
        start = file.read(_BLOCK)
        block = start
        while block and odd is None:
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                odd = block
            if b"\0" in block:  # UTF-16 without a mark, or not text at all
                odd = block
            both = block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
            ends[b"\r\n"] += both
            ends[b"\n"] += block.count(b"\n") - both
            ends[b"\r"] += block.count(b"\r") - both
            last, block = block[-1:], file.read(_BLOCK)
    if odd is None and decoder.getstate()[0]:
        odd = start
    return odd, sum(count > 0 for count in ends.values()) <= 1 and not _NOT_OF_THE_TABLE.match(start)


def _encoding(path: Path, sample: bytes) -> str:
    # The Western ones first: of a few words of a header, a free choice makes letters of anywhere.
    found = charset_normalizer.from_bytes(sample, cp_isolation=_WESTERN, threshold=1.2).best()
    found = found or charset_normalizer.from_bytes(sample).best()
    if found is None:
        raise InputError(f"{path}: is not text, so it is no table")
    return found.encoding


def _copy_lines(source: IO[str], target: IO[str]) -> None:
    """Copies text but for blank lines in front, and `sep=;`, which tells spreadsheets of the separator."""
    line = source.readline(_BLOCK).removeprefix("\ufeff")
    while line and _NOT_OF_THE_TABLE.match(line.encode()):
        line = source.readline(_BLOCK)
    target.write(line)
    shutil.copyfileobj(source, target, _BLOCK)


# ---- blanks


def _unmarked(line: str) -> str:
    """A line without the mark of a comment, by which numpy.savetxt begins a header."""
    return re.sub(r"^\s*#\s*(?=\S)", "", line)


def _has_blanks_between(lines: Sequence[str | None]) -> bool:
    """Whether blanks split most lines of one column into as many fields, two at least, most of them numbers."""
    split = [_unmarked(line or "").split() for line in lines]
    usual = max(map(len, split), key=[len(fields) for fields in split].count)
    alike = [fields for fields in split if len(fields) == usual]
    numbers = sum(_is_number(field, ".") for fields in alike for field in fields)
    return usual >= 2 and 2 * len(alike) > len(split) and 2 * numbers >= usual * len(alike)


def _with_tabs(file: Path, folder: Path) -> Path:
    """A copy of a file with tabs for its blanks."""
    copy = folder / "table.tsv"
    with open_unpacked(file) as source, copy.open("wb") as target:
        for number, line in enumerate(source):
            fields = line.removeprefix(codecs.BOM_UTF8).split()
            if number == 0:
                fields = _unmarked(b" ".join(fields).decode()).encode().split()
            target.write(b"\t".join(fields) + b"\n")
    return copy


# ---- separator


def _rows(
    connection: duckdb.DuckDBPyConnection, path: Path, source: str, limit: int
) -> list[tuple[str | None, ...]]:
    try:
        return connection.execute(f"SELECT * FROM {source} LIMIT {limit}").fetchall()
    except duckdb.Error as error:
        raise plain_error(path, error) from None


def _split(connection: duckdb.DuckDBPyConnection, path: Path, file: Path) -> tuple[str, str, str, int]:
    """(separator, quote, escape, columns): the one with most numbers, then with most columns."""
    best: tuple[str, str, str, int] | None = None
    best_score, first, uneven = (-1.0, 0), "", []
    for separator in _SEPARATORS:
        options = f"delim = {_quoted(separator)}, all_varchar = true, header = false, skip = 0"
        query = f'SELECT "Quote", "Escape", len("Columns") FROM sniff_csv({_quoted(str(file))}, {options})'
        try:
            quote, escape, columns = connection.execute(query).fetchall()[0]
            quote, escape = (mark.replace("(empty)", "").replace("\0", "") for mark in (quote, escape))
            rows = _rows(
                connection, path, _source(file, separator, quote, escape, columns, header=False), _FEW
            )
        except (duckdb.Error, InputError):
            uneven.append(separator)
            continue
        fields = [field for row in rows for field in row]
        marks = "." if columns == 1 else ".,"
        numbers = sum(any(_is_number(field, mark) for mark in marks) for field in fields)
        score = (numbers / max(1, len(fields)), columns)
        if score > best_score:
            best, best_score, first = (
                (separator, quote, escape, columns),
                score,
                rows[0][0] or "" if rows else "",
            )
    if best is None or best[3] == 1:
        inside = sorted((s for s in uneven if s in first or best is None), key=lambda s: -first.count(s))
        if inside:  # reading strictly says which line is uneven
            columns = first.count(inside[0]) + 1
            source = _source(file, inside[0], '"', '"', columns, header=False)
            try:
                connection.execute(f"SELECT max(COLUMNS(*)) FROM {source}")
            except duckdb.Error as error:
                raise plain_error(path, error) from None
            raise InputError(f"{path}: its lines do not split into the same number of fields")
    assert best is not None
    return best


# ---- numbers, header, types


def _is_number(field: str | None, decimal: str) -> bool:
    """Whether a field is a number, or missing."""
    text = (field or "").strip().lower()
    if text in MISSING:
        return True
    if decimal == ",":
        text = "x" if "." in text else text.replace(",", ".")
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text and text.isascii()


def _decimal_mark(rows: Sequence[tuple[str | None, ...]], separator: str) -> str:
    """A comma where fields are numbers with it that are none without it.

    `1,234` in a file whose separator is no semicolon may be a thousand: it is no evidence.
    """
    if len(rows[0]) == 1:
        return "."
    evidence = False
    for field in (field for row in rows for field in row if field):
        if "." in field and _is_number(field, "."):
            return "."
        if "," in field and _is_number(field, ","):
            thousands = re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", field.strip())
            evidence = evidence or separator == ";" or not thousands
    return "," if evidence else "."


def _has_header(rows: Sequence[tuple[str | None, ...]], decimal: str) -> bool:
    """Whether the first row names the columns: a name stands above numbers, or it is names throughout."""
    first, body = rows[0], rows[1:]

    def is_value(field: str | None) -> bool:
        return _is_number(field, decimal) or (field or "").strip().lower() in _TRUTH

    def is_filled(field: str | None) -> bool:
        return is_value(field) and (field or "").strip().lower() not in MISSING

    named = [not is_value(field) and any(map(str.isalpha, field or "")) for field in first]
    if any(name and any(is_filled(row[i]) for row in body) for i, name in enumerate(named)):
        return True
    counted = [str(i) for i in range(len(first))]  # what pandas writes above columns without names
    start = 0 if first[0] else 1
    if list(first[start:]) == counted[: len(first) - start]:
        fractions = all(
            any(not _INTEGER.fullmatch(row[i] or "0") for row in body) for i in range(start, len(first))
        )
        return len(first) - start >= 4 or (fractions and bool(body))
    return all(named)


def _names(first: Sequence[str | None], path: Path) -> tuple[str, ...]:
    own = [(name or "").strip() for name in first]
    refuse_duplicates(own, path)
    return tuple(name or _free(f"x{i}", own) for i, name in enumerate(own, start=1))


def _free(name: str, taken: Sequence[str]) -> str:
    """The name, with underscores behind it until nothing else is called so."""
    return name if name not in taken else _free(f"{name}_", taken)


def refuse_duplicates(names: Sequence[str], path: Path) -> None:
    """Raises InputError where two columns have one name."""
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        where = [str(i) for i, name in enumerate(names, start=1) if name == twice[0]]
        raise InputError(
            f"{path}: columns {' and '.join(where)} are both called {twice[0]!r}; want different names"
        )


def _dtype(fields: Sequence[str | None]) -> str:
    filled = [text for text in ((field or "").strip().lower() for field in fields) if text not in MISSING]
    if filled and all(text in _TRUTH for text in filled):
        return "bool"
    return "int" if filled and all(map(_INTEGER.fullmatch, filled)) else "float"
