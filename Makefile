# Every habit is one word. `make demo` and `make test` set up whatever they need and repeat quickly.

PYTHON ?= python3
PIP_ARGS ?=
FUZZ_MINUTES ?= 1
FUZZ_ARGS ?=
FUZZ_SEED ?= 1
TSAN_RUN ?=
GPU_PYTHON ?= $(BIN)/python
MINUTES ?= 12
DAY_ARGS ?=
MATRIX_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
OLD_TRITON := build/triton-3.6
PLAYWRIGHT := build/playwright
CHROMIUM ?= $(firstword $(foreach one,chromium chromium-browser google-chrome,$(shell command -v $(one))))
RELEASE := build/release/env
COMPAT := .venv-compat
TYPES := build/types
# Tests run in as many processes as there are processors, each on one thread: more would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(1) -m pytest -q -n logical --maxprocesses 8
READY := $(VENV)/.ready
CSRC := $(wildcard csrc/*/*.h csrc/*/*.cpp)

.PHONY: demo test unit lint types bench fuzz replay build clean environments interpreter aot aot-oldest aot-all kernels-check
.PHONY: gpu-day gpu-test gpu-report rehearse compat compat-own browser fuzz-threads wheels fresh arm64 matrix release

demo: build
	$(BIN)/python -m bench.demo $(if $(IMAGE),--image "$(IMAGE)")

test: build lint unit

unit: build replay
	$(call PYTEST,$(BIN)/python)

lint: $(READY) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# As it is installed: ckbd with kernels inside.
types: $(READY)
	$(BIN)/python -m bench.installed $(TYPES)
	cd $(TYPES) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p ckbd

# Triton's interpreter on the CPU: every kernel against its torch twin, bit for bit.
interpreter: build
	TRITON_INTERPRET=1 $(call PYTEST,$(BIN)/python) tests/interpreter

# Kernels of each kind compiled for GPUs that are not here; by the oldest Triton that is supported, the default model's.
aot: build
	$(BIN)/python -W ignore::UserWarning -m bench.aot

aot-oldest: build $(OLD_TRITON)
	PYTHONPATH=$(OLD_TRITON) $(BIN)/python -m bench.aot --scope default --targets sm_90

# For a release: every launch for every target by both, half an hour on two cores; bench/KERNELS.md says when it was.
aot-all: build $(OLD_TRITON)
	$(BIN)/python -W ignore::UserWarning -m bench.aot --scope all --write bench/KERNELS.md
	PYTHONPATH=$(OLD_TRITON) $(BIN)/python -m bench.aot --scope all --write bench/KERNELS.md

kernels-check: interpreter aot aot-oldest

# What the checks need beyond `make build`.
environments: $(COMPAT)/.ready $(OLD_TRITON) $(if $(CHROMIUM),$(PLAYWRIGHT))

# ckbd.compat.compressai against the real CompressAI, which wants another numpy: an environment on top of the first.
compat: build $(COMPAT)/.ready
	$(call PYTEST,$(COMPAT)/bin/python) tests/compat

# CompressAI's own tests with install() and without it; all must end the same. Fetches its sources; takes minutes.
compat-own: build $(COMPAT)/.ready
	$(COMPAT)/bin/python tests/compat/own_tests.py

# The page of `ckbd eval --html` in a real browser; CHROMIUM names one.
browser: build $(if $(CHROMIUM),$(PLAYWRIGHT))
ifeq ($(CHROMIUM),)
	@echo "no Chromium here: tests/browser did not run (Debian: apt install chromium)"
else
	CHROMIUM="$(CHROMIUM)" PYTHONPATH=$(PLAYWRIGHT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/browser
endif

$(COMPAT)/.ready: $(READY) tests/compat/requirements.txt
	rm -rf $(COMPAT)
	$(PYTHON) -m venv $(COMPAT)
	$(BIN)/python -c "import site; print('import site; site.addsitedir(%r)' % site.getsitepackages()[0])" \
		> $$($(COMPAT)/bin/python -c "import site; print(site.getsitepackages()[0])")/base.pth
	$(COMPAT)/bin/pip install -q --disable-pip-version-check $(PIP_ARGS) --no-deps --no-build-isolation \
		-r tests/compat/requirements.txt
	touch $@

# On a machine with a GPU, all that is missing, in MINUTES; GPU_PYTHON is a Python with CUDA's PyTorch, nothing of ours in it.
gpu-day:
	$(GPU_PYTHON) -m bench.gpu.day --minutes $(MINUTES) $(DAY_ARGS)

# The same on a CPU, to see that it runs: with CompressAI, so that no step is left out. Its environment has no ninja.
rehearse: build $(COMPAT)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" $(COMPAT)/bin/python -m bench.gpu.day --rehearse --strict

# The tests alone; GPU_PYTHON here has this package too.
gpu-test: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),build)
	$(GPU_PYTHON) -m bench.gpu.test

