"""LED as an estimator: a density of tables with scikit-learn's methods."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from coarse import shrink_tables

import led_fast
from led_fast import LED
from led_fast.errors import InputError

pandas = pytest.importorskip("pandas")
sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

QUICK = 8
EXPECTED_TO_FAIL: dict[str, str] = {}


def table(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(10, 3, rows)
    return np.column_stack([x, rng.poisson(x.clip(0)), np.full(rows, 7.0), rng.exponential(size=rows)])


@pytest.fixture
def small(monkeypatch):
    shrink_tables(monkeypatch.setattr)


@pytest.fixture(scope="module")
def fitted():
    return LED(steps=60, random_state=0).fit(table())


def test_scikit_learns_own_checks(small):
    failed = {}

    def note(estimator, check_name, exception, status, **_):
        if status == "failed":
            failed[check_name] = exception

    check_estimator(LED(steps=2, random_state=0), on_skip=None, on_fail=None, callback=note)
    assert failed.keys() == EXPECTED_TO_FAIL.keys(), failed


def test_what_fit_leaves_behind(fitted):
    assert fitted.n_features_in_ == 4 and not hasattr(fitted, "feature_names_in_")
    assert [column.step for column in fitted.columns_] == [0.0, 1.0, 0.0]
    assert fitted.model_.verdict is not None and fitted.seconds_ > 0
    assert fitted.notes_ == ("constant columns are not modelled: x3 = 7",)


def test_densities_of_a_continuous_column_integrate_to_one():
    density = LED(steps=40, random_state=0).fit(table()[:, :1])
    x = np.linspace(-30, 60, 20_001)
    total = np.exp(density.score_samples(x[:, None])).sum() * (x[1] - x[0])
    half = density.model_.verdict.interval
    assert abs(np.log(total)) < 0.01 + (half[1] - half[0])


def test_densities_of_a_discrete_column_sum_to_one():
    density = LED(steps=40, random_state=0).fit(table()[:, 1:2])
    total = np.exp(density.score_samples(np.arange(-40.0, 100.0)[:, None])).sum()
    assert total == pytest.approx(1, abs=0.05)  # 8 points a cell


def test_a_rows_density_depends_on_the_row_alone(fitted):
    X = table(50, seed=1)
    whole = fitted.score_samples(X)
    assert np.isfinite(whole).all() and fitted.score(X) == pytest.approx(whole.mean())
    np.testing.assert_allclose(fitted.score_samples(X[::-1])[::-1], whole, atol=1e-4)
    np.testing.assert_allclose(
        np.concatenate([fitted.score_samples(row[None]) for row in X[:5]]), whole[:5], atol=1e-4
    )


def test_samples_have_the_columns_of_the_data(fitted):
    rows = fitted.sample(300, random_state=0)
    assert rows.shape == (300, 4) and (rows[:, 2] == 7).all() and (rows[:, 1] % 1 == 0).all()
    assert (fitted.sample(5, random_state=1) == fitted.sample(5, random_state=1)).all()
    assert (fitted.sample(5, random_state=1) != fitted.sample(5, random_state=2)).any()


def test_the_same_seed_gives_the_same_model(small):
    a, b = (LED(steps=QUICK, random_state=3).fit(table()).score_samples(table(20, 1)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [1e20, -1e38, 1e39, 1e300, -1.7e308])
def test_a_row_far_out_is_all_but_impossible(fitted, value):
    rows = table(4)
    plain = fitted.score_samples(rows)
    for j in range(rows.shape[1]):
        far = rows.copy()
        far[0, j] = value
        found = fitted.score_samples(far)
        if j in [column.position for column in fitted.columns_]:
            assert found[0] < -1e6
        np.testing.assert_array_equal(found[1:], plain[1:])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_where_gradients_are_off(fitted, mode):
    X = table(200)
    with mode():
        quiet = LED(steps=10, random_state=0).fit(X)
    np.testing.assert_array_equal(
        quiet.score_samples(X), LED(steps=10, random_state=0).fit(X).score_samples(X)
    )


def test_files_and_fits_do_not_depend_on_the_default_dtype(fitted, tmp_path):
    X = table(200)
    fitted.save(tmp_path / "m.led")
    try:
        torch.set_default_dtype(torch.float64)
        np.testing.assert_array_equal(LED.load(tmp_path / "m.led").score_samples(X), fitted.score_samples(X))
        assert np.isfinite(LED(steps=10, random_state=0).fit(X).score_samples(X)).all()
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_rare_category_may_be_in_held_out_rows_alone():
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    X = np.zeros((400, 2))
    X[:, 1] = np.random.default_rng(0).normal(size=400)
    X[order[0], 0] = 1
    scores = LED(steps=10, random_state=0).fit(X).score_samples(X)
    assert np.isfinite(scores).all() and scores.argmin() == int(order[0])


def test_torchs_random_numbers_are_left_alone(small):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    LED(steps=2, random_state=0).fit(table(60)).sample(3, random_state=0)
    assert torch.equal(torch.rand(3), expected)


def test_data_frames_keep_their_names(small):
    frame = pandas.DataFrame(table(), columns=["size", "count", "unit", "time"])
    density = LED(steps=QUICK, random_state=0).fit(frame)
    assert density.feature_names_in_.tolist() == list(frame.columns)
    assert [column.name for column in density.columns_] == ["size", "count", "time"]
    assert list(density.sample(3).columns) == list(frame.columns)
    with pytest.raises(ValueError, match="The feature names should match"):
        density.score_samples(frame[frame.columns[::-1]])


@pytest.mark.parametrize(
    "X, error, message",
    [
        ([[1.0, 2.0]], ValueError, "at least 10 rows, got n_samples=1"),
        (np.full((50, 2), 3.0), ValueError, "every column is constant"),
        (np.where(table(50) > 14, np.nan, table(50)), ValueError, "X contains NaN: row"),
        (np.where(table(50) > 14, np.inf, table(50)), ValueError, "X contains inf: row"),
        (np.array([["a", "b"]] * 50), ValueError, "could not convert string"),
        (table(50) + 1j, ValueError, "Complex data not supported"),
        (table(50)[:, 0], ValueError, "Expected 2D array, got 1D"),
        (np.empty((0, 2)), ValueError, "0 sample"),
        (np.column_stack([table(50)[:, 0]] * 2), ValueError, "equal"),
    ],
)
def test_bad_data_are_named(X, error, message):
    with pytest.raises(error, match=message):
        LED(steps=2).fit(X)


@pytest.mark.parametrize("arguments", [{"minutes": 0}, {"minutes": -1.0}, {"steps": 0}, {"steps": 2.5}])
def test_bad_arguments_are_named_at_fit(arguments):
    with pytest.raises(ValueError, match=f"LED: {next(iter(arguments))} must be"):
        LED(**arguments).fit(table())


def test_unfitted():
    for method in (lambda e: e.score_samples(table()), lambda e: e.sample(), lambda e: e.save("x")):
        with pytest.raises(sklearn.exceptions.NotFittedError, match="call fit first"):
            method(LED())


def test_files(fitted, tmp_path):
    X = table(30, seed=1)
    fitted.save(tmp_path / "density.safetensors")
    again = LED.load(tmp_path / "density.safetensors")
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(again.sample(5, random_state=0), fitted.sample(5, random_state=0))
    assert again.get_params() == fitted.get_params() and again.model_.verdict == fitted.model_.verdict
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copied.score_samples(X), fitted.score_samples(X))
    (tmp_path / "damaged").write_bytes((tmp_path / "density.safetensors").read_bytes()[:500])
    with pytest.raises(InputError, match="damaged"):
        LED.load(tmp_path / "damaged")


def test_minutes_become_steps(small):
    density = LED(minutes=0.01, random_state=0).fit(table())
    assert density._trained.config.steps > 1 and density.seconds_ < 40


def test_in_scikit_learns_company(fitted, small):
    assert clone(fitted).get_params() == fitted.get_params() and not hasattr(clone(fitted), "model_")
    pipeline = make_pipeline(FunctionTransformer(np.log1p), LED(steps=QUICK, random_state=0))
    assert np.isfinite(pipeline.fit(table().clip(0)).score(table(40, 1).clip(0)))
    search = GridSearchCV(LED(random_state=0), {"steps": [2, 4]}, cv=2).fit(table(100))
    assert search.best_params_["steps"] in (2, 4)
    with pytest.raises(ValueError, match="names must be among minutes"):
        LED().set_params(depth=3)
    assert repr(LED(steps=3)) == "LED(steps=3)"


def test_scikit_learn_is_not_needed(tmp_path):
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['pandas'] = None\n"
        "import numpy as np; from led_fast import LED\n"
        "d = LED(steps=2, random_state=0).fit(np.random.default_rng(0).normal(size=(40, 2)))\n"
        "assert d.sample(3).shape == (3, 2)\n"
        "try: LED().sample()\n"
        "except AttributeError as e: assert 'call fit' in str(e)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert "LED" in led_fast.__all__
