"""Which data a command is about, and of which kind they are."""

from pathlib import Path

from rich.console import Console

from led_fast.data.tables import SUFFIXES
from led_fast.errors import InputError
from led_fast.kinds import all_kinds, find_kind
from led_fast.kinds.kind import Kind
from led_fast.terminal import say
from led_fast.training import Reading, Source, TrainConfig


def kind_of(place: str, preset: str | None, reading: Reading) -> Kind:
    """The kind of the data at a place: that of a preset, if only one has it; else the first that claims them.

    Raises:
        InputError: nothing claims them, or no kind has the preset.
    """
    kinds = all_kinds()
    if preset is not None:
        having = [kind for kind in kinds if preset in kind.presets]
        if not having:
            known = "; ".join(f"for {kind.about} {', '.join(kind.presets)}" for kind in kinds)
            raise InputError(f"--preset: want {known}, got {preset!r}")
        kinds = having
    if preset is not None and len(kinds) == 1:
        return kinds[0]
    for kind in kinds:
        if kind.claims(place, reading):
            return kind
    got = "a kind of file that is not known" if Path(place).exists() else "nothing of that name"
    known = f"ring, grid, a {', '.join(SUFFIXES)} file, or a folder of images"
    raise InputError(f"{place}: want {known}, got {got}")


def open_target(place: str, preset: str | None, reading: Reading) -> Source:
    """Opens what `led-fast train` is to learn from.

    Args:
        place: ring, grid, a file or a folder.
        preset: networks and recipe; None: what suits the data.
        reading: how to read them.

    Raises:
        InputError: they do not go together, or the data cannot be used.
    """
    kind = kind_of(place, preset, reading)
    check_reading(kind, reading)
    return kind.open(place, preset, reading)


def reopen(config: TrainConfig, strict: bool = False, place: str | None = None) -> Source:
    """Opens the data of a run again; InputError where their content has changed.

    Args:
        config: of the run.
        strict: stop at an item that cannot be used.
        place: where they are now; None: where they were.
    """
    found, kind = place or config.data, find_kind(config.kind)
    reading = Reading(strict, config.reading.ignore, config.reading.drop_missing)
    check_reading(kind, reading)
    try:
        source = kind.open(found, config.preset, reading)
    except InputError as error:
        if place is not None or Path(config.data).exists():
            raise
        raise InputError(f"{error}; these are the run's data: --data tells where they are now") from None
    if source.fingerprint != config.data_fingerprint:
        raise InputError(f"{found}: is not the data, {config.data}, that the run was begun with")
    return source


def check_reading(kind: Kind, reading: Reading) -> None:
    """InputError where a kind has no such choice."""
    given = {"--strict": reading.strict, "--ignore": reading.ignore, "--drop-missing": reading.drop_missing}
    require(kind, *(option for option, value in given.items() if value))


def require(kind: Kind, *abilities: str) -> None:
    """InputError naming an option or a command that means nothing for a kind of data."""
    for ability in abilities:
        if ability not in kind.can:
            able = " and ".join(other.about for other in all_kinds() if ability in other.can)
            raise InputError(f"{ability}: is for {able or 'no kind of data'}, and these are {kind.about}")


def remark(kind: Kind, source: Source, console: Console) -> None:
    """Prints what was noted when data were opened."""
    for line in kind.remarks(source):
        say(console, line)
