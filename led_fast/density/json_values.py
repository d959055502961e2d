"""Values that JSON can hold."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: None stands for both, in any nesting of dicts and lists."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
