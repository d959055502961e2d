"""LED beside its rivals on tables: exact truths, the same rows for everyone, densities that integrate to one."""

import math
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from table_files import write_files

from led_fast.errors import InputError
from led_fast.reproduce.tables import led, rivals, synthetic
from led_fast.reproduce.tables.coordinates import after_marginal, standardized
from led_fast.reproduce.tables.datasets import LabelledTable, open_dataset
from led_fast.reproduce.tables.splits import Rows, anomaly_split, likelihood_split
from led_fast.reproduce.tables.zuko_flow import FlowSettings

SPACES = [standardized, after_marginal]


@pytest.fixture(autouse=True)
def one_thread():
    """As the cells have it: the time of a process is that of all its threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def midpoints(low, high, count):
    edges = np.linspace(low, high, count + 1)
    return (edges[1:] + edges[:-1]) / 2, (high - low) / count


def integral(log_prob, first, second):
    """Of a density in the plane by the midpoint rule over (low, high, count) a side, and its E[log p]."""
    (x, dx), (y, dy) = midpoints(*first), midpoints(*second)
    density = log_prob(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2))
    weights = np.exp(density) * dx * dy
    return weights.sum(), (weights[weights > 0] * density[weights > 0]).sum()


# ---- synthetic data ----------------------------------------------------------------------------------


def test_mixture_in_the_plane_is_normalised_and_its_samples_are_its_own():
    truth = synthetic.mixture(dim=2, components=5)
    box = (-9.0, 9.0, 450)
    total, negentropy = integral(truth.log_prob, box, box)
    assert total == pytest.approx(1, abs=1e-6)
    sampled = truth.log_prob(truth.sample(10_000, np.random.default_rng(0)))
    assert sampled.mean() == pytest.approx(negentropy, abs=4 * sampled.std() / 100)


def test_samples_of_the_mixture_follow_its_density():
    """E[p(x - d) / p(x)] over x ~ p is 1 for every shift d, in any number of columns."""
    truth = synthetic.mixture()
    x = truth.sample(10_000, np.random.default_rng(1))
    for axis in range(truth.dim):
        shift = 0.05 * (np.arange(truth.dim) == axis)
        ratio = np.exp(truth.log_prob(x - shift) - truth.log_prob(x))
        assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / 100), axis


def test_mixture_against_normals_by_their_covariance():
    """One component: the moments of many samples give the same density as the closed form."""
    truth = synthetic.mixture(dim=4, components=1)
    x = truth.sample(400_000, np.random.default_rng(2))
    mean, covariance = x.mean(axis=0), np.cov(x.T)
    z = x[:200] - mean
    expected = -0.5 * (z @ np.linalg.inv(covariance) * z).sum(axis=1)
    expected -= 0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1]
    np.testing.assert_allclose(truth.log_prob(x[:200]), expected, atol=0.05)


def test_checkerboard():
    total, negentropy = integral(synthetic.log_checkerboard, (-3.0, 3.0, 60), (-3.0, 3.0, 60))
    assert total == pytest.approx(1, abs=1e-12) and negentropy == pytest.approx(-math.log(8), abs=1e-12)


def test_moons_are_normalised_and_integrate_the_arc():
    total, _ = integral(synthetic.log_moons, (-1.6, 2.6, 105), (-1.1, 1.6, 90))
    assert total == pytest.approx(1, abs=1e-7)
    points = np.array([[0.0, 1.0], [1.9, 0.4], [0.5, 0.2], [-1.1, -0.1]])

    def along(angle, point):
        moons = [(math.cos(angle), math.sin(angle)), (1 - math.cos(angle), 0.5 - math.sin(angle))]
        squares = [(point[0] - a) ** 2 + (point[1] - b) ** 2 for a, b in moons]
        return sum(math.exp(-s / (2 * 0.08**2)) for s in squares) / (2 * math.pi * 2 * math.pi * 0.08**2)

    expected = [
        quad(along, 0, math.pi, (p,), epsabs=1e-13, limit=500, points=[0.1, 1.5, 3])[0] for p in points
    ]
    np.testing.assert_allclose(np.exp(synthetic.log_moons(points)), expected, rtol=1e-6)


def test_edges_have_the_entropy_of_their_parts():
    truth = synthetic.edges()
    values = truth.log_prob(truth.sample(10_000, np.random.default_rng(3)))
    _, moons = integral(synthetic.log_moons, (-1.6, 2.6, 105), (-1.1, 1.6, 90))
    expected = -math.log(8) + moons - 6 * math.log(2 * math.pi * math.e)
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / 100)


# ---- data sets and splits ------------------------------------------------------------------------------


def test_files_are_read(tmp_path):
    table = open_dataset("letter", write_files(tmp_path))
    assert table.columns == ("whole", "real", "other") and table.values.shape == (300, 3)
    assert table.values.dtype == np.float64 and likelihood_split(table, 0).train.steps.tolist() == [1, 0, 0]
    assert set(table.labels) == set("ABCDE") and table.normal == ("A", "B", "C")
    np.testing.assert_array_equal(table.values[:5, 0], [0, 1, 2, 3, 0])
    assert open_dataset("satellite", tmp_path).normal == ("p", "q", "r")
    assert table.fingerprint != table.first(299).fingerprint and len(table.first(5).labels) == 5


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r"letter\.csv: no such file; --data DIR must hold letter\.csv, shuttle\.csv, satellite\.csv"),
        ("a,b\n1,2\n", r"letter\.csv: want a column 'class', got a, b"),
        ("a,class\nred,A\n", r"letter\.csv: column 'a', row 1: 'red' is not a number$"),
        ("a,b,class\n1,2,A\n1,A\n", r"letter\.csv: line 3: want 3 fields, got 2"),
        ("a,class\n1,A\n,A\n", r"letter\.csv: column 'a', row 2: the value is missing"),
        ("", r"letter\.csv: is empty"),
        ("a,class\n", r"letter\.csv: holds no rows"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "letter.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_dataset("letter", tmp_path)


def test_digits_and_synthetic_sets():
    pytest.importorskip("sklearn")
    digits = open_dataset("digits", "nowhere")
    assert digits.values.shape == (1797, 64)
    split = likelihood_split(digits, 0)
    assert split.test.shape[1] == 61 and split.train.steps.min() >= 1  # three pixels are always white
    mixture = open_dataset("mixture", "nowhere")
    assert mixture.values.shape == (26_000, 8) and likelihood_split(mixture, 0).train.steps.max() == 0
    np.testing.assert_array_equal(mixture.values[:9], open_dataset("mixture", "nowhere").values[:9])


def numbered(rows=1000):
    """A row is known by its first value."""
    values = np.stack([np.arange(rows) + 0.5, np.arange(rows) % 7, np.full(rows, 3.0)], axis=1)
    labels = np.where(np.arange(rows) % 5 == 0, "odd", "usual")
    return LabelledTable("numbered", values, ("id", "level", "constant"), labels, ("usual",))


def test_every_row_has_one_part_and_everyone_the_same():
    table = numbered()
    split, again, other = (likelihood_split(table, seed) for seed in (0, 0, 1))
    parts = [split.train.values[:, 0], split.validation.values[:, 0], split.test[:, 0]]
    assert [len(part) for part in parts] == [700, 100, 200] and split.odd is None
    assert sorted(np.concatenate(parts).tolist()) == table.values[:, 0].tolist()
    np.testing.assert_array_equal(split.test, again.test)
    np.testing.assert_array_equal(split.train.values, again.train.values)
    assert set(other.test[:, 0]) != set(split.test[:, 0])
    assert split.train.steps.tolist() == [0, 1]  # the constant column is gone everywhere
    assert split.train.values.shape[1] == split.validation.values.shape[1] == split.test.shape[1] == 2
    noise = split.test[:, 1] - np.rint(split.test[:, 1])
    assert np.abs(noise).max() <= 0.5 and noise.std() == pytest.approx(12**-0.5, rel=0.1)


def test_led_and_its_rivals_dequantize_alike(monkeypatch):
    """LED tells the steps of its rows by itself; rivals and test rows must have the same ones."""
    random = np.random.default_rng(0)
    values = np.stack(
        [
            random.integers(5, size=110) / 4,
            3.0 * random.integers(9, size=110),
            random.permutation(110),  # whole numbers, none twice: continuous
            random.standard_normal(110),
        ],
        axis=1,
    )
    split = likelihood_split(LabelledTable("steps", values, ("a", "b", "c", "d")), 0)
    sources = []

    class Opened(Exception):
        """LED has seen its columns, which is all that is wanted."""

    def stop(config, source, console):
        sources.append(source)
        raise Opened

    monkeypatch.setattr(led, "steps_in", lambda *a, **k: 1)
    monkeypatch.setattr(led, "fit", stop)
    with pytest.raises(Opened):
        led.fit_led(split.train, split.validation, 1.0, 0)
    assert split.train.steps.tolist() == split.validation.steps.tolist() == [0.25, 3, 0, 0]
    assert [column.step for column in sources[0].columns] == split.train.steps.tolist()
    np.testing.assert_array_equal(sources[0].rows("train"), split.train.values)
    np.testing.assert_array_equal(sources[0].rows("validation"), split.validation.values)
    assert sources[0].size("test") == 0
    quarter = split.test[:, 0] * 4
    assert (
        0.4 < np.abs(quarter - np.rint(quarter)).max() <= 0.5
        and np.isin(split.test[:, 2], values[:, 2]).all()
    )


def test_odd_rows_are_never_trained_on(monkeypatch):
    monkeypatch.setattr("led_fast.reproduce.tables.splits._MOST_JUDGED", 150)
    table = numbered()
    split = anomaly_split(table, 0)
    odd = set(table.values[table.labels == "odd", 0])
    assert set(split.odd[:, 0]) <= odd and len(split.odd) == 150 and len(split.test) == 150
    for part in (split.train.values, split.validation.values, split.test):
        assert not odd & set(part[:, 0])
    assert len(split.train.values) == 560
    with pytest.raises(ValueError, match="table must have labels and normal classes, got 'numbered'"):
        anomaly_split(replace(table, labels=None), 0)


# ---- rivals --------------------------------------------------------------------------------------------

SMALL = {
    "NSF": FlowSettings(transforms=1, width=16, bins=4),
    "MAF": FlowSettings(family="MAF", transforms=2, width=16),
}
FITS = {
    **{
        f"{name}, {space.__name__}": partial(rivals.fit_flow, s, space)
        for name, s in SMALL.items()
        for space in SPACES
    },
    **{f"mixture, {space.__name__}": partial(rivals.fit_normal_mixture, space) for space in SPACES},
    "kernels": partial(rivals.fit_kernels, standardized),
}


@pytest.fixture(scope="module")
def plane():
    """Column 0 on a lattice of step 2, column 1 continuous and wide; they depend on each other."""
    random = np.random.default_rng(0)
    level = 2.0 * random.integers(4, size=400) + 1
    values = np.stack([level, 5 * level + 8 * random.standard_normal(400)], axis=1)
    return [Rows(part, np.array([2.0, 0.0])) for part in np.split(values, [300])]


@pytest.mark.parametrize("name", FITS)
def test_densities_integrate_to_one_in_data_units(name, plane):
    pytest.importorskip("sklearn" if "mixture" in name else "zuko")
    FITS[name](*plane, seconds=0.0, seed=0)  # what is slow the first time
    model = FITS[name](*plane, seconds=0.4, seed=0)
    total, _ = integral(model.log_prob, (-10.0, 18.0, 280), (-80.0, 120.0, 400))
    assert total == pytest.approx(1, abs=6e-3)
    held_out = plane[1].dequantized(np.random.default_rng(1))
    # The truth: 4 cells of width 2, and a normal of σ = 8 given the cell.
    truth = -math.log(8) - math.log(8) - 0.5 * math.log(2 * math.pi * math.e)
    assert truth - 0.8 < model.log_prob(held_out).mean() < truth + 0.2


def test_a_flow_stops_in_time(plane):
    pytest.importorskip("zuko")
    FITS["NSF, standardized"](*plane, seconds=0.0, seed=0)  # what is slow the first time
    start = time.process_time()
    model = FITS["NSF, standardized"](*plane, seconds=0.6, seed=0)
    assert 0.6 <= time.process_time() - start < 1.2
    assert 0 < model.info["best_step"] <= model.info["steps"] and model.info["skipped_steps"] == 0


def test_a_flow_keeps_the_moment_that_validation_rows_like_best():
    pytest.importorskip("zuko")
    values = np.random.default_rng(0).standard_normal((120, 2))
    train, validation = Rows(values[:20], np.zeros(2)), Rows(values[20:], np.zeros(2))
    settings = FlowSettings(transforms=1, width=32, learning_rate=3e-2)
    model = rivals.fit_flow(settings, standardized, train, validation, seconds=1.0, seed=0)
    assert model.info["best_step"] < model.info["steps"]  # twenty rows are soon learned by heart
    in_data_units = model.info["validation"] - np.log(train.values.std(axis=0)).sum()
    assert model.log_prob(validation.values).mean() == pytest.approx(in_data_units, abs=1e-4)


def test_validation_rows_choose_the_number_of_normals():
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    values = random.choice([-9.0, 0.0, 9.0], (600, 1)) + random.standard_normal((600, 2))
    train, validation = Rows(values[:400], np.zeros(2)), Rows(values[400:], np.zeros(2))
    model = rivals.fit_normal_mixture(standardized, train, validation, seconds=9.0, seed=0)
    assert 3 <= model.info["components"] <= 8
    assert rivals.fit_normal_mixture(standardized, train, validation, 0.0, 0).info["components"] == 1


def test_a_rival_without_time_still_has_a_model(plane):
    pytest.importorskip("zuko")
    pytest.importorskip("sklearn")
    for fit in FITS.values():
        assert np.isfinite(fit(*plane, seconds=0.0, seed=0).log_prob(plane[1].values)).all()


def test_isolation_forest_ranks(plane):
    pytest.importorskip("sklearn")
    score = rivals.fit_isolation_forest(*plane, seconds=1.0, seed=0).log_prob
    assert score(plane[1].values).mean() > score(plane[1].values + 200).mean()
