# Each command makes the environment that it needs, once. PYTHON=python3.10 chooses the interpreter (and its own
# environment); ARGS is handed on: make demo ARGS='--data path', make test ARGS='-k install'.

VENV := .venv$(if $(PYTHON),-$(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
PY := $(VENV)/bin/python
# An environment knows the path of its checkout: one that was moved or copied along is made again.
READY := $(VENV)/ready-$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)
TORCH := .venv-torch
GPU := .venv-gpu

export PYTHON PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled code stays in the environment, out of the user's home. The user's own flags come last, so they win.
export THEANO_FLAGS := base_compiledir="$(CURDIR)/$(VENV)/theano-cache",$(THEANO_FLAGS)

.PHONY: help env demo test fuzz theano-tests sanitize test-gpu bench clean
help:
	@echo 'make demo    trains a convolution net with and without layoutopt and compares'
	@echo 'make test    runs the tests'
	@echo 'make fuzz    runs NUMBER random programs, by default 2000, with and without layoutopt, from SEED; keeps what fails'
	@echo 'make theano-tests runs the test-suites of Theano itself without and with layoutopt (hours; ARGS=--quick: minutes)'
	@echo 'make test-gpu runs those of the GPU, on DEVICE, by default opencl0:0, which may be a CPU (Debian, Ubuntu)'
	@echo 'make sanitize runs the tests of the kernels with AddressSanitizer and UndefinedBehaviorSanitizer in their C++ (TESTS: which)'
	@echo 'make bench   measures the kernels, next to PyTorch where that can be installed'
	@echo 'make env     only makes the environment, $(VENV)'
	@echo 'make clean   removes the environments and what was built'

env: $(READY)

$(READY): requirements.txt setup.py pyproject.toml layoutopt.pth tools/make-venv
	@command -v g++ >/dev/null || { echo 'layoutopt needs g++: Theano compiles with it (for example `apt install g++`).' >&2; exit 1; }
	@tools/make-venv $(VENV)
	@echo 'Installing what requirements.txt says into $(VENV)'
	@$(PY) -m pip install --quiet -c requirements.txt pip setuptools wheel
# Without isolation, Theano's setup.py is built by the setuptools pinned above, not by whichever is newest that day.
	@$(PY) -m pip install --quiet --no-build-isolation --use-pep517 -r requirements.txt -e .
	@touch $@

demo: $(READY)
	@$(PY) examples/demo.py $(ARGS)

# The user's own .theanorc stays out of it. Two processes on two cores, a file at a time, as most of the time is compilation.
test: $(READY)
	@THEANORC=/dev/null $(PY) -m pytest $$([ "$$(nproc)" = 1 ] || echo --numprocesses 2 --dist loadfile) $(ARGS)

# A program that fails is made shorter, printed, and kept in tests/regressions, where it is one of make test's from then on.
# COMPILED=C compiles all of each program, as users' programs are, which takes half a minute each; else Python is used where it does.
fuzz: $(READY)
	@THEANORC=/dev/null FUZZ=$(or $(NUMBER),2000) FUZZ_COMPILED=$(COMPILED) FUZZ_SEED=$(or $(SEED),$$(date +%s)) \
	  $(PY) -m pytest -s -q $(ARGS) tests/test_random_programs.py

theano-tests: $(READY)
	@THEANORC=/dev/null $(PY) tests/theano_suites.py $(ARGS)

# In C++ of our own alone (tests/sanitized.py), and in its full length: what the kernels are compared with by their own tests,
# and every op at many sizes and for every vector. Stock Theano's ops are left out: another -k takes them in.
SANITIZED := $(addprefix tests/,sanitized_cases.py test_conv_ops.py test_conv_as_ops.py test_winograd.py test_groups.py test_pool.py test_avg_pool.py \
  test_prob_pool.py test_stochastic_pool.py test_weighted_pool.py test_cross_map_norm.py test_batch_norm.py test_relayout.py \
  test_reshape.py test_activation.py test_limits.py test_nests.py)
sanitize: $(READY)
	@THEANORC=/dev/null PYTHONPATH=tests PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  NESTS_SIMD="auto avx2 plain" LD_PRELOAD="$$(g++ -print-file-name=libasan.so)" $(PY) -m pytest -p sanitized -k 'not theano' $(or $(TESTS),$(SANITIZED)) $(ARGS)

# pygpu is the system's, for the system's Python, so this environment is another one. Kernels that PoCL has built stay in it.
test-gpu:
	@test -e $(GPU)/ready || tools/make-gpu-venv $(GPU)
	@THEANORC=/dev/null POCL_CACHE_DIR='$(CURDIR)/$(GPU)/pocl-cache' LAYOUTOPT_TESTS_NEED_GPU=1 \
	  THEANO_FLAGS="$$THEANO_FLAGS",base_compiledir='$(CURDIR)/$(GPU)/theano-cache',device=$(or $(DEVICE),opencl0:0),print_active_device=False \
	  $(GPU)/bin/python -m pytest $(ARGS) tests/test_gpu_kernels.py tests/test_gpu_rewrites.py

# PyTorch wants another numpy, so it lives in an environment of its own. PIP_INDEX_URL chooses where it comes from (on
# Linux the default one brings CUDA along).
bench: $(READY)
	@test -e $(TORCH)/ready || { tools/make-venv $(TORCH) && \
	  $(TORCH)/bin/python -m pip install --quiet torch==2.13.0 numpy && touch $(TORCH)/ready; } || \
	  echo 'PyTorch 2.13.0 could not be installed (reason above): measuring without it.' >&2
	@export TORCH_PYTHON="$$(test -e $(TORCH)/ready && echo '$(CURDIR)/$(TORCH)/bin/python')" && \
	  $(PY) benchmarks/cpu.py $(ARGS) && $(PY) benchmarks/layers.py --batches 1 8 20 100

clean:
	rm -rf .venv* build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
