"""The one exception that means: the person at the keyboard can put this right; and what others say in short."""


class InputError(ValueError):
    """Bad input from outside: a file, a folder, an option.

    Its message is one sentence that names what is wrong and where. The command line prints it and exits with
    code 2; everywhere else it is an ordinary ValueError.
    """


def first_line(error: Exception) -> str:
    """What an error of others says in short: its first line that is not blank, or its type."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
