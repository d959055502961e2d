"""What was reported elsewhere: for the ring and the grid by several, for images in the paper's Table 2."""

from typing import NamedTuple


class Reported(NamedTuple):
    """Modes found and % of samples within 3σ of a mode; None where there is no such number."""

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


class ReportedImages(NamedTuple):
    """A row of Table 2: FID, and bits per pixel of test images and of samples; None where it has no such number."""

    method: str
    fid: float | None
    test: float | None = None
    generator: float | None = None
    critic: float | None = None


TABLE2 = {
    "MNIST": (
        ReportedImages("DC-GAN", 5.6),
        ReportedImages("Glow", 11),
        ReportedImages("LED-1", 118, 0.509, 1.011, 8.245),
        ReportedImages("LED-64", 4.3, 0.546, 0.992, 8.75),
        ReportedImages("LED-256", 4.19, 0.530, 1.003, 8.515),
    ),
    "CelebA": (
        ReportedImages("DC-GAN", 13),
        ReportedImages("LED-1", 209, 0.019, 0.025, 2.366),
        ReportedImages("LED-64", 24, 0.009, 0.012, 1.049),
        ReportedImages("LED-256", 36, 0.022, 0.022, 0.012),
    ),
}
