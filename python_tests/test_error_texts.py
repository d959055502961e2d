"""One dialect of errors: `name: argument must ..., got ...`; `place: want ..., got ...` of what people give."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "led_fast"
LIBRARY = "ops", "nn", "flows", "density", "models"
# They say what cannot be done at all.
OTHER_WORDS = {
    "forward_with_score: Slice drops features, and has no score of those it keeps",
    "resample: the importance weights are not finite, or all are zero",
}


def texts(kinds, *folders):
    """(where, text) of every error of some kinds that is raised with a text; {} for what is put in."""
    for folder in folders:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                    name, text = getattr(node.exc.func, "id", ""), node.exc.args[0]
                    if name in kinds and isinstance(text, ast.Constant | ast.JoinedStr):
                        parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                        said = "".join(
                            str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else "{}"
                            for part in parts
                        )
                        yield f"{path.relative_to(PACKAGE)}:{node.lineno}", said


@pytest.mark.parametrize("where, said", list(texts({"TypeError", "ValueError"}, *LIBRARY)))
def test_the_library_says_who_what_must_be_and_what_came(where, said):
    name, _, rest = said.partition(": ")
    assert said in OTHER_WORDS or (rest and " " not in name and "got" in rest), where
    assert said in OTHER_WORDS or any(word in rest for word in ("must", "go together")), where


def test_errors_of_what_people_give_begin_with_the_place():
    found = dict(texts({"InputError"}, "."))
    assert len(found) > 100
    bare = {where: said for where, said in found.items() if ": " not in said and "{} of {}" not in said}
    assert not bare
