"""Which device is the GPU, and what random generators hold, is decided in one place each."""

import re
from pathlib import Path

import pytest

import led_fast

PACKAGE = Path(led_fast.__file__).parent
ONLY_IN = {
    r"torch\.(random\.)?(manual_seed|fork_rng|seed)\(": {"random_state.py"},
    r"(torch\.cuda|torch)\.[gs]et_rng_state": {"random_state.py"},
    r"torch\.cuda\.(is_available|set_device|current_device)": {
        "gpu.py",
        "info.py",
        "training/graph.py",
    },  # which are about CUDA itself
    r"init_process_group": {"training/world.py"},
    r"Console\((?!quiet=True\))": {"terminal.py"},
    r"\.savefig\(": {"figures/style.py"},
}


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_nothing_goes_past_it(pattern):
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(re.search(pattern, line) for line in path.read_text().splitlines() if ">>>" not in line)
    }
    assert found <= ONLY_IN[pattern]
