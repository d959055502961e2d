import torch

from led_fast.data import PointsSource
from led_fast.evaluation import quadrature_in_data_coordinates
from led_fast.models import in_data_coordinates, points_critic, points_generator

SHIFT, SCALE = torch.tensor([3.0, -50.0]).double(), torch.tensor([0.1, 20.0]).double()


def model_in_data_coordinates():
    torch.manual_seed(0)
    return in_data_coordinates(points_critic(), points_generator(), SHIFT, SCALE)


def test_generator_density_changes_by_the_log_determinant():
    model = model_in_data_coordinates()
    torch.manual_seed(1)
    y, log_q = model.generator.rsample_and_log_prob(100)
    torch.manual_seed(1)
    model.generator.layers = model.generator.layers[:-1]
    u, log_q_standard = model.generator.rsample_and_log_prob(100)
    torch.testing.assert_close(y, SHIFT + SCALE * u)
    torch.testing.assert_close(log_q, log_q_standard.double() - SCALE.log().sum())


def test_density_integrates_to_one_in_data_coordinates():
    model = model_in_data_coordinates()
    quadrature = quadrature_in_data_coordinates(model.critic, SHIFT, SCALE)
    model.set_log_normalizer(quadrature.value)
    side = torch.linspace(-8, 8, 401, dtype=torch.float64)
    points = SHIFT + SCALE * torch.cartesian_prod(side, side)
    cell = (side[1] - side[0]) ** 2 * SCALE.prod()
    with torch.no_grad():
        total = model.log_prob(points).double().exp().sum() * cell
    torch.testing.assert_close(total.item(), 1.0, atol=2e-3, rtol=0)


def test_data_far_from_the_origin_lose_nothing():
    far = torch.tensor([1.6e9, -1e7]).double()
    near = model_in_data_coordinates()
    moved = in_data_coordinates(near.critic.critic, near.generator, far, SCALE)
    u = torch.randn(50, 2, dtype=torch.float64)
    torch.testing.assert_close(
        moved.critic(far + SCALE * u), near.critic(SHIFT + SCALE * u), atol=1e-4, rtol=1e-5
    )
    values = [
        quadrature_in_data_coordinates(m.critic, s, SCALE).value for m, s in ((moved, far), (near, SHIFT))
    ]
    assert abs(values[0] - values[1]) < 1e-4


def test_a_table_is_standardised_by_column():
    rows = torch.randn(5000, 2).double() * SCALE + SHIFT
    source = PointsSource("rows", rows)
    torch.testing.assert_close(source.shift, SHIFT, rtol=0.02, atol=0)
    torch.testing.assert_close(source.scale, SCALE, rtol=0.05, atol=0)
