"""Which keys of a report its page, docs/report.md, does not name."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "report.md"
_NAMED_BY_DATA = ("outliers", "config")


def undocumented(report):
    """Keys of all levels that the page does not have in backticks; those of configs are named elsewhere."""
    named = set(re.findall(r"`([a-z_0-9]+)`", PAGE.read_text()))
    return _keys(report) - named


def _keys(value):
    if not isinstance(value, dict):
        return set()
    deeper = (_keys(v) for k, v in value.items() if k not in _NAMED_BY_DATA)
    return set(value).union(*deeper)
