"""Settings and data that all tests share."""
import os
import re

# pytest-xdist's processes compile side by side, which Theano's lock on a cache would not let them: each has its own.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["THEANO_FLAGS"] = re.sub(r'(base_compiledir="?[^",]+)', r"\1-" + os.environ["PYTEST_XDIST_WORKER"],
                                        os.environ.get("THEANO_FLAGS", ""))

import numpy as np
import pytest
import theano
from hypothesis import settings

from compiled_once import share_libraries

# Plans are those of the machine as assumed, whatever its owner has measured.
os.environ["LAYOUTOPT_CACHE"] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "no-calibrations")
theano.config.floatX = "float32"  # as the examples are run; graphs of other dtypes name theirs

if "PYTEST_XDIST_WORKER" in os.environ:
    worker = "-" + os.environ["PYTEST_XDIST_WORKER"]
    share_libraries(theano.config.base_compiledir.replace(worker, "-libraries"), worker)

# The same examples in every run, and no deadline: the first example of an op may compile it.
settings.register_profile("layoutopt", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("layoutopt")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of ``--dist loadfile``: the longest file first, or one of two processes would wait for the other's last file. pytest-xdist
    begins with the files of most tests, and this one has few."""
    from xdist.scheduler import LoadFileScheduling

    class LongestFirst(LoadFileScheduling):
        def _assign_work_unit(self, node):
            for file in [file for file in self.workqueue if "test_random_programs" in file]:
                self.workqueue.move_to_end(file, last=False)
            super()._assign_work_unit(node)

    return LongestFirst(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def rng():
    """A random generator that starts anew in each test."""
    return np.random.RandomState(20121203)
