"""The command line: one file a command."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps

import tyro
from tyro.conf import FlagCreatePairsOff

from led_fast import __version__
from led_fast.cli.evaluate import evaluate_command
from led_fast.cli.interpolate import interpolate_command
from led_fast.cli.refine import refine_command
from led_fast.cli.reproduce import reproduce_command
from led_fast.cli.sample import sample_command
from led_fast.cli.score import score_command
from led_fast.cli.train import train_command
from led_fast.density import UnreliableNormalizerWarning
from led_fast.errors import InputError
from led_fast.reproduce import Stopped
from led_fast.surroundings import usual
from led_fast.terminal import any_text
from led_fast.training import DivergenceError, Interrupted, PeerLostError

COMMANDS: dict[str, Callable[..., int]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "sample": sample_command,
    "score": score_command,
    "interpolate": interpolate_command,
    "refine": refine_command,
    "reproduce": reproduce_command,
}


@usual()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit code: 0; 1 where training diverged, or another process of it died; 2 for bad input; 128 + n
        where signal n stopped it.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"led-fast {__version__}")
        return 0
    try:
        with any_text(), warnings.catch_warnings():  # commands say it in their own words, see doubt.py
            warnings.simplefilter("ignore", UnreliableNormalizerWarning)
            about_all = arguments in (["--help"], ["-h"])
            return tyro.extras.subcommand_cli_from_dict(
                {name: _brief(command) for name, command in COMMANDS.items()} if about_all else COMMANDS,
                prog="led-fast",
                description="Learn a normalised density, and a sampler of it, from points, tables or images. "
                "led-fast COMMAND --help tells all about a command, led-fast --version the version.",
                args=arguments,
                config=(FlagCreatePairsOff,),
            )
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    except InputError as error:
        code, message = 2, str(error)
    except OSError as error:
        code, message = 2, f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (DivergenceError, PeerLostError) as error:
        code, message = 1, str(error)
    except Interrupted as stop:
        code, message = 128 + stop.signal, f"{stop}; --resume goes on from there"
    except Stopped as stop:
        code, message = 128 + stop.signal, f"{stop}; the same command goes on from there"
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    with any_text():
        print(f"led-fast: {message}", file=sys.stderr)
    return code


def _brief(command: Callable[..., int]) -> Callable[..., int]:
    """A command with one line of help, for the list of all of them."""

    @wraps(command)
    def brief(*arguments: object, **options: object) -> int:
        return command(*arguments, **options)

    brief.__doc__ = (command.__doc__ or "").partition("\n")[0]
    return brief
