"""Theano's own test-suites for convolutions and poolings, without layoutopt, with it, and with everything in c01b that can be.

    python tests/theano_suites.py [--quick] [--only WORD] [--every N]        (make theano-tests)

They ship with Theano. They are for small problems, of which the plan leaves most alone; so the third run, `forced`, makes bc01
dear, and all that qualifies is computed by our kernels and compared with what Theano's authors compare with. What
fails without layoutopt (Theano 1.0.5 is older than the Python and numpy it runs on) may fail with it, nothing else may.
"""
import argparse
import collections
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
import types
import unittest

RUNS = ("stock", "flag", "forced")
SUITES = (
    "tensor/signal/tests/test_pool.py",
    "tensor/signal/tests/test_conv.py",
    "tensor/nnet/tests/test_corr.py",
    "tensor/nnet/tests/test_conv.py",
    "tensor/nnet/tests/test_abstract_conv.py",
    "tensor/nnet/tests/test_bn.py",
    "tensor/nnet/tests/test_neighbours.py",
    "tensor/nnet/tests/test_opt.py",
    "tensor/nnet/tests/test_nnet.py",
    "tensor/nnet/tests/test_sigm.py",
    "tests/test_2nd_order_grads.py",
    "tests/test_rop.py",
)
# Those where our kernels have most to do: {suite: (of a test's cases each so manieth, pytest's -k)}.
QUICK = {
    "tensor/signal/tests/test_pool.py": (1, "not grad and not hessian and not vars and not 3d"),
    "tensor/nnet/tests/test_corr.py": (1, "TestCorr2D or TestGroupCorr2d or TestAsymmetricCorr"),
    "tensor/nnet/tests/test_conv.py": (1, ""),
    "tensor/nnet/tests/test_abstract_conv.py": (40, "not 3d"),
}
IN_FLOAT64 = ("tensor/signal/tests/test_pool.py",)
TOTALS = ("functions", "functions in c01b", "sites")


# ---------------------------------------------------------------------------------------------------------------------
# One run of one suite, in a process of its own.

def stand_in_for_nose():
    """The few names of nose that the suites use; nose itself cannot be imported since Python 3.10."""
    case = unittest.TestCase()
    names = {"nose": {},
             "nose.tools": dict(assert_raises=case.assertRaises, assert_true=case.assertTrue, assert_equals=case.assertEqual),
             "nose.plugins": {},
             "nose.plugins.skip": dict(SkipTest=unittest.SkipTest),
             "nose.plugins.attrib": dict(attr=lambda *args, **kwargs: lambda function: function)}
    for name, members in names.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)


class Outcomes:
    """A pytest plugin: what became of each test, and of each case of a test that yields its cases, as nose ran them."""

    def __init__(self, every):
        self.every = every  # of the yielded cases: each so manieth is run
        self.outcomes = {}

    def pytest_runtest_setup(self, item):
        import numpy
        numpy.random.seed(20121203)  # many tests draw without a seed: the same data in each run

    def pytest_collection_modifyitems(self, items):
        """Of the tests that parameterized made of one test, each so manieth."""
        families = collections.defaultdict(list)
        for item in items:
            families[item.nodeid.split("__")[0]].append(item)
        kept = {item for family in families.values() for item in family[::self.every]}
        items[:] = [item for item in items if item in kept]

    def unroll(self, module):
        """Make plain tests of those that yield their cases, which pytest does not run."""
        for owner in vars(module).values():
            for name, function in list(vars(owner).items()) if inspect.isclass(owner) else ():
                if inspect.isgeneratorfunction(function) and name.startswith("test"):
                    setattr(owner, name, self.case_by_case(function))

    def case_by_case(self, generator):
        def run(self_of_test):
            failed = 0
            for number, (case, *args) in enumerate(generator(self_of_test)):
                if number % self.every:
                    continue
                name = "%s.%s[%d]" % (type(self_of_test).__name__, generator.__name__, number)
                try:
                    case(*args)
                    self.outcomes[name] = "passed"
                except unittest.SkipTest as reason:
                    self.outcomes[name] = "skipped: %s" % reason
                except Exception as problem:
                    self.outcomes[name] = in_a_line(problem)
                    failed += 1
            assert not failed, "%d cases" % failed
        return run

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.outcomes[report.nodeid] = "failed: " + (crash.message.splitlines()[0] if crash else str(report.longrepr))[:300]

    def pytest_collectreport(self, report):
        if report.failed:
            self.outcomes[report.nodeid] = "failed: " + str(report.longrepr).strip().splitlines()[-1][:300]


def in_a_line(problem):
    return ("failed: %s: %s" % (type(problem).__name__, problem)).splitlines()[0][:300]


