import math

import numpy as np
import pytest
import torch

from led_fast.data import grid, open_source, read_rows, ring
from led_fast.errors import InputError

MIXTURES = pytest.mark.parametrize("make, modes, mean_log_prob", [(ring, 8, 4.2930), (grid, 25, -0.0653)])


@MIXTURES
def test_centers_are_distinct_and_as_stated(make, modes, mean_log_prob):
    mixture = make()
    assert mixture.centers.shape == (modes, 2)
    distance = torch.cdist(mixture.centers, mixture.centers) + 10 * torch.eye(modes)
    assert distance.min() > 40 * mixture.std * 0.99


@MIXTURES
def test_log_prob_is_that_of_torch_distributions(make, modes, mean_log_prob):
    mixture = make()
    component = torch.distributions.Independent(torch.distributions.Normal(mixture.centers, mixture.std), 1)
    oracle = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(modes)), component
    )
    x = torch.cat([mixture.sample(500), torch.randn(500, 2, dtype=torch.float64)])
    torch.testing.assert_close(mixture.log_prob(x), oracle.log_prob(x))


@MIXTURES
def test_entropy_moments_and_share_within_three_sigma(make, modes, mean_log_prob):
    torch.manual_seed(0)
    mixture = make()
    x = mixture.sample(100_000)
    assert -mixture.entropy == pytest.approx(mean_log_prob, abs=1e-4)
    assert mixture.log_prob(x).mean().item() == pytest.approx(mean_log_prob, abs=5 / math.sqrt(len(x)))
    torch.testing.assert_close(x.mean(0), mixture.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(0), mixture.scale, atol=0, rtol=0.01)
    distance, index = mixture.nearest(x)
    assert (distance <= 3).double().mean().item() == pytest.approx(1 - math.exp(-4.5), abs=0.002)
    assert torch.bincount(index, minlength=modes).min() > 0.8 * len(x) / modes


def test_sampling_follows_the_global_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(ring().sample(10))
    assert torch.equal(*draws)


@pytest.mark.parametrize("header", ["", "x,y\n"])
def test_csv_with_and_without_header(tmp_path, header):
    path = tmp_path / "points.csv"
    path.write_text(header + "1,2\n\n3.5,-4e-1\n")
    assert read_rows(path).tolist() == [[1, 2], [3.5, -0.4]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_npy(tmp_path, dtype):
    rows = np.arange(6).reshape(3, 2).astype(dtype)
    np.save(tmp_path / "points.npy", rows)
    read = read_rows(tmp_path / "points.npy")
    assert read.dtype == torch.float64 and read.tolist() == rows.tolist()


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2\nnan,3\n4,inf\n", "row 2 .and 1 more. is not finite"),
        ("x,y\n1,2\n3,inf\n", "row 2 is not finite"),
        ("x,y\n1,2\n3,four\n", "row 2 is not all numbers: '3,four'"),
        ("0.5,O.7\n1,2\n", "row 1 is not all numbers: '0.5,O.7'"),
        ("1,2\n3\n", "row 2 has 1 columns, row 1 has 2"),
        ("1,2,3\n", r"want shape \(rows, 2\), got \(1, 3\)"),
        ("x,y\n", "holds no rows"),
        ("", "holds no rows"),
        ("\x00\x00", "not a readable|not all numbers|no rows"),
    ],
)
def test_bad_csv_names_file_and_row(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"bad.csv.*({message})"):
        read_rows(path)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros(4), r"want shape \(rows, 2\), got \(4,\)"),
        (np.zeros((4, 3)), r"got \(4, 3\)"),
        (np.zeros((0, 2)), "holds no rows"),
        (np.full((5, 2), np.nan), "row 1 .and 4 more. is not finite"),
        (np.zeros((2, 2), dtype=complex), "dtype complex128"),
        (np.array([[None, 1]], dtype=object), "not a readable"),
    ],
)
def test_bad_npy_names_file(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(InputError, match=f"bad.npy.*{message}"):
        read_rows(tmp_path / "bad.npy")


def test_truncated_npy(tmp_path):
    np.save(tmp_path / "bad.npy", np.zeros((100, 2)))
    (tmp_path / "bad.npy").write_bytes((tmp_path / "bad.npy").read_bytes()[:300])
    with pytest.raises(InputError, match=r"bad.npy.*not a readable"):
        read_rows(tmp_path / "bad.npy")


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a zip file", b"", b"1,2"])
def test_foreign_npy(tmp_path, content):
    (tmp_path / "bad.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.npy.*not a readable"):
        read_rows(tmp_path / "bad.npy")


def test_several_arrays_in_one_npy(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((3, 2)), b=np.zeros((3, 2)))
    (tmp_path / "two.npz").rename(tmp_path / "bad.npy")
    with pytest.raises(InputError, match=r"bad.npy.*not a readable"):
        read_rows(tmp_path / "bad.npy")


@pytest.mark.parametrize(
    "name, message", [("rings", "unknown data 'rings': want ring"), ("no.csv", "no such file")]
)
def test_unknown_source(name, message):
    with pytest.raises(InputError, match=message):
        open_source(name)


def test_table_holds_out_a_fixed_tenth(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(3, 5, (1000, 2)))
    source = open_source(str(tmp_path / "a.npy"))
    held_out = {tuple(row) for row in source.held_out(10_000).tolist()}
    drawn = {tuple(row) for row in source.sample(20_000).tolist()}
    assert len(held_out) == 100 and len(drawn) == 900 and not held_out & drawn
    torch.testing.assert_close((source.shift, source.scale), (source._rows.mean(0), source._rows.std(0)))
    again = open_source(str(tmp_path / "a.npy"))
    assert torch.equal(again.held_out(100), source.held_out(100)) and again.fingerprint == source.fingerprint


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((10, 2)), "at least 100 rows"),
        (np.eye(200, 2) * [1, 0], "column 2 is constant"),
        (np.eye(200, 2) * [1e300, 1], "column 1 has a spread beyond float64"),
    ],
)
def test_table_without_a_density(tmp_path, rows, message):
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / "a.npy"))
