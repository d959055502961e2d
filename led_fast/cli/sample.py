"""led-fast sample: draws from a run."""

from typing import Annotated

from tyro.conf import arg

from led_fast.cli.data import require
from led_fast.cli.doubt import doubt, warn
from led_fast.cli.options import Output, Run, check_density, check_new, check_seed
from led_fast.errors import InputError
from led_fast.kinds import find_kind
from led_fast.training import RunDirectory, load_model

Count = Annotated[
    int | None, arg(aliases=["-n"], metavar="INT", help_behavior_hint="(default: 1000, or 100 images)")
]


def sample_command(run: Run, n: Count = None, refine: bool = False, seed: int = 0, out: Output = None) -> int:
    """Draw points, rows of a table, or images from a trained density.

    led-fast sample runs/ring -n 10000 --refine --out points.npy

    led-fast sample runs/table --out rows.parquet

    led-fast sample runs/mnist --out samples.png

    Rows have the table's own columns and types, with discrete values on their lattices. A .png of images shows the
    densest first, with the log density, in nats, above each, and says so where log α is called unreliable.

    Args:
        run: folder of a finished run.
        n: how many.
        refine: resample the generator's draws by importance, so that they follow the density itself; images also take
            a few Langevin steps, so that what was chosen twice parts. (led-fast refine is another thing: latent
            ascent.)
        seed: of the draws.
        out: a new file: for points .npy, .csv or .png; for tables .csv, .tsv, .parquet or .npy; for images .npy (uint8,
            of shape (n, C, H, W)) or .png.
    """
    if n is not None and n < 1:
        raise InputError(f"-n: want a positive number, got {n}")
    check_seed(seed)
    trained = load_model(RunDirectory.open(run))
    kind = find_kind(trained.config.kind)
    check_new(out, kind.sample_suffixes)
    if refine:
        require(kind, "--refine")
        check_density(run, trained.config)
    about = doubt(trained.model.verdict) if trained.config.recipe.has_density else ""
    kind.write_samples(trained, n or kind.default_samples, refine, seed, out, about)
    if refine or (out is not None and out.suffix == ".png"):
        warn(about)
    return 0