def draw_in_float32(module):
    """Make a suite draw its images in float32, and declare them so: of float64 all would be left to Theano. What is to be
    differentiated by finite differences stays in float64, where they mean something."""
    import numpy
    from theano import tensor
    from theano.tests import unittest_tools

    class Array(numpy.ndarray):
        """Takes a list of slices for a tuple of them, as numpy did until 1.23 and the suite's reference expects."""

        def __getitem__(self, index):
            return super().__getitem__(tuple(index) if isinstance(index, list) else index)

    class Generator(numpy.random.RandomState):
        def rand(self, *shape):
            return super().rand(*shape).astype("float32").view(Array)

    module.np, module.np.random = copy_of(numpy), copy_of(numpy.random)
    module.np.random.RandomState = Generator
    module.np.zeros = lambda *args, **kwargs: numpy.zeros(*args, **kwargs).view(Array)
    module.utt = copy_of(unittest_tools)
    module.utt.verify_grad = lambda op, points, *args, **kwargs: unittest_tools.verify_grad(
        op, [numpy.array(point, "float64") for point in points], *args, **kwargs)
    module.tensor = copy_of(tensor)
    for name in dir(tensor):
        if name.startswith("d") and hasattr(tensor, "f" + name[1:]):
            setattr(module.tensor, name, getattr(tensor, "f" + name[1:]))


def copy_of(module):
    copy = types.ModuleType(module.__name__)
    vars(copy).update(vars(module))
    return copy


def count_sites(counts, raised):
    """Count what the optimizer does, and keep what it raises, which Theano would only log."""
    from layoutopt import optimizer
    carry = optimizer.carry_layout

    def counted(*args, **kwargs):
        try:
            record = carry(*args, **kwargs)
        except Exception as problem:
            raised.append(in_a_line(problem))
            raise
        moved = [site for site in record.sites if site.layout == "c01b"]
        counts["functions"] += 1
        counts["functions in c01b"] += bool(moved)
        counts["sites"] += len(record.sites)
        for site in moved:
            counts[site.op] += 1
        return record

    optimizer.carry_layout = counted


def force():
    """All that qualifies goes into c01b, in modes that do not read the flag, too."""
    from layoutopt.rewrites.cost import Machine
    from theano.compile import optdb

    for name, seconds in (("stock_conv_seconds", 1.0), ("stock_pool_seconds", 1.0), ("conversion_seconds", 1e-3)):
        setattr(Machine, name, lambda self, *work, seconds=seconds, **named: seconds)
    optdb.add_tags("layoutopt", "fast_run")


def accept_our_ops():
    """Where a test demands Theano's op in the graph, ours in its place is as good."""
    from theano.tensor.nnet.tests import test_abstract_conv, test_corr
    from theano.tests.unittest_tools import InferShapeTester

    def either(op):
        return (op,) + ours_for().get(op, ()) if inspect.isclass(op) else op

    for module in (test_abstract_conv, test_corr):
        for owner in filter(inspect.isclass, vars(module).values()):
            for name, op in list(vars(owner).items()):
                if name.endswith("_op") and inspect.isclass(op):
                    setattr(owner, name, either(op))
    for name in ("run_fwd", "run_gradweight", "run_gradinput"):
        run = getattr(test_abstract_conv.BaseTestConv, name)
        setattr(test_abstract_conv.BaseTestConv, name, lambda *args, target_op=None, run=run, **kwargs: run(
            *args, target_op=either(target_op), **kwargs))
    check = InferShapeTester._compile_and_check
    InferShapeTester._compile_and_check = lambda self, inputs, outputs, values, op, *args, **kwargs: check(
        self, inputs, outputs, values, either(op), *args, **kwargs)


def ours_for():
    """{Theano's op: ours that may stand in its place}."""
    from layoutopt.kernels import FilterActs, ImageActs, WeightActs, avg_pool, pool as max_pool
    from theano.tensor.nnet import corr
    from theano.tensor.signal import pool

    return {corr.CorrMM: (FilterActs,), corr.CorrMM_gradWeights: (WeightActs,), corr.CorrMM_gradInputs: (ImageActs,),
            pool.Pool: (max_pool.MaxPool, avg_pool.AvgPool), pool.MaxPoolGrad: (max_pool.MaxPoolGrad,),
            pool.AveragePoolGrad: (avg_pool.AvgPoolGrad,), pool.DownsampleFactorMaxGradGrad: (max_pool.MaxPoolGradGrad,)}


