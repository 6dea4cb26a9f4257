# Each command makes the environment that it needs, once. PYTHON=python3.10 chooses the interpreter (and its own
# environment); ARGS is handed on: make demo ARGS='--data path', make test ARGS='-k install'.

VENV := .venv$(if $(PYTHON),-$(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
PY := $(VENV)/bin/python
# An environment knows the path of its checkout: one that was moved or copied along is made again.
READY := $(VENV)/ready-$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)
TORCH := .venv-torch

export PYTHON PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled code stays in the environment, out of the user's home. The user's own flags come last, so they win.
export THEANO_FLAGS := base_compiledir="$(CURDIR)/$(VENV)/theano-cache",$(THEANO_FLAGS)

.PHONY: help env demo test bench clean
help:
	@echo 'make demo    trains a convolution net with and without layoutopt and compares'
	@echo 'make test    runs the tests'
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

# The user's own .theanorc stays out of it.
test: $(READY)
	@THEANORC=/dev/null $(PY) -m pytest $(ARGS)

# PyTorch wants another numpy, so it lives in an environment of its own. PIP_INDEX_URL chooses where it comes from (on
# Linux the default one brings CUDA along).
bench: $(READY)
	@test -e $(TORCH)/ready || { tools/make-venv $(TORCH) && \
	  $(TORCH)/bin/python -m pip install --quiet torch==2.13.0 numpy && touch $(TORCH)/ready; } || \
	  echo 'PyTorch 2.13.0 could not be installed (reason above): measuring without it.' >&2
	@TORCH_PYTHON="$$(test -e $(TORCH)/ready && echo '$(CURDIR)/$(TORCH)/bin/python')" $(PY) benchmarks/cpu.py $(ARGS)

clean:
	rm -rf .venv* build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
