"""LED beside its rivals on tables: data sets, splits, rivals, cells and page."""