def child(run, suite, every, words, answer):
    stand_in_for_nose()
    import pytest
    import theano

    import plain_theano

    plain_theano.find_scipys_functions(setattr)
    plain_theano.compile_nothing(setattr)
    theano.compile.optdb.remove_tags("elemwise_fusion", "fast_run", "fusion")  # what it makes has no Python
    counts, raised = collections.Counter(), []
    if run != "stock":
        count_sites(counts, raised)
        accept_our_ops()
    if run == "forced":
        force()
    folder = os.path.dirname(theano.__file__)
    module = importlib.import_module("theano." + suite[:-len(".py")].replace("/", "."))
    if suite in IN_FLOAT64:
        draw_in_float32(module)
    outcomes = Outcomes(every)
    outcomes.unroll(module)
    open(answer + ".ini", "w").close()  # no settings of the project's
    pytest.main(["-c", answer + ".ini", "--rootdir", os.path.dirname(folder), "-p", "no:cacheprovider", "-q", "--tb=line",
                 "--disable-warnings", "--durations=5", "-k", words, os.path.join(folder, suite)], plugins=[outcomes])
    with open(answer, "w") as file:
        json.dump({"outcomes": outcomes.outcomes, "counts": counts, "raised": raised}, file)


# ---------------------------------------------------------------------------------------------------------------------
# The runs compared.

def run_suite(run, suite, share, folder):
    """What a child finds, and the seconds it took: {"outcomes": {test: outcome}, "counts": {what the optimizer did: how often},
    "raised": [what it raised]}."""
    answer = os.path.join(folder, "answer.json")
    flags = "%s,floatX=float32,optimizer_including=%s" % (os.environ.get("THEANO_FLAGS", ""), "" if run == "stock" else "layoutopt")
    start = time.time()
    done = subprocess.run([sys.executable, __file__, "--child", run, suite, *map(str, share), answer],
                          env=dict(os.environ, THEANORC=os.devnull, LAYOUTOPT_CACHE=folder, THEANO_FLAGS=flags),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode or not os.path.exists(answer):
        sys.exit("%s, %s: the interpreter ended with %d:\n%s" % (suite, run, done.returncode, done.stdout[-3000:]))
    with open(answer) as file:
        found = json.load(file)
    os.remove(answer)
    return found, time.time() - start


def differences(stock, other):
    """{test: (outcome without layoutopt, outcome with it)} of those that fail only with it, or were not reached with it."""
    return {test: (outcome, other.get(test, "not run")) for test, outcome in stock.items()
            if not outcome.startswith("failed") and other.get(test, "not run").startswith(("failed", "not run"))}


def in_words(counts):
    ops = ["%d %s" % (number, name) for name, number in sorted(counts.items()) if name not in TOTALS]
    return "%d functions with %d convolutions or poolings; in c01b: %s" % (
        counts.get("functions", 0), counts.get("sites", 0), ", ".join(ops) or "none")


def summary(outcomes):
    kinds = collections.Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    return ", ".join("%d %s" % (number, kind) for kind, number in sorted(kinds.items()))


def compare(suite, share, folder):
    """Run a suite three times and print what came out; the number of tests that fail for layoutopt alone, and what it did."""
    stock, seconds = run_suite("stock", suite, share, folder)
    print("%s\n  without   %s (%.0f s)" % (suite, summary(stock["outcomes"]), seconds), flush=True)
    worse, moved = 0, collections.Counter()
    for run in RUNS[1:]:
        found, seconds = run_suite(run, suite, share, folder)
        print("  %-9s %s (%.0f s); %s" % (run, summary(found["outcomes"]), seconds, in_words(found["counts"])), flush=True)
        for test, (before, after) in differences(stock["outcomes"], found["outcomes"]).items():
            worse += 1
            print("    WORSE: %s\n      %s" % (test, after))
        for problem in found["raised"]:
            worse += 1
            print("    WORSE: the optimizer raises: %s" % problem)
        moved.update(found["counts"])
    return worse, moved


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the suites of QUICK, and of a test with many cases only some")
    parser.add_argument("--only", default="", metavar="WORD", help="suites whose path has this word in it")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a test with many cases each N-th")
    parser.add_argument("--child", nargs=5, metavar=("RUN", "SUITE", "EVERY", "WORDS", "ANSWER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        run, suite, every, words, answer = chosen.child
        return child(run, suite, int(every), words, answer)
    suites = [suite for suite in (QUICK if chosen.quick else SUITES) if chosen.only in suite]
    worse, moved = 0, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for suite in suites:
            more, counts = compare(suite, QUICK[suite] if chosen.quick else (chosen.every, ""), folder)
            worse, moved = worse + more, moved + counts
    print("all: %s" % in_words(moved))
    if not moved["functions in c01b"]:
        sys.exit("layoutopt did nothing in these suites, so they show nothing of it")
    if worse:
        sys.exit("%d tests fail with layoutopt alone" % worse)
    print("nothing fails with layoutopt that does not fail without it")


if __name__ == "__main__":
    main()
