import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from report_page import undocumented
from rich.console import Console
from torch import nn

from led_fast.data.tables import Column, Labels, TableSource, table_of
from led_fast.density import DensityModel, Verdict
from led_fast.errors import InputError
from led_fast.evaluation import evaluate_table, labelled_rows, score_rows, table_summary
from led_fast.evaluation.cells import POINTS_AT_A_TIME, Cells
from led_fast.evaluation.rank_correlation import rank_correlation
from led_fast.evaluation.table_quality import correlation_difference, kolmogorov_smirnov
from led_fast.flows import Affine, OneWayFlow, StandardNormal

DRAWS = 20_000
CAP = 3.0


def column(name, step=0.0, offset=0.0):
    return Column(name, 0, "float", step, offset, 0, 0.0, 0.0, None)


class Tilted(nn.Module):
    """log q plus a bounded function."""

    def __init__(self, generator, tilt):
        super().__init__()
        self.generator, self.tilt = generator, tilt

    def forward(self, x):
        return self.generator.log_prob(x) + self.tilt(x)


class Correlated(nn.Module):
    """A normal density with unit variances and correlation rho between the first two columns."""

    def __init__(self, rho):
        super().__init__()
        self.rho = rho

    def forward(self, x):
        a, b, rest = x[:, 0], x[:, 1], x[:, 2:]
        r = 1 - self.rho**2
        square = (a * a + b * b - 2 * self.rho * a * b) / r + rest.square().sum(1)
        return -0.5 * (square + math.log(r) + x.shape[1] * math.log(2 * math.pi))


def normal(dims, scale=1.0):
    ones = torch.ones(dims, dtype=torch.float64)
    return OneWayFlow(StandardNormal(dims), [Affine(scale * ones, 0 * ones)])


def model_of(critic, generator, log_normalizer=0.0):
    model = DensityModel(critic, generator)
    model.set_log_normalizer(log_normalizer)
    return model


def stepped(height, scale):
    """A generator N(0, scale²) whose density is e^height times as high where the first column is positive."""
    flow = normal(2, scale)
    log_alpha = math.log((math.exp(height) + 1) / 2)
    return model_of(Tilted(flow, lambda x: height * (x[:, 0] > 0).double()), flow, log_alpha), log_alpha


def table(values, **labels):
    plain = table_of(np.asarray(values, dtype=np.float64), "abcdefghij"[: values.shape[1]], "test.csv")
    coded = {}
    for name, texts in labels.items():
        categories = tuple(sorted(set(texts)))
        coded[name] = Labels(name, categories, np.array([categories.index(t) for t in texts], dtype=np.int32))
    return replace(plain, labels=coded)


def printed(report):
    text = io.StringIO()
    for part in table_summary(report):
        Console(file=text, width=200).print(part)
    return text.getvalue()


# ---- the density of a raw row


def test_continuous_rows_have_their_own_density():
    rows = torch.randn(5000, 3, dtype=torch.float64)
    scores = score_rows(model_of(Correlated(0.8), normal(3)), rows, [column(c) for c in "abc"], explain=0)
    torch.testing.assert_close(scores.log_density, Correlated(0.8)(rows))
    assert scores.odd == []


