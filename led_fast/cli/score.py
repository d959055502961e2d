"""led-fast score: log densities of a user's data."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from led_fast.cli.doubt import doubt, warn
from led_fast.cli.options import Output, Run, check_density, check_new
from led_fast.errors import InputError
from led_fast.kinds import find_kind
from led_fast.kinds.write import write_rows
from led_fast.terminal import console
from led_fast.training import RunDirectory, load_model


def score_command(
    run: Run, data: Annotated[Positional[Path], arg(metavar="FILE|DIR")], out: Output = None
) -> int:
    """Compute the log density, in nats, of every row of a file, or of every image.

    led-fast score runs/ring points.csv --out scores.csv

    led-fast score runs/table rows.csv --out scores.csv

    led-fast score runs/mnist FOLDER --out scores.csv

    Rows of a table also get their rank (1 is the densest, the last is the strangest), and the hundred strangest of them
    the columns that make them odd: those with which another value would be a nat or more denser. Images also get bits
    per dimension, and their rank; they are read some at a time, so there may be more than fit into memory. Pixels get
    noise of one level, drawn once: the same picture has another value elsewhere, by some nats. Where the last report
    calls log α unreliable, a warning says so: an error of log α moves all values alike and changes no rank.

    Args:
        run: folder of a finished run.
        data: a file of points, or of a table, whose columns are found by their names; for images, whatever led-fast
            train takes.
        out: a new .csv file, or for points .npy.
    """
    trained = load_model(RunDirectory.open(run))
    check_new(out, find_kind(trained.config.kind).score_suffixes)
    check_density(run, trained.config)
    if trained.model.log_normalizer.isnan():
        raise InputError(f"{run}: its log α could not be estimated, so that it has no densities to score by")
    write_rows(find_kind(trained.config.kind).score(trained, data, console(stderr=True)), out)
    warn(doubt(trained.model.verdict))
    return 0
