"""What was reported for the ring and the grid elsewhere: modes found, % of samples within 3σ of a mode."""

from typing import NamedTuple


class Reported(NamedTuple):
    """A row of somebody else's table; None where it has no such number."""

    method: str
    source: str
    modes: float | None
    high_quality_percent: float | None


_LED = "LED, Table 1"
_PACGAN = "Lin et al. 2018, PacGAN"
_GDPP = "Elfeki et al. 2019, GDPP"

RING = (
    Reported("GAN", _LED, 1, 99.3),
    Reported("ALI", _LED, 2.8, 0.13),
    Reported("Unrolled GAN", _LED, 7.6, 35.6),
    Reported("VEEGAN", _LED, 8, 52.9),
    Reported("LED", _LED, 8, 63.5),
    Reported("PacGAN2", _PACGAN, 7.9, 95.6),
    Reported("GDPP-GAN", _GDPP, 8, 71.7),
)
GRID = (
    Reported("GAN", _LED, 3.3, 0.5),
    Reported("ALI", _LED, 15.8, 1.6),
    Reported("Unrolled GAN", _LED, 23.6, 16),
    Reported("VEEGAN", _LED, 24.6, 40),
    Reported("LED", _LED, 16.2, 68.3),
    Reported("PacGAN4", _PACGAN, 24.8, 93.6),
    Reported("GDPP-GAN", _GDPP, 24.8, 68.5),
)
TABLE1 = {"ring": RING, "grid": GRID}