def test_a_discrete_row_has_the_mean_density_of_its_cell():
    # The exact mass of a cell of width 1.5 of a standard normal, over its width; the other column is continuous.
    columns = [column("k", 1.5, 0.25), column("x")]
    rows = torch.tensor([[0.25, 0.3], [1.75, -1.0], [-2.75, 0.0], [1.2, 0.0]], dtype=torch.float64)
    centres = torch.tensor([0.25, 1.75, -2.75, 1.75], dtype=torch.float64)  # 1.2 is nearest to 1.75
    mass = torch.special.ndtr(centres + 0.75) - torch.special.ndtr(centres - 0.75)
    exact = (mass / 1.5).log() - 0.5 * rows[:, 1].square() - 0.5 * math.log(2 * math.pi)
    scores = score_rows(model_of(normal(2).log_prob, normal(2)), rows, columns, explain=0)
    torch.testing.assert_close(scores.log_density, exact, atol=0.01, rtol=0)
    fine = Cells(columns, 512).log_density(normal(2).log_prob, rows, torch.device("cpu"))
    torch.testing.assert_close(fine, exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_the_order_of_rows_and_their_number_change_no_result(step):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 33), nn.SiLU(), nn.Linear(33, 1))
    critic = Tilted(normal(5), lambda x: net(x.float()).squeeze(1).clamp(max=CAP))
    model, columns = model_of(critic, normal(5)), [column(c, step) for c in "abcde"]
    rows = torch.randn(3001, 5, dtype=torch.float64)
    order = torch.randperm(len(rows))
    plain = score_rows(model, rows, columns, explain=40)
    permuted = score_rows(model, rows[order], columns, explain=40)
    assert torch.equal(permuted.log_density, plain.log_density[order])
    assert torch.equal(permuted.rank, plain.rank[order])
    for ours, theirs in zip(plain.odd, permuted.odd, strict=True):
        assert order[theirs.row] == ours.row and theirs.columns == ours.columns
    alone = torch.cat([score_rows(model, row[None], columns, explain=0).log_density for row in rows[:5]])
    assert torch.equal(alone, plain.log_density[:5])


def test_ranks_go_from_the_densest_and_ties_share_one():
    rows = torch.tensor([[2.0], [0.0], [1.0], [-1.0], [3.0]], dtype=torch.float64)
    scores = score_rows(model_of(normal(1).log_prob, normal(1)), rows, [column("a")])
    assert scores.rank.tolist() == [4, 1, 2, 2, 5]
    assert [odd.row for odd in scores.odd] == [4, 0, 2, 3, 1]


def test_rows_that_cannot_be_scored_are_named():
    rows = torch.zeros(3000, 2, dtype=torch.float64)
    rows[2500, 1] = math.nan
    model = model_of(normal(2).log_prob, normal(2))
    with pytest.raises(InputError, match=r"row 2501 cannot be scored, .* is nan: \[0, nan\]"):
        score_rows(model, rows, [column("a"), column("b")])
    infinite = model_of(lambda x: torch.where(x[:, 0] > 0, math.inf, 0.0), normal(2))
    with pytest.raises(InputError, match=r"row 1 .* is inf"):
        score_rows(infinite, rows[:1] + 1, [column("a"), column("b")])


def test_a_million_rows_are_read_in_small_chunks():
    class Mapped:
        """Rows made on demand: whoever asks for many at a time fails."""

        shape = (1_000_000, 2)

        def __len__(self):
            return self.shape[0]

        def __getitem__(self, part):
            index = torch.arange(part.start, part.stop) if isinstance(part, slice) else torch.as_tensor(part)
            assert index.numel() <= POINTS_AT_A_TIME
            return torch.stack([index / 1e6, -index / 1e6], dim=-1).double()

    model = model_of(normal(2).log_prob, normal(2))
    scores = score_rows(model, Mapped(), [column("a"), column("b")], explain=10)
    assert torch.equal(scores.rank, torch.arange(1, 1_000_001))
    assert scores.odd[0].row == 999_999


# ---- what makes a row odd


def test_the_odd_column_is_named():
    rows = torch.tensor(
        [
            [0.1, 0.2, 7.0, 0.0],  # c is far out
            [2.0, -2.0, 0.0, 0.0],  # a and b contradict each other
            [0.5, 0.4, 0.1, 0.2],  # nothing is
        ],
        dtype=torch.float64,
    )
    columns = [column("a"), column("b"), column("c"), column("k", 1.0)]
    far, torn, plain = sorted(
        score_rows(model_of(Correlated(0.95), normal(4)), rows, columns).odd, key=lambda odd: odd.row
    )
    assert [c.name for c in far.columns] == ["c"]
    assert far.columns[0].value == 7.0 and 20 < far.columns[0].rise < 7**2 / 2
    assert {c.name for c in torn.columns} == {"a", "b"}
    assert plain.columns == ()


