"""Running `led-fast` in this process."""

from led_fast.cli import main


def run(*arguments):
    """The exit code of a command."""
    return main([str(argument) for argument in arguments])
