"""Every operator and layer under every transform of PyTorch; docs/transforms.md is the table of these tests."""

import warnings
from pathlib import Path

import pytest
import torch
from transforms_cases import FLOW_LAYERS, LAYERS, OPERATORS, Case
from transforms_checks import OF_LAYERS, SLOW, TRANSFORMS, Check
from transforms_table import page

SUBJECTS = {**OPERATORS, **LAYERS, **{f"flows.{name}": make for name, make in FLOW_LAYERS.items()}}
CELLS = [(name, check) for name in SUBJECTS for check in TRANSFORMS]
CELLS += [(name, check) for name in SUBJECTS if name not in OPERATORS for check in OF_LAYERS]
QUICK = {
    "soft_relu",
    "circulant_logdet",
    "perpendicular_norm, image",
    "CircularConv2d",
}  # compiled by default


def cell(name: str, check: str):
    slow = check in SLOW and name not in QUICK
    return pytest.param(name, check, id=f"{name}-{check}", marks=[pytest.mark.slow] if slow else [])


def run(name: str, check: str) -> None:
    case: Case = SUBJECTS[name]()
    function: Check = {**TRANSFORMS, **OF_LAYERS}[check]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, whose tracer is tested
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # checks of arguments read shapes
        if check not in case.cannot:
            return function(case)
        with pytest.raises(Exception, match=case.cannot[check]):
            function(case)


@pytest.mark.parametrize(("name", "check"), [cell(*c) for c in CELLS])
def test_transform(name: str, check: str) -> None:
    run(name, check)


def test_the_page_is_this_table() -> None:
    assert (Path(__file__).parent.parent / "docs/transforms.md").read_text() == page()