def test_the_rise_is_that_of_the_mean_density_over_draws():
    scores = score_rows(
        model_of(normal(2).log_prob, normal(2)),
        torch.tensor([[0.0, 5.0]], dtype=torch.float64),
        [column("a"), column("b")],
        replacements=2048,
    )
    # E[φ(r)] over normal draws r is the density of N(0, 2) at 0.
    exact = -0.5 * math.log(2) + 0.5 * 5.0**2
    assert scores.odd[0].columns[0].rise == pytest.approx(exact, abs=0.03)


def test_a_column_is_replaced_by_draws_of_its_own():
    shift = torch.tensor([0.0, 100.0], dtype=torch.float64)
    flow = OneWayFlow(StandardNormal(2), [Affine(torch.ones_like(shift), shift)])
    rows = torch.tensor([[0.0, 90.0]], dtype=torch.float64)
    (odd,) = score_rows(model_of(flow.log_prob, flow), rows, [column("a"), column("b")]).odd
    assert [c.name for c in odd.columns] == ["b"] and odd.columns[0].rise > 40


def test_impossible_rows_are_the_strangest_and_explained_where_one_column_is_to_blame():
    box = lambda x: torch.where((x.abs() < 6).all(1), 0.0, -math.inf).double()  # noqa: E731
    rows = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 9.0]], dtype=torch.float64)
    scores = score_rows(model_of(box, normal(2)), rows, [column("a"), column("b")])
    assert scores.log_density.tolist() == [0.0, -math.inf, -math.inf] and scores.rank.tolist() == [1, 2, 2]
    assert [(c.name, c.rise) for c in scores.odd[0].columns] == [("b", math.inf)]
    assert scores.odd[1].columns == ()


# ---- the report


@pytest.fixture(scope="module")
def good():
    """A source whose density is that of the model: N(0, 4) with the positive half twice as dense."""
    torch.manual_seed(1)
    model, log_alpha = stepped(math.log(2), 2.0)
    x = 2 * torch.randn(6000, 2, dtype=torch.float64)
    flip = torch.rand(6000) < 2 / 3
    x[:, 0] = torch.where(flip, x[:, 0].abs(), -x[:, 0].abs())
    source = TableSource("test.csv", table(x, kind=["odd" if abs(b) > 4 else "plain" for b in x[:, 1]]))
    return model, source, log_alpha, evaluate_table(model, source, 0, CAP, draws=DRAWS)


def test_likelihoods_are_the_exact_ones(good):
    _, source, log_alpha, evaluation = good
    report, x = evaluation.report, source.rows("test")
    q = (-0.5 * (x / 2).square() - math.log(2 * math.sqrt(2 * math.pi))).sum(1)
    gain = math.log(2) * (x[:, 0] > 0).double() - log_alpha
    assert report["generator_log_likelihood"] == pytest.approx(q.mean().item(), abs=1e-6)
    assert report["gain"] == pytest.approx(gain.mean().item(), abs=1e-6)
    assert report["gain_standard_error"] == pytest.approx(gain.std().item() / math.sqrt(600), rel=1e-5)
    assert report["test_log_likelihood"] == pytest.approx((q + gain).mean().item(), abs=1e-6)
    assert report["test_rows"] == 600 and report["test_log_likelihood_reason"] == ""
    assert abs(report["train_log_likelihood"] - report["test_log_likelihood"]) < 0.2


def test_log_alpha_is_judged_by_fresh_draws(good):
    _, _, log_alpha, evaluation = good
    normalizer = evaluation.report["log_normalizer"]
    estimate = normalizer["evidence"]["generator"]
    assert normalizer["value"] == log_alpha and normalizer["reliable"] and normalizer["reason"] == ""
    assert (
        normalizer["interval"] == estimate["ci95"] and estimate["ci95"][0] < log_alpha < estimate["ci95"][1]
    )
    assert estimate["samples"] == DRAWS and estimate["cap"] == CAP and estimate["ess_fraction"] > 0.8
    assert evaluation.report["kl_gate"]["passed"]


