"""Random programs with and without layoutopt: those that have failed before, and new ones.

Some hundred run in ``make test``, the same in each run, and the first that fails is printed as it is. ``make fuzz`` runs as
many as it is told (`FUZZ`, its Makefile variable NUMBER), from another seed each time (`FUZZ_SEED`, SEED), and keeps what fails,
made as short as hypothesis can, in tests/regressions, where it is a test from then on: a program fails there until it is repaired.
"""
import collections
import glob
import hashlib
import os

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings

import program_check
from cheap_mode import hardly_any_compilation  # noqa: F401  (a fixture)
from program_check import StockFails, check
from program_steps import programs
from programs import Program

KEPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "regressions")
NUMBER = int(os.environ.get("FUZZ", 0)) or 50
SEED = os.environ.get("FUZZ_SEED")
COMPILED = os.environ.get("FUZZ_COMPILED") or "cheap"  # see program_check.check
# Each example is compiled twice; a fixture that all examples share does no harm.
settings.register_profile("programs", derandomize=SEED is None, deadline=None, max_examples=NUMBER, database=None,
                          print_blob=False, report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
                          phases=(Phase.generate,) if SEED is None else (Phase.generate, Phase.shrink))


def kept_programs():
    return sorted(glob.glob(os.path.join(KEPT, "*.txt")))


@pytest.mark.parametrize("path", kept_programs(), ids=os.path.basename)
def test_what_has_failed_before(path, hardly_any_compilation):
    with open(path) as text:
        check(Program.read(text.read()))


WRONG = """# costs: c01b
x0 = given((3, 2, 6, 5), fractions=True)
h1 = T.nnet.conv2d(x0, shared((4, 2, 3, 3), fractions=True))
output(T.switch(h1 > 0, h1, 1))
"""


def test_a_result_that_is_wrong_by_a_hundredth_fails(hardly_any_compilation, monkeypatch):
    check(Program.read(WRONG))
    results = iter(range(10 ** 6))

    def result_of(function, values, right=program_check.result_of):
        outputs = right(function, values)
        if next(results) == 1:  # stock is called first
            outputs[0][1, 2, 3, 1] *= 1.01
        return outputs

    monkeypatch.setattr(program_check, "result_of", result_of)
    with pytest.raises(AssertionError, match="further off than rounding explains: .*'result 0'"):
        check(Program.read(WRONG))


def test_random_programs(request):
    if COMPILED == "cheap":
        request.getfixturevalue("hardly_any_compilation")
    seen, failed = collections.Counter(), []
    print("%d random programs from seed %s" % (NUMBER, SEED or 0))

    @settings(settings.get_profile("programs"))
    @seed(int(SEED or 0))
    @given(programs())
    def holds(program):
        try:
            outcome = check(program, COMPILED)
        except StockFails as reason:
            seen["programs that Theano cannot compile"] += 1
            assume(not reason)
        except Exception:
            if not failed:
                print("A program that fails:\n%s" % (program,), flush=True)
            failed[:] = [program]  # with a seed the last one is the shortest
            raise
        seen.update(["programs", "exact programs"] if outcome.exact else ["programs"])
        seen.update({"programs that raise as they do without": outcome.raised, "conversions": outcome.conversions,
                     "programs in c01b": "c01b" in outcome.layouts, "sites": len(outcome.layouts),
                     "sites in c01b": outcome.layouts.count("c01b")})

    try:
        holds()
    except Exception as error:
        if failed and SEED is not None:
            print("The same, made shorter:\n%s" % (failed[0],))
            keep(failed[0], error)
        raise
    finally:
        print(", ".join("%d %s" % (count, what) for what, count in seen.items()))
    if NUMBER >= 100:  # of fewer, hypothesis makes small ones
        assert seen["programs"] > 0.8 * NUMBER and seen["programs in c01b"] > 0.5 * seen["programs"]
        assert seen["exact programs"] > 0.15 * seen["programs"] and seen["conversions"] > seen["programs"]


def keep(program, error):
    name = hashlib.sha256(str(program).encode()).hexdigest()[:8]
    path = os.path.join(KEPT, name + ".txt")
    os.makedirs(KEPT, exist_ok=True)
    with open(path, "w") as text:
        text.write("# %s: %s\n%s" % (type(error).__name__, " ".join(str(error).split())[:100], program))
    print("It is kept as %s." % os.path.relpath(path))
