"""The one exception that means: the person at the keyboard can put this right."""


class InputError(ValueError):
    """Bad input from outside: a file, a folder, an option.

    Its message is one sentence that names what is wrong and where. The command line prints it and exits with
    code 2; everywhere else it is an ordinary ValueError.
    """