def test_samples_of_the_right_density_are_as_far_as_training_rows(good):
    report = good[3].report
    a, b = report["columns"]
    assert a["kind"] == "continuous" and a["name"] == "a"
    assert b["ks_samples"] < 0.1 and b["ks_train"] < 0.1
    assert a["ks_samples"] > 0.12 and a["ks_refined"] < 0.1  # the generator lacks the tilt
    assert max(report[f"correlation_{name}"] for name in ("samples", "refined", "train")) < 0.15
    assert report["compared_rows"] == len(good[3].data) == len(good[3].samples) == 600


def test_the_same_seed_gives_the_same_report_and_leaves_the_generators_alone(good):
    model, source, _, evaluation = good
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = evaluate_table(model, source, 0, CAP, draws=DRAWS)
    assert again.report == evaluation.report and torch.equal(torch.get_rng_state(), before)


def test_anomalies_by_label(good):
    model, source, _, _ = good
    rows = labelled_rows(source, "kind", "odd")
    assert len(rows.odd) + len(rows.others) == 600 and (rows.odd[:, 1].abs() > 4).all()
    report = evaluate_table(model, source, 0, CAP, rows, draws=DRAWS).report
    found = report["anomaly"]
    p = [-0.5 * (x / 2).square().sum(1) for x in (rows.odd, rows.others)]
    exact = (p[0][:, None] < p[1]).double().mean().item()
    assert found["auroc_generator"] == pytest.approx(exact, abs=1e-6) and found["auroc"] > 0.9
    assert found["odd_rows"] == len(rows.odd) and found["other_rows"] == len(rows.others)
    assert "AUROC of kind = odd" in printed(report) and not undocumented(report, "tables")
    with pytest.raises(InputError, match=r"column 'kind': want one of its values, .*, got 'strange'"):
        labelled_rows(source, "kind", "strange")


def test_the_interval_holds_what_is_in_use_too(good):
    """Two estimates of .2 nats each may miss each other's intervals, and still agree."""
    model, source, log_alpha, _ = good
    other = model_of(model.critic, model.generator, log_alpha + 0.1)
    own = (log_alpha - 0.1, log_alpha + 0.3)
    other.set_verdict(Verdict(log_alpha + 0.1, own, True, "", {}))
    normalizer = evaluate_table(other, source, 0, CAP, draws=DRAWS).report["log_normalizer"]
    fresh = normalizer["evidence"]["generator"]["ci95"]
    assert normalizer["reliable"] and fresh[1] < normalizer["value"], "the case is none"
    assert normalizer["interval"] == [min(own[0], fresh[0]), max(own[1], fresh[1])]


def test_a_wrong_log_alpha_is_called_out(good):
    model, source, log_alpha, _ = good
    wrong = model_of(model.critic, model.generator, log_alpha - 0.5)
    report = evaluate_table(wrong, source, 0, CAP, draws=DRAWS).report
    normalizer = report["log_normalizer"]
    assert not normalizer["reliable"] and "generator differs by +0." in normalizer["reason"]
    assert "NO" in printed(report)


def test_weights_above_the_cap_are_called_out(good):
    model, source, _, _ = good
    normalizer = evaluate_table(model, source, 0, 0.1, draws=DRAWS).report["log_normalizer"]
    assert not normalizer["reliable"] and "above the cap" in normalizer["reason"]


def test_a_tilt_without_effect_is_said_to_add_nothing(good):
    _, source, _, evaluation = good
    flow = normal(2, 2.0)
    wiggle = Tilted(flow, lambda x: 1e-4 * x[:, 1].sin())
    report = evaluate_table(model_of(wiggle, flow), source, 0, CAP, draws=DRAWS).report
    assert "the tilt adds nothing" in printed(report)
    assert "the tilt" not in printed(evaluation.report).replace("gain of the tilt", "")
    harm, log_alpha = stepped(-1.0, 2.0)
    assert "the tilt does harm" in printed(evaluate_table(harm, source, 0, CAP, draws=DRAWS).report)
    assert log_alpha < 0


