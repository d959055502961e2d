import matplotlib.image
import pytest
import torch

from led_fast.data import grid, ring
from led_fast.figures import density_figure, sample_figure


@pytest.mark.parametrize("make", [ring, grid])
def test_density_figure_beside_the_truth(tmp_path, make):
    truth = make()
    drawn = {"generator": truth.sample(100), "refined": truth.sample(100)}
    density_figure(tmp_path / "density.png", truth.log_prob, truth, truth.sample(100), drawn)
    height, width = matplotlib.image.imread(tmp_path / "density.png").shape[:2]
    assert width > 1.4 * height > 1000


def test_density_figure_of_unknown_truth(tmp_path):
    data = torch.randn(100, 2).double()
    drawn = {"generator": data, "refined": data}
    density_figure(tmp_path / "a.png", lambda x: -x.square().sum(1), None, data, drawn)
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert image.shape[0] == image.shape[1] and image[..., :3].std() > 0.1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 50])
def test_sample_figure_of_few_points(tmp_path, n):
    sample_figure(tmp_path / "a.png", torch.randn(n, 2).double(), lambda x: -x.square().sum(1))
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.05
