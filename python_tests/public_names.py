"""What is public: the names of every module that the reference documents."""

import importlib
import pkgutil

import led_fast

WITHOUT_ALL = [  # public modules that name no __all__
    "led_fast.errors",
    "led_fast.estimator",
    "led_fast.flows.adapters",
    "led_fast.kinds",
    "led_fast.kinds.kind",
    "led_fast.reference",
]
ROOMS = {
    "led_fast.kinds.images",
    "led_fast.kinds.points",
    "led_fast.kinds.tables",
    "led_fast.evaluation.features",
}
"""Packages with an `__all__` for their neighbours alone."""


def with_all() -> list[str]:
    packages = [m.name for m in pkgutil.walk_packages(led_fast.__path__, "led_fast.") if m.ispkg]
    return ["led_fast", *(name for name in packages if hasattr(importlib.import_module(name), "__all__"))]


def public_names(module: str) -> dict[str, object]:
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return {name: getattr(found, name) for name in found.__all__}
    own = {name: value for name, value in vars(found).items() if not name.startswith("_")}
    return {name: value for name, value in own.items() if getattr(value, "__module__", None) == module}