def test_a_density_of_zero_is_reported_as_none_with_a_reason(good):
    _, source, _, _ = good
    flow = normal(2, 2.0)
    half = Tilted(flow, lambda x: torch.where(x[:, 0] > -4, 0.0, -math.inf).double())
    report = evaluate_table(model_of(half, flow, math.log(0.977)), source, 0, CAP, draws=DRAWS).report
    impossible = int((source.rows("test")[:, 0] <= -4).sum())
    assert report["test_log_likelihood"] is report["gain"] is None and impossible > 0
    assert report["test_log_likelihood_reason"] == f"the density of {impossible} of 600 test rows is 0"
    assert report["generator_log_likelihood"] is not None
    assert f"density of {impossible} of 600" in printed(report)


def test_test_rows_that_cannot_be_scored_are_named(good):
    _, source, _, _ = good
    flow = normal(2, 2.0)
    row = int((source.rows("test")[:, 0] > 0).int().argmax()) + 1
    broken = Tilted(flow, lambda x: torch.where(x[:, 0] > 0, math.nan, 0.0).double())
    with pytest.raises(InputError, match=f"^test row {row} cannot be scored"):
        evaluate_table(model_of(broken, flow), source, 0, CAP, draws=DRAWS)


def test_discrete_and_constant_columns_are_reported():
    torch.manual_seed(2)
    counts = torch.randint(0, 4, (20_000, 1)).double()
    values = torch.cat([counts, torch.randn(20_000, 1).double(), torch.full((20_000, 1), 7.0)], dim=1)
    source = TableSource("test.csv", table(values))
    ones = torch.ones(2, dtype=torch.float64)
    flow = OneWayFlow(StandardNormal(2), [Affine(ones, torch.tensor([1.5, 0.0], dtype=torch.float64))])
    evaluation = evaluate_table(
        model_of(Tilted(flow, lambda x: 0 * x[:, 0]), flow), source, 0, CAP, draws=DRAWS
    )
    k, x = evaluation.report["columns"]
    assert (k["kind"], k["step"], x["kind"]) == ("discrete", 1.0, "continuous")
    assert evaluation.report["constants"] == [{"name": "c", "value": 7.0}]
    assert not undocumented(evaluation.report, "tables")
    assert set(evaluation.samples[:, 0].tolist()) >= {0.0, 1.0, 2.0, 3.0}
    assert torch.equal(evaluation.samples[:, 0], evaluation.samples[:, 0].round())
    # The likelihood of a dequantised row: the mean of log φ over cells, E (k + u - 1.5)² / 2 with u uniform.
    test = source.rows("test")
    square = (test[:, 0] - 1.5).square() + 1 / 12 + test[:, 1].square()
    exact = (-0.5 * square - math.log(2 * math.pi)).mean().item()
    assert evaluation.report["test_log_likelihood"] == pytest.approx(exact, abs=0.012)
    text = printed(evaluation.report)
    assert "2 columns, 1 discrete, 1 constant left out" in text and "discrete, step 1" in text


# ---- the pieces


def test_kolmogorov_smirnov_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    first, second = torch.randn(300, 2).double(), torch.randint(-2, 3, (211, 2)).double()
    exact = [stats.ks_2samp(first[:, j], second[:, j]).statistic for j in range(2)]
    assert kolmogorov_smirnov(first, second).tolist() == pytest.approx(exact, abs=1e-12)


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    rows = torch.randn(200, 4).double()
    rows[:, 1] = (3 * rows[:, 0] + rows[:, 1]).round()
    torch.testing.assert_close(rank_correlation(rows), torch.from_numpy(stats.spearmanr(rows).statistic))
    constant = rank_correlation(torch.cat([rows, torch.ones(200, 1)], dim=1))
    assert constant[4].tolist() == [0.0] * 5
    other = torch.randn(200, 4).double()
    off = (rank_correlation(rows) - rank_correlation(other))[~torch.eye(4, dtype=torch.bool)]
    assert correlation_difference(rows, other) == pytest.approx(off.square().mean().sqrt().item())
    assert correlation_difference(rows[:, :1], other[:, :1]) == 0
