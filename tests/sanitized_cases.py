"""The cases of guard_cases.py for every op and every vector, to be run under the plugin sanitized.py: see ``make sanitize``."""
import pytest

import guard_cases
from layoutopt.kernels import base


@pytest.mark.parametrize("simd", ["auto", "avx2", "plain"])
@pytest.mark.parametrize("kind", guard_cases.KINDS, ids=[kind.__name__ for kind in guard_cases.KINDS])
def test_every_op(kind, simd):
    with base.configured(simd=simd):
        guard_cases.run(kind)
