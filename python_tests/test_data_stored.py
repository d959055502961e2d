"""Arrays of .npy files, read some rows at a time."""

import numpy as np
import pytest

from led_fast.data.stored import open_npy


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 5), (7, 1, 2, 3), (0, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_parts_are_the_rows_of_the_array_in_either_order(tmp_path, shape, order, rows):
    array = np.arange(np.prod(shape), dtype=">i4").reshape(shape).copy(order)
    np.save(tmp_path / "a.npy", array)
    with open_npy(tmp_path / "a.npy") as stored:
        assert (stored.shape, stored.dtype) == (array.shape, array.dtype)
        parts = list(stored.parts(rows))
    assert [len(part) for part in parts] == [min(rows, 7 - start) for start in range(0, len(array), rows)]
    assert all((part == array[i * rows : (i + 1) * rows]).all() for i, part in enumerate(parts))
    with open_npy(tmp_path / "a.npy") as stored:
        assert np.array_equal(stored.whole(), array)