# What a GPU still owes, in the order of gpu-day: results that are missing or older than what they rest on.
gpu-report:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.gpu.report

$(OLD_TRITON): $(READY)
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) --no-deps --target $@ triton==3.6.0

$(PLAYWRIGHT): $(READY)
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) --target $@ playwright==1.65.2

bench: build
	$(BIN)/python -m bench.run decode

# Every fuzzer for FUZZ_MINUTES of processor time. Needs a clang++ with libFuzzer; CLANG names one. What is new in an
# input stays in build/fuzz/corpus.
fuzz: build
	$(BIN)/python fuzz/build.py $(if $(CLANG),--clang $(CLANG))
	$(BIN)/python fuzz/run.py --cpu-minutes $(FUZZ_MINUTES) $(FUZZ_ARGS)

# The fuzzers' targets as programs that run given inputs, for tests/fuzz: any compiler does.
replay: $(READY)
	$(BIN)/python fuzz/build.py --replay

# Many threads call while one writes to their arrays: FUZZ_MINUTES under TSan, then as long under ASan and UBSan. Where TSan
# stops with "unexpected memory mapping" (addresses with more random bits than it knows): TSAN_RUN="setarch -R".
fuzz-threads: $(READY)
	$(BIN)/python fuzz/build.py --threads $(if $(CLANG),--clang $(CLANG))
	$(TSAN_RUN) build/fuzz/threads/threads $$((60 * $(FUZZ_MINUTES))) $(FUZZ_SEED)
	build/fuzz/threads/asan/threads $$((60 * $(FUZZ_MINUTES))) $(FUZZ_SEED)

# What `pip install ckbd` would find, in dist/: for each Python that is here, for x86-64 and ARM64 (release/README.md).
wheels: $(RELEASE)/.ready
	$(RELEASE)/bin/python -m release.wheels

# A wheel of dist/ in an environment of its own, outside the checkout; WITH: more for its pip install.
fresh: $(RELEASE)/.ready
	$(RELEASE)/bin/python -m release.fresh --pip-args "$(WITH)"

# The coder and the exact zone on ARM64, without such a machine; needs Debian's g++-aarch64-linux-gnu and qemu-user-static.
arm64: $(RELEASE)/.ready
	$(RELEASE)/bin/python -m release.arm64

# The core of the tests against wheels, in environments of the oldest and the newest versions: MATRIX_ARGS names some.
matrix: $(RELEASE)/.ready
	$(RELEASE)/bin/python -m release.matrix $(MATRIX_ARGS)

# make release VERSION=1.2.0: version and date, dist/, checks, a tag; nothing is uploaded.
release: $(RELEASE)/.ready
	$(RELEASE)/bin/python -m release.cut "$(VERSION)" --pip-args "$(WITH)"

$(RELEASE)/.ready: release/requirements.txt release/requirements-build.txt
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/pip install -q --disable-pip-version-check $(PIP_ARGS) -r release/requirements.txt
	touch $@

build: $(READY) $(VENV)/.built

# The demo environment is pinned; requirements.txt says to what, requirements-triton.txt why it comes after.
$(READY): requirements.txt requirements-triton.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) -r requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check $(PIP_ARGS) --no-deps --no-warn-conflicts -r requirements-triton.txt
	touch $@

$(VENV)/.built: $(READY) setup.py pyproject.toml models/pyproject.toml $(CSRC)
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e . -e models
	touch $@

clean:
	rm -rf $(VENV) $(COMPAT) build dist *.egg-info models/*.egg-info models/build ckbd/_ans*.so ckbd/_passes*.so ckbd/_rans*.so demo
