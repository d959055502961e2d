import matplotlib.image
import pytest
import torch
from matplotlib.figure import Figure

from led_fast.data.tables import Column
from led_fast.figures import marginals_figure, pairs_figure
from led_fast.figures.marginals import short_names, window_of
from led_fast.figures.pairs import dependent_columns

BLUE, VERMILION = (0, 0x72, 0xB2), (0xD5, 0x5E, 0)


def columns(count, step=0.0):
    return [Column(f"c{j}", j, "float", step, 0.0, 0, 0.0, 0.0, None) for j in range(count)]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look into."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def ink(path, color):
    """Number of pixels near a colour."""
    pixels = matplotlib.image.imread(path)[..., :3] * 255
    return int((abs(pixels - torch.tensor(color).numpy()).max(-1) < 40).sum())


def panels(figure):
    """The axes that are shown, of the left half and of the right one."""
    return [[axes for axes in part.axes if axes.axison] for part in figure.subfigs]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dims", [2, 3, 6, 9])
def test_pairs_of_data_on_the_left_and_of_samples_on_the_right(tmp_path, drawn, dims):
    torch.manual_seed(0)
    data, samples = torch.randn(300, dims).double(), 0.5 * torch.randn(200, dims).double()
    pairs_figure(tmp_path / "a.png", data, samples, columns(dims), note="log α is not reliable")
    k = min(dims, 6)
    left, right = panels(drawn[0])
    assert len(left) == len(right) == k * (k + 1) // 2
    below = [axes for axes in left if axes.lines], [axes for axes in right if axes.lines]
    assert [len(axes.lines[0].get_xdata()) for axes in below[0]] == [300] * (k * (k - 1) // 2)
    assert [len(axes.lines[0].get_xdata()) for axes in below[1]] == [200] * (k * (k - 1) // 2)
    for ours, theirs in zip(*below, strict=True):
        assert ours.get_xlim() == theirs.get_xlim() and ours.get_ylim() == theirs.get_ylim()
    assert ink(tmp_path / "a.png", BLUE) > 100 and ink(tmp_path / "a.png", VERMILION) > 100
    assert drawn[0].get_suptitle() == "log α is not reliable"
    assert ("of 9 columns" in drawn[0].get_supxlabel()) == (dims == 9)


@pytest.mark.filterwarnings("error")
def test_one_column_is_a_histogram(tmp_path, drawn):
    pairs_figure(tmp_path / "a.png", torch.randn(50, 1).double(), torch.randn(50, 1).double(), columns(1))
    assert len(drawn[0].axes) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("step", [0.0, 0.5])
def test_hardly_any_rows(tmp_path, rows, step):
    data = torch.arange(2.0 * rows).double().reshape(rows, 2)
    pairs_figure(tmp_path / "a.png", data, data, columns(2, step))
    marginals_figure(tmp_path / "b.png", data, data, columns(2, step))


def test_a_hundred_columns_have_a_small_panel_each(tmp_path, drawn):
    torch.manual_seed(0)
    data = torch.randn(400, 100).double()
    marginals_figure(tmp_path / "a.png", data, data + 5, columns(100))
    assert sum(axes.axison for axes in drawn[0].axes) == 100
    height, width = matplotlib.image.imread(tmp_path / "a.png").shape[:2]
    assert 600 < height < width < 3000


def test_bars_of_a_discrete_column_are_its_values(tmp_path, drawn):
    torch.manual_seed(0)
    data = torch.tensor([0.0, 0.5, 0.5, 2.0]).double()[:, None]
    (column,) = columns(1, 0.5)
    window = window_of(data[:, 0], column)
    assert window == (-0.25, 2.25, 0.5)
    marginals_figure(tmp_path / "a.png", data, data, [column])
    heights, edges, _ = drawn[0].axes[0].patches[0].get_data()
    assert heights.tolist() == [0.25, 0.5, 0.0, 0.0, 0.25]
    assert edges.tolist() == [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25]


def test_many_levels_share_bars_evenly():
    data = torch.arange(1000).double()
    low, high, width = window_of(data, columns(1, 1.0)[0])
    assert width == round(width) > 1 and (high - low) / width == round((high - low) / width) <= 81
    assert low == -0.5 and high >= 999.5


def test_outliers_do_not_squeeze_the_axes_and_are_counted(tmp_path, drawn):
    torch.manual_seed(0)
    data, samples = torch.randn(2000, 2).double(), torch.randn(2000, 2).double()
    data[:3, 0], samples[:20, 1] = 1e6, -1e9
    pairs_figure(tmp_path / "a.png", data, samples, columns(2))
    left, _ = panels(drawn[0])
    for axes in left:
        low, high = axes.get_xlim()
        assert -8 < low < -2 and 2 < high < 8
    assert "up to 1 % of a column's values lie outside" in drawn[0].get_supxlabel()
    fine = torch.rand(500, 2).double()
    pairs_figure(tmp_path / "b.png", fine, fine, columns(2))
    assert drawn[1].get_supxlabel() == ""


def test_heavy_tails_leave_the_middle_visible():
    torch.manual_seed(0)
    data = (3 * torch.randn(5000).double()).exp()
    window = window_of(data, columns(1)[0])
    assert window.high < 100 and data.quantile(0.995) > 1000


def test_dots_of_discrete_columns_are_spread_over_their_cells(tmp_path, drawn):
    data = torch.randint(0, 3, (500, 2)).double()
    pairs_figure(tmp_path / "a.png", data, data, columns(2, 1.0))
    x = next(axes for axes in panels(drawn[0])[0] if axes.lines).lines[0].get_xdata()
    assert len(set(x.tolist())) == 500 and x.min() >= -0.5 and x.max() <= 2.5
    assert sorted(x.round().tolist()) == sorted(data[:, 0].tolist())


def test_the_columns_that_depend_on_each_other_are_chosen():
    torch.manual_seed(0)
    data = torch.randn(3000, 10).double()
    common = torch.randn(3000).double()
    for j in (1, 4, 5, 8):
        data[:, j] = (common + 0.8 * data[:, j]).exp()  # monotone, not linear
    assert set(dependent_columns(data)) > {1, 4, 5, 8}
    assert len(dependent_columns(data)) == 6
    data[:, 9] = data[:, 4] + 1e-6 * data[:, 9]  # a copy
    chosen = dependent_columns(data, most=4)
    assert not {4, 9} <= set(chosen)
    assert dependent_columns(data[:, :5]) == [0, 1, 2, 3, 4]


def test_names_are_shortened_and_still_differ():
    names = ["a", "temperature in the first hour", "temperature at the last hour", "$x_1$"]
    cut = short_names([Column(n, 0, "float", 0.0, 0.0, 0, 0.0, 0.0, None) for n in names])
    assert cut == ["a", "2: tempera…t hour", "3: tempera…t hour", "$x_1$"]


def test_names_are_not_taken_for_formulas(tmp_path, drawn):
    names = [Column(n, 0, "float", 0.0, 0.0, 0, 0.0, 0.0, None) for n in ("$x", "$\\frac{$")]
    data = torch.randn(10, 2).double()
    pairs_figure(tmp_path / "a.png", data, data, names)
    marginals_figure(tmp_path / "b.png", data, data, names)
    assert panels(drawn[0])[0][-1].get_xlabel() == "$\\frac{$"
