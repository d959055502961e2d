import torch
from torch import nn

from led_fast.density import critic_loss, in_micro_batches, squared_gradient
from led_fast.models import DCGANCritic


class Recorded(nn.Module):
    """A critic that notes how many samples it sees at a time."""

    def __init__(self, critic):
        super().__init__()
        self.critic, self.sizes = critic, []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.critic(x)


def gradients(critic, x, log_q, samples, size):
    critic.zero_grad()
    f = in_micro_batches(critic, x, size)
    data, proposals = f.split([len(x) - len(log_q), len(log_q)])
    loss = critic_loss(data, proposals, log_q, samples)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in critic.parameters()]


def test_loss_and_gradient_are_those_of_the_whole_batch():
    torch.manual_seed(0)
    critic = Recorded(DCGANCritic(32, channels=1, width=4, penalty="direction").double())
    x = torch.rand(40, 1, 32, 32, dtype=torch.float64)
    log_q = 30 * torch.randn(32, dtype=torch.float64)  # weights of very different sizes, in different parts
    for samples in (1, 8, 32):
        whole = gradients(critic, x, log_q, samples, None)
        for size in (1, 7, 40, 64):
            critic.sizes.clear()
            loss, parts = gradients(critic, x, log_q, samples, size)
            assert max(critic.sizes) <= size
            torch.testing.assert_close(loss, whole[0], rtol=1e-12, atol=0)
            for got, wanted in zip(parts, whole[1], strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_only_a_batch_that_is_split_runs_forward_twice():
    critic = Recorded(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)))
    x = torch.randn(5, 3)
    in_micro_batches(critic, x, 5).sum().backward()
    assert critic.sizes == [5]
    critic.sizes.clear()
    in_micro_batches(critic, x, 2).sum().backward()
    assert sorted(critic.sizes) == [1, 1, 2, 2, 2, 2]


def test_squared_gradient_and_its_own_gradient():
    def critic(x):
        return (matrix * x).sum(dim=(1, 2)).square()

    matrix = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    value = squared_gradient(critic, x)
    torch.testing.assert_close(value, 4 * critic(x) * matrix.square().sum())
    in_millimetres = squared_gradient(lambda y: critic(y / 1000), 1000 * x, unit=1000.0)
    torch.testing.assert_close(in_millimetres, value)
    assert torch.autograd.gradcheck(
        lambda m: squared_gradient(lambda y: (m * y).sum((1, 2)).square(), x), matrix
    )
