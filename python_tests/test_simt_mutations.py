"""The SIMT tests of the operators can fail: they catch every barrier removed and every wrong variant."""

import pytest
from simt import build
from simt.mutation import Mutant, all_suites, mutants, todays_third, verdict

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


@pytest.mark.parametrize("suite", all_suites(), ids=lambda s: s.name)
def test_suites_have_wrong_variants(suite):
    assert len(suite.wrong_variants) >= 5
