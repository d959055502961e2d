"""The SIMT tests of the operators can fail: they catch every barrier removed and every wrong variant."""

import pytest
from simt import Suite, build
from simt.mutation import Mutant, all_suites, mutants, todays_third, verdict
from simt.suite import WrongVariant

pytestmark = pytest.mark.skipif(
    build.missing_requirement() is not None or build.asan_loaded(),
    reason=build.missing_requirement() or "the check build's own test",
)
MUTANTS = [mutant for suite in all_suites() for mutant in mutants(suite)]


def check(mutant: Mutant) -> None:
    result = verdict(mutant)
    assert result is not None, f"no case notices the change: {mutant}"
    print(f"{mutant}\n    {result}")


@pytest.mark.parametrize("mutant", todays_third(MUTANTS), ids=str)
def test_a_third_of_the_mutants_in_turn(mutant):
    check(mutant)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant(mutant):
    check(mutant)


def test_an_unchanged_kernel_is_not_caught():
    (suite,) = (s for s in all_suites() if s.name == "reduce")
    source = build.kernel_source(suite.name)
    assert verdict(Mutant(suite, "unchanged", source, source.read_text())) is None


def test_a_variant_must_match_the_source():
    with pytest.raises(ValueError, match=r"'gone'.*must stand once in the sources, it stands 0 times"):
        mutants(Suite("reduce", wrong_variants=[WrongVariant("gone", "no such text", "")]))


def test_a_launch_without_case_is_noticed():
    with pytest.raises(AssertionError, match=r"launches that no case executes:\nline \d+, semantics\("):
        Suite("semantics").test_launches()()


@pytest.mark.parametrize("suite", all_suites(), ids=lambda s: s.name)
def test_suites_have_wrong_variants(suite):
    assert len(suite.wrong_variants) >= 5
