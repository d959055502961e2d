"""The version of `report.json`, docs/report.md."""

SCHEMA = 2
