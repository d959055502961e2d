"""led-fast score: log densities of a user's points."""

from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import Positional, arg

from led_fast.cli.columns import write_columns
from led_fast.cli.options import Output, Run, check_new
from led_fast.data import read_rows
from led_fast.errors import InputError
from led_fast.training import load

_SCORE_BATCH = 16_384


def score_command(
    run: Run, file: Annotated[Positional[Path], arg(metavar="FILE")], out: Output = None
) -> int:
    """Compute the log density, in nats, of every row of a file.

    led-fast score runs/ring points.csv --out scores.csv

    Args:
        run: folder of a finished run.
        file: a .npy or .csv file with two columns; every value must be finite.
        out: a new .csv or .npy file.
    """
    check_new(out, (".csv", ".npy"))
    rows = read_rows(file)
    model = load(run)
    with torch.no_grad():
        scores = torch.cat([model.log_prob(chunk) for chunk in rows.split(_SCORE_BATCH)])
    if scores.isnan().any():
        row = int(scores.isnan().int().argmax())
        raise InputError(f"{file}: row {row + 1} is too far from the data to score: {rows[row].tolist()}")
    write_columns(scores[:, None].double().numpy(), ["log_density"], out)
    return 0
