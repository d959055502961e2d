"""Prints docs/transforms.md: `python python_tests/transforms_table.py > docs/transforms.md`.

The cells are those that test_transforms.py runs, and a test there holds the page to them.
"""

from transforms_cases import FLOW_LAYERS, LAYERS, OPERATORS, Case
from transforms_checks import OF_LAYERS, TRANSFORMS

HEAD = """# Operators and layers under PyTorch's transforms

Each cell is a test in `python_tests/test_transforms.py`: values and derivatives in float64 against plain PyTorch
(`led_fast.ops.use_reference()`) and reverse mode, along random directions of all inputs and parameters. A cell that is
not supported raises an error, which the test reads. Made by `python python_tests/transforms_table.py`.

- `torch.jit.trace`: sizes may differ from the example's; with a stride, by multiples of it.
- Autocast: x in the low precision, parameters in float32. Norms, log-determinants, gradients of parameters: float32.
- Outside autocast, x and weight must have one dtype, as for `torch.nn.Conv2d`.
- Soft-ReLU's own parameters are numbers or tensors of shape (F,); a 0-d tensor of which a derivative is wanted raises
  TypeError.
"""


FLOWS = """Each cell is of both directions, in eval mode. (`Inflate`: of its inverse, because forward draws noise;
`Slice` has no inverse.) Of the sizes, the batch varies. In training mode `BatchNorm` moves its averages and `ActNorm`
starts by its first batch, so that vmap raises, and compilers break the graph.
"""


def page() -> str:
    """The whole page."""
    notes: list[str] = []
    parts = [HEAD, "## Operators\n", table(OPERATORS, list(TRANSFORMS), notes)]
    every = [*TRANSFORMS, *OF_LAYERS]
    parts += ["## Layers\n", table(LAYERS, every, notes)]
    parts += ["## Layers of flows, forward and inverse\n", FLOWS, table(FLOW_LAYERS, every, notes)]
    return "\n".join([*parts, *(f"{i}. {note}" for i, note in enumerate(notes, 1))]).rstrip() + "\n"


def table(subjects: dict, transforms: list[str], notes: list[str]) -> str:
    cases: dict[str, Case] = {name: make() for name, make in subjects.items()}
    lines = ["| | " + " | ".join(cases) + " |", "|---" * (len(cases) + 1) + "|"]
    for transform in transforms:
        cells = [mark(case, transform, notes) for case in cases.values()]
        lines.append(f"| {transform} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mark(case: Case, transform: str, notes: list[str]) -> str:
    if transform not in case.cannot:
        return "yes"
    note = f"raises “{case.cannot[transform]}”"
    if note not in notes:
        notes.append(note)
    return f"no ({notes.index(note) + 1})"


if __name__ == "__main__":
    print(page(), end="")
