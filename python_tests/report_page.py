"""Which keys of a report its page, docs/report.md, does not name."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "report.md"
_NAMED_BY_DATA = ("outliers", "config")
_KINDS = {"points", "images", "tables"}


def undocumented(report, kind=None):
    """Keys of all levels that the page does not have in backticks; those of configs are named elsewhere.

    Sections of other kinds of data do not count. The kind is the report's own where none is given.
    """
    others = _KINDS - {kind or report["kind"]}
    assert len(others) == 2
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    ours = [section for section in sections if section.splitlines()[0].lower() not in others]
    assert len(ours) == len(sections) - 2
    return _keys(report) - set(re.findall(r"`([a-z_0-9]+)`", "".join(ours)))


def _keys(value):
    if isinstance(value, list):
        return set().union(*map(_keys, value))
    if not isinstance(value, dict):
        return set()
    deeper = (_keys(v) for k, v in value.items() if k not in _NAMED_BY_DATA)
    return set(value).union(*deeper)
