"""Columns are told apart: continuous, on a lattice, constant; what has no density is refused or said."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from led_fast.data.tables import Column, describe, is_planar, read_table, round_to_lattice, table_of
from led_fast.errors import InputError

N = 5_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def columns_of(*values):
    return describe(table_of(np.stack(values, 1)))


def only(values):
    """What one column is, beside a continuous one."""
    filler = np.random.default_rng(9).standard_normal(len(values))
    columns, _, notes = columns_of(filler, np.asarray(values, dtype=np.float64))
    assert not columns[0].discrete
    return columns[1], notes


def test_small_integers_in_both_columns_are_discrete(rng):
    columns, constants, notes = columns_of(*rng.integers(0, 5, (2, N)).astype(float))
    assert [(c.step, c.offset, c.low, c.high, c.distinct) for c in columns] == [(1, 0, 0, 4, 5)] * 2
    assert constants == () and notes == ()
    assert not is_planar(table_of(rng.integers(0, 5, (N, 2)).astype(float)))


@pytest.mark.parametrize("step, decimals", [
    (1, 0), (2, 0), (100, 0), (7, 0), (0.1, 1), (0.5, 1), (0.25, 2), (0.03, 2), (0.125, 3), (1e-6, 6), (4096, 0),
])  # fmt: skip
@pytest.mark.parametrize("start", [0, -3, 12])
def test_the_step_is_the_greatest_common_divisor(rng, step, decimals, start):
    exact = (start + rng.integers(0, 60, N)) * round(step * 10**decimals) / 10**decimals
    column, _ = only(exact)
    assert (column.step, column.decimals) == (step, decimals)
    np.testing.assert_array_equal(round_to_lattice(column, exact), exact)
    for noise in (exact * (1 + 4e-16), np.float64(np.float32(exact))):  # computed, or kept in float32
        column, _ = only(noise)
        assert (column.step, column.decimals) == (step, decimals)
        np.testing.assert_array_equal(round_to_lattice(column, noise), exact)


def test_the_lattice_need_not_hold_zero(rng):
    column, _ = only(0.3 + 6.8 * rng.integers(0, 2, N))
    assert (column.step, column.offset, column.distinct) == (6.8, 0.3, 2)
    assert round_to_lattice(column, np.array([0.31, 6.0, 8.0])).tolist() == [0.3, 7.1, 7.1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(1, 10**6), st.integers(0, 6), st.integers(-1000, 1000), st.integers(2, 50), st.integers(0, 9)
)
def test_any_lattice_is_found(step, decimals, start, cells, seed):
    """The oracle is integer arithmetic."""
    points = (start + np.random.default_rng(seed).integers(0, cells, 2_000)) * step
    if points.min() == points.max():
        return
    column, _ = only(points / 10**decimals)
    divisor = int(np.gcd.reduce(points - points.min()))
    assert column.step == pytest.approx(divisor / 10**decimals, rel=1e-15)
    assert column.distinct == len(np.unique(points))
    np.testing.assert_array_equal(round_to_lattice(column, points / 10**decimals), points / 10**decimals)


def test_continuous_columns(rng):
    normal = rng.standard_normal(N)
    values = {
        "normal": normal,
        "of seven decimals": np.round(rng.integers(0, 40, N) * 1e-7, 7),
        "in float32": np.float64(np.float32(normal)),
        "with copies": normal[rng.integers(0, N, N)],
        "rounded, without repeats": np.round(1e4 * normal, 3),
        "on a lattice of thirds": rng.integers(0, 40, N) / 3,
        "in large numbers": 1e300 * normal,
    }
    for name, column in values.items():
        assert only(column)[0].step == 0, name
        assert only(column)[0].distinct is None, name
        np.testing.assert_array_equal(round_to_lattice(only(column)[0], column), column)


def test_one_odd_value_among_all_rows_ends_a_lattice(rng):
    values = rng.integers(0, 5, 300_000).astype(float)  # more rows than the sample
    for row in (0, 150_000, 299_999):
        odd = values.copy()
        odd[row] = 2.1234567
        assert not only(odd)[0].discrete
        odd[row] = 2.25
        assert (only(odd)[0].step, only(odd)[0].distinct) == (0.25, 6)


def test_rare_values_beside_one(rng):
    values = np.full(300_000, 7.0)
    values[[5, 200_001]] = 9, 3
    column, _ = only(values)
    assert (column.step, column.low, column.high, column.distinct) == (2, 3, 9, 3)


def test_lattices_of_many_cells_are_not_counted(rng):
    column, _ = only(rng.integers(0, 20, N) * 10**6 + rng.integers(0, 2, N))
    assert column.discrete and column.distinct is None


def test_huge_values_on_a_lattice(rng):
    column, _ = only(1e12 + rng.integers(0, 50, N))
    assert (column.step, column.offset, column.distinct) == (1, 1e12, 50)
    column, _ = only(2.0**60 + 2.0**40 * rng.integers(0, 50, N))
    assert column.step == 2.0**40


@pytest.mark.parametrize("values, what", [
    (lambda rng: 2e15 + rng.integers(0, 50, N), "steps of 1 at values of 2e"),
    (lambda rng: 2.0**60 + 512.0 * rng.integers(0, 50, N), "steps of 512"),
    (lambda rng: 1e12 + 1e-2 * rng.standard_normal(N), "at values of 1e"),
])  # fmt: skip
def test_steps_finer_than_float64_are_refused(rng, values, what):
    with pytest.raises(InputError) as caught:
        only(values(rng))
    assert "column 'x2' has" in str(caught.value) and what in str(caught.value)
    assert "subtract an offset" in str(caught.value) and "--ignore x2" in str(caught.value)


def test_constant_columns(rng):
    columns, constants, notes = columns_of(np.full(N, 3.5), rng.standard_normal(N), np.full(N, -0.0))
    assert [(c.name, c.position) for c in columns] == [("x2", 1)]
    assert [(c.name, c.position, c.value) for c in constants] == [("x1", 0, 3.5), ("x3", 2, 0.0)]
    assert "x1 = 3.5" in notes[0]
    with pytest.raises(InputError, match="every column is constant"):
        columns_of(np.ones(N), np.zeros(N))


def test_a_spike_in_a_continuous_column_is_said(rng):
    values = np.where(rng.random(N) < 0.4, 0, rng.standard_normal(N))
    column, notes = only(values)
    assert not column.discrete
    assert len(notes) == 1 and "column x2 is continuous, but 4" in notes[0] and "exactly 0" in notes[0]
    values = np.where(rng.random(N) < 0.04, 0, rng.standard_normal(N))
    assert only(values)[1] == ()


def test_equal_columns(rng):
    a, b, w = rng.standard_normal(N), rng.standard_normal(N), rng.integers(0, 3, N).astype(float)
    with pytest.raises(InputError, match=r"columns 'x1' and 'x3' are equal.*--ignore x3"):
        columns_of(a, b, a)
    _, _, notes = columns_of(a, w, w)  # noise of their own makes a density of these
    assert "columns 'x2' and 'x3' are equal" in notes[0]
    almost = a.copy()
    almost[-1] += 1e-3
    columns_of(a, b, almost)


def test_linear_functions_of_columns(rng):
    a, b, c = rng.standard_normal((3, N))
    for dependent in (a + b, 1.8 * a + 32, 1e-9 * a - 1e3 * b):
        with pytest.raises(InputError, match="column 'x4' is a linear function of columns before it"):
            columns_of(a, c, b, dependent)
    columns_of(a, b, a + 1e-6 * c, a**2)
    columns_of(a, b, np.round(a + b, 2))


def test_columns_are_json(rng):
    columns, constants, _ = columns_of(rng.integers(0, 5, N), np.ones(N))
    for column in columns:
        assert Column(**json.loads(json.dumps(dataclasses.asdict(column)))) == column
    assert json.loads(json.dumps(dataclasses.asdict(constants[0])))["value"] == 1


def test_points_are_two_continuous_columns(rng, tmp_path):
    a, b = rng.standard_normal((2, N))
    assert is_planar(table_of(np.stack([a, b], 1)))
    assert not is_planar(table_of(np.stack([a, b, a * b], 1)))
    assert not is_planar(table_of(np.stack([a, np.round(b)], 1)))
    assert not is_planar(table_of(np.stack([a, np.ones(N)], 1)))
    lines = "".join(f"{x!r},{y!r},k\n" for x, y in zip(a.tolist(), b.tolist(), strict=True))
    (tmp_path / "t.csv").write_text("a,b,c\n" + lines)
    assert not is_planar(read_table(tmp_path / "t.csv", ignore=["c"]))


def test_arrays_with_values_that_cannot_be_used():
    for values, wanted in (
        ([[1, 2], [1, np.nan]], "row 2"),
        ([[1, 2], [np.inf, 1]], "row 2"),
        ([[1, 2**53 + 1]], "digits"),
        ([], "rows"),
    ):
        with pytest.raises(InputError, match=wanted):
            table_of(np.array(values), place="frame")


def test_a_lattice_ends_where_its_values_do():
    columns, _, _ = describe(table_of(np.repeat(np.arange(5.0), 30)[:, None]))
    assert round_to_lattice(columns[0], np.array([-3.0, 0.4, 2.6, 9.9])).tolist() == [0, 0, 3, 4]


def test_a_column_that_counts_the_rows_is_named(tmp_path):
    random = np.random.default_rng(0)
    values = np.column_stack([np.arange(7, 107), random.normal(size=100), random.permutation(100)])
    _, _, notes = describe(table_of(values, ["id", "x", "mixed"]))
    assert [note for note in notes if "counts" in note] == [
        "column 'id' counts the rows: --ignore id leaves it out"
    ]
    _, _, notes = describe(table_of(values[:10], ["id", "x", "mixed"]))
    assert not any("counts" in note for note in notes)
