"""The SIMT executor: legal uses of CUDA's execution model give CUDA's results, illegal ones are reported."""

import numpy as np
import pytest
import torch
from simt import build
from simt.library import SCHEDULES, SimtError, SimtLibrary
from simt.suite import load

pytestmark = pytest.mark.skipif(build.asan_loaded(), reason="the check build's own tests")

# Number of each kernel in semantics.cu, and how the check build must report its wrong variant.
KERNELS = {
    "partial_masks": (0, None),
    "partial_barrier": (1, "race: shared"),
    "votes": (2, None),
    "shuffles": (3, None),
    "early_exit": (4, "mask: "),
    "divergent_barrier": (5, "divergence: one block barrier"),
    "divergent_shuffle": (6, "divergence: one warp collective"),
    "deadlock": (7, "deadlock: "),
    "outside_own_mask": (8, "mask: "),
    "uninitialised": (9, "uninitialised: "),
    "static_bounds": (10, "bounds: index outside of its array"),
    "dynamic_bounds": (11, "bounds: read of 4 bytes"),
    "global_bounds": (12, "bounds: read of 4 bytes"),
    "write_to_const": (13, "read-only: "),
    "atomics": (14, "race: shared"),
    "groups": (15, "race: shared"),
    "two_byte_accesses": (16, "race: global"),
    "sixteen_byte_accesses": (17, "race: global"),
    "misaligned": (18, "alignment: "),
    "shuffle_orders_nothing": (19, "race: shared"),
    "implicit_warp_synchrony": (20, "race: shared"),
    "blocks_are_unordered": (21, "race: global"),
}
# The plain build has no memory checks, but finds these.
FOUND_BY_PLAIN = {"early_exit", "divergent_barrier", "divergent_shuffle", "deadlock", "outside_own_mask"}
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def run(kernels: SimtLibrary, name: str, wrong: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = torch.arange(1.0, 257.0), torch.zeros(256)
    kernels.launch("semantics", KERNELS[name][0], wrong, x, y)
    return x.numpy(), y.numpy()


@schedules
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("build_type", ["plain", "check"])
def test_legal_kernels_run_without_report(build_type, name, schedule):
    kernels = load("semantics", build_type)
    kernels.configure(schedule)
    run(kernels, name)


@schedules
@pytest.mark.parametrize("name", [name for name, (_, report) in KERNELS.items() if report])
def test_wrong_kernels_are_reported(name, schedule):
    kernels = load("semantics", "check")
    kernels.configure(schedule)
    with pytest.raises(SimtError) as error:
        run(kernels, name, wrong=1)
    assert any(r.startswith(KERNELS[name][1]) for r in error.value.reports), error.value.reports


@schedules
@pytest.mark.parametrize("name", sorted(FOUND_BY_PLAIN))
def test_control_flow_is_checked_in_the_plain_build(name, schedule):
    kernels = load("semantics", "plain")
    kernels.configure(schedule)
    with pytest.raises(SimtError):
        run(kernels, name, wrong=1)


def test_global_atomics_conflict_with_plain_writes():
    kernels = load("semantics", "check")
    kernels.configure(SCHEDULES[0])
    with pytest.raises(SimtError, match="race: global memory"):
        run(kernels, "atomics", wrong=2)


def test_reports_name_thread_buffer_and_line():
    kernels = load("semantics", "check")
    kernels.configure(SCHEDULES[0])
    with pytest.raises(SimtError) as error:
        run(kernels, "global_bounds", wrong=1)
    (report,) = error.value.reports
    assert "block (0,0,0) thread (0,0,0)" in report and "buffer 'x'" in report
    source = build.kernel_source("semantics").read_text().splitlines()
    line = int(report.split("simt/test_kernels/semantics.cu:")[1].split(",")[0])
    assert "void global_bounds" in source[line - 1]


@schedules
class TestResults:
    """CUDA's results of the legal kernels, computed by numpy."""

    @pytest.fixture(autouse=True)
    def _kernels(self, schedule):
        self.kernels = load("semantics", "plain")
        self.kernels.configure(schedule)

    def test_partial_masks(self):
        x, y = run(self.kernels, "partial_masks")
        tiles = x[:64].reshape(8, 8).copy()
        for tile, values in enumerate(tiles):
            for _ in range(tile % 4 + 1):
                values[:] = values.sum()
        np.testing.assert_array_equal(y[:64], tiles.ravel())

    def test_votes(self):
        _, y = run(self.kernels, "votes")
        rows, t = y.view(np.uint32).reshape(32, 8), np.arange(32)
        assert (rows[:, 0] == sum(1 << i for i in range(0, 32, 3))).all()
        assert (rows[:, 1] == 0xF << (t // 4 * 4)).all()
        assert (rows[:, 2] == t.sum()).all()
        assert (rows[:, 3].view(np.int32) == -5).all()
        assert (rows[:, 4:8] == [1, 0, 5, 1]).all()

    def test_shuffles(self):
        x, y = run(self.kernels, "shuffles")
        t = np.arange(32)
        sources = [
            t // 16 * 16 + (t + 1) % 16,
            np.where(t < 3, t, t - 3),
            np.where(t % 8 + 5 < 8, t + 5, t),
            t ^ 9,
        ]
        np.testing.assert_array_equal(y[:128].reshape(32, 4).T, x[np.stack(sources)])

    def test_early_exit(self):
        _, y = run(self.kernels, "early_exit")
        np.testing.assert_array_equal(y[:128], np.repeat([32.0, 0.0], 64))

    def test_atomics(self):
        _, y = run(self.kernels, "atomics")
        assert y[0] == 3 * 70 and y[1:3].view(np.int32).tolist() == [2, 7]

    def test_groups(self):
        x, y = run(self.kernels, "groups")
        np.testing.assert_array_equal(y[:8], x[:64].reshape(8, 8).sum(1) + 0b11 + 0 + 1)

    def test_narrow_and_wide_accesses(self):
        _, y = run(self.kernels, "two_byte_accesses")
        np.testing.assert_array_equal(y.view(np.float16)[:64], np.arange(64) + (np.arange(64) < 32))
        x, y = run(self.kernels, "sixteen_byte_accesses")
        np.testing.assert_array_equal(y[:128].reshape(32, 4), x[:128].reshape(32, 4)[::-1])

    def test_implicit_warp_synchrony(self):
        x, y = run(self.kernels, "implicit_warp_synchrony")
        assert y[0] == x[:32].sum()


@pytest.mark.parametrize(
    ("blocks", "threads", "shared_bytes", "opt_in", "accepted"),
    [
        (1, 64, 256, 0, True),
        (0, 64, 256, 0, False),
        (1, 0, 256, 0, False),
        (1, 1025, 8192, 0, False),
        (1, 64, 49152, 0, True),
        (1, 64, 49153, 0, False),
        (1, 64, 232448, 1, True),  # beside the kernels' static shared memory
        (1, 64, 232449, 1, False),
        (1, 64, 256, 2, True),  # by allow_dynamic_shared
        (1, 64, 232448, 2, True),
        (1, 64, 232449, 2, False),
    ],
)
def test_launch_configurations_are_judged_as_by_cuda(blocks, threads, shared_bytes, opt_in, accepted):
    kernels = SimtLibrary("semantics")
    kernels.configure(SCHEDULES[0])
    args = (torch.zeros(1024), blocks, threads, shared_bytes, opt_in)
    if accepted:
        kernels.launch("semantics_configuration", *args)
    else:
        with pytest.raises(SimtError):
            kernels.launch("semantics_configuration", *args)


def test_an_error_left_behind_is_not_blamed_on_the_next_launch():
    kernels = SimtLibrary("semantics")
    kernels.configure(SCHEDULES[0])
    good, bad_attribute = (torch.zeros(1024), 1, 64, 256, 0), (torch.zeros(1024), 1, 64, 1 << 20, 1)
    with pytest.raises(SimtError):
        kernels.launch("semantics_configuration", *bad_attribute)
    kernels.launch("semantics_configuration", *good)
    assert kernels.take_last_error() != 0  # it was not ours to take


@pytest.mark.parametrize("wrong", [(0, 64, 256, 0), (1, 64, 1 << 20, 0), (1, 64, 1 << 20, 2)])
def test_a_failing_launch_is_reported_once(wrong):
    kernels = SimtLibrary("semantics")
    kernels.configure(SCHEDULES[0])
    with pytest.raises(SimtError):
        kernels.launch("semantics_configuration", torch.zeros(1024), *wrong)
    assert kernels.take_last_error() == 0
    kernels.launch("semantics_configuration", torch.zeros(1024), 1, 64, 256, 0)


def test_leave_for_shared_memory_does_not_depend_on_the_size():
    """Two host threads may ask at once: the later one must not take from the other what it was granted."""
    kernels = SimtLibrary("semantics")
    kernels.configure(SCHEDULES[0])
    kernels.launch("semantics_configuration", torch.zeros(1024), 1, 64, 256, 2)
    kernels.launch("semantics_configuration", torch.zeros(1024), 1, 64, 200000, 0)


def test_plain_build_sees_writes_beside_a_buffer():
    kernels = load("semantics", "plain")
    kernels.configure(SCHEDULES[0])
    with pytest.raises(AssertionError, match="memory beside buffer 'y' was written"):
        kernels.launch("semantics_strided", torch.zeros(32), torch.zeros(31), 1)


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (0, 1)])
def test_traffic_counts_sectors(stride, sectors):
    kernels = load("semantics", "check")
    kernels.configure(SCHEDULES[0], count_traffic=True)
    kernels.launch("semantics_strided", torch.zeros(256), torch.zeros(32), stride)
    read, write = sorted(kernels.traffic(), key=lambda row: row.kind)
    assert (read.units, read.requests, read.lanes) == (sectors, 1, 32)
    assert (write.units, write.ideal) == (4, 4)


@pytest.mark.parametrize(("wrong", "passes"), [(0, 1), (1, 32)])
def test_traffic_counts_bank_passes(wrong, passes):
    kernels = load("semantics", "check")
    kernels.configure(SCHEDULES[0], count_traffic=True)
    kernels.launch("semantics_banks", torch.zeros(1024), torch.zeros(1024), wrong)
    (read,) = (row for row in kernels.traffic() if (row.space, row.kind) == ("shared", "read"))
    assert (read.requests, read.units, read.ideal) == (32, 32 * passes, 32)


def test_traffic_of_sixteen_byte_accesses():
    kernels = load("semantics", "check")
    kernels.configure(SCHEDULES[0], count_traffic=True)
    run(kernels, "sixteen_byte_accesses")
    rows = kernels.traffic()
    assert rows and all((row.bytes, row.units, row.ideal) == (16, 16, 16) for row in rows), rows


def test_wrong_arguments_are_refused():
    kernels = load("semantics", "plain")
    with pytest.raises(TypeError, match=r"semantics_strided takes \(x, y, stride\), got 1 arguments"):
        kernels.launch("semantics_strided", torch.zeros(1))
