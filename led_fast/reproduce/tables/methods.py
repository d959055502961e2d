"""The methods of the comparison, by the name of their cells."""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from led_fast.reproduce.tables.coordinates import after_marginal, standardized
from led_fast.reproduce.tables.led import fit_led
from led_fast.reproduce.tables.model import Model
from led_fast.reproduce.tables.rivals import (
    fit_flow,
    fit_isolation_forest,
    fit_kernels,
    fit_normal_mixture,
)
from led_fast.reproduce.tables.splits import Rows
from led_fast.reproduce.tables.zuko_flow import FlowSettings


class Fit(Protocol):
    """How a method is fitted."""

    def __call__(self, train: Rows, validation: Rows, seconds: float, seed: int) -> Model:
        """Fits to rows, chooses by validation rows, within seconds of this process's time."""
        ...


@dataclass(frozen=True)
class Method:
    """A column of the tables.

    Attributes:
        label: its head.
        fit: makes a model.
        needs: the optional package that it takes, empty where none.
        density: whether the model has one; else it only ranks rows.
    """

    label: str
    fit: Fit
    needs: str = ""
    density: bool = True

    @property
    def available(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or find_spec(self.needs) is not None


_NSF = FlowSettings()
_MAF = FlowSettings(family="MAF", transforms=5)

LED = "led"
METHODS: dict[str, Method] = {
    LED: Method("**LED**", fit_led),
    "nsf": Method("NSF", partial(fit_flow, _NSF, standardized), "zuko"),
    "nsf_marginal": Method("NSF after marginals", partial(fit_flow, _NSF, after_marginal), "zuko"),
    "maf_marginal": Method("MAF after marginals", partial(fit_flow, _MAF, after_marginal), "zuko"),
    "mixture": Method("mixture", partial(fit_normal_mixture, standardized), "sklearn"),
    "mixture_marginal": Method(
        "mixture after marginals", partial(fit_normal_mixture, after_marginal), "sklearn"
    ),
    "kernels": Method("KDE", partial(fit_kernels, standardized)),
    "forest": Method("isolation forest", fit_isolation_forest, "sklearn", density=False),
}
