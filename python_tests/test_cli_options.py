"""Options of the command line, whatever they do."""

import inspect
from functools import wraps

import pytest
import tyro

from led_fast.cli import COMMANDS, main

SEVERAL = [
    (name, option)
    for name, command in COMMANDS.items()
    for option, parameter in inspect.signature(command).parameters.items()
    if parameter.default == ()
]


def test_some_options_take_several_values():
    assert ("train", "ignore") in SEVERAL and ("evaluate", "ood") in SEVERAL


@pytest.mark.parametrize("name, option", SEVERAL)
def test_a_value_that_is_given_again_takes_no_other_ones_place(name, option):
    """Errors advise `--ignore a --ignore b`."""
    given = wraps(COMMANDS[name])(lambda **options: options)
    required = {"train": ["ring", "--out", "run"], "evaluate": ["run"]}[name]
    parsed = tyro.cli(given, args=[*required, f"--{option}", "a", "b", f"--{option}", "c"])[option]
    assert [str(value) for values in parsed for value in values] == ["a", "b", "c"]


def test_the_list_of_commands_fits_a_screen(capsys):
    def said(*arguments):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
        return capsys.readouterr().out

    listed = said("--help")
    assert all(name in listed for name in COMMANDS) and listed.count("\n") < 30
    assert "Ctrl-C" not in listed and "Ctrl-C" in said("train", "--help")
