# The commands for users and contributors.

PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
BIN := .venv/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=
INPUTS ?= 200000
SOAK_ARGS ?=
MUTANTS_ARGS ?=
LOCK_ARGS ?=
# For make test-pythons: versions, interpreters, and suites of Debian, whose own Python is tested in a bare root
PYTHONS ?= 3.11 3.12 3.13 3.14 trixie sid

.PHONY: run run-redis stop example check test test-compiled test-packages test-lowest test-pythons soak soak-follows mutants fuzz docs lint bench wheel dist deb clean install uninstall lock

run: .venv/run.stamp
	@PROXYHERD_TYPED='make run' $(BIN)/proxyherd up

# The same servers, with their table in nine Redis nodes: docs/redis.md
run-redis: .venv/run.stamp
	@BIN=$(BIN) deploy/redis/run.sh

stop:
	@$(call need_python,$(LOCAL_PYTHON))
	@PROXYHERD_TYPED='make stop' $(LOCAL_PYTHON) -m proxyherd.local down

# Fifty phones that move through Los Angeles, and a page with a fence; Ctrl-C ends what it has started.
example: .venv/run.stamp
	@BIN=$(BIN) $(BIN)/python examples/fence.py

# While you write: style, types, the pages, and all tests that start no process and are not marked as long; of the
# simulated herds the first hundred. Workers take tests from one another: that costs less than groups, which none needs.
# There is one more of them than processors, because some tests wait.
IN_PROCESS := $(filter-out tests/system/ tests/project/ tests/support/ tests/mutation/ tests/fuzz/,$(wildcard tests/*/))
check: lint
	@$(BIN)/pytest -q -m 'not long' -n $$(($$(nproc) + 1)) --dist worksteal $(IN_PROCESS) $(addprefix tests/project/test_,docs.py floors.py layout.py names.py) $(PYTEST_ARGS)

# Else each worker compiles all tests, and each program that they start what it imports: a minute of processor time.
check test: export PYTHONDONTWRITEBYTECODE =
check: export PROXYHERD_SEEDS ?= 100

# Five at once, even on two cores, because tests mostly wait; tests/conftest.py says in which order.
test: .venv/test.stamp
	@tests/support/install-debian-packages.sh
	@$(BIN)/pytest -n 5 --dist loadgroup $(PYTEST_ARGS)

# What make dist makes, and the laws of the core on the compiled wheel.
test-compiled: .venv/test.stamp
	@$(BIN)/pytest tests/system/compiled_laws.py $(PYTEST_ARGS)

# The packages, and the commands of README, on each release of Debian that is promised: some minutes.
test-packages: .venv/test.stamp
	@tests/support/install-debian-packages.sh
	@CI=true PROXYHERD_SUITES=all $(BIN)/pytest $(addprefix tests/system/test_,bare_machine.py compose.py container.py deb.py) $(PYTEST_ARGS)

# With the lowest versions of libraries that pyproject.toml allows, which have wheels for Python 3.11: what uses libraries.
LOWEST := var/lowest
test-lowest: $(LOWEST)/stamp
	@$(LOWEST)/bin/pytest -q -n 4 --dist loadgroup $(addprefix tests/,admin cli config engines/redis net server \
		web/test_tokens.py web/test_routes_tokens.py places/gazetteer/test_file.py system/test_conformance.py) $(PYTEST_ARGS)
$(LOWEST)/stamp: pyproject.toml tests/support/lowest.txt
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(LOWEST)/bin/pip install --quiet --disable-pip-version-check --no-compile -c tests/support/lowest.txt -e '.[test]' || { \
		echo "make test-lowest: such old packages are there for Python 3.11: PYTHON=/path/to/python3.11" >&2; exit 1; }
	@touch $@

# On several Pythons, each some ten minutes: make test-pythons PYTHONS='3.12 /opt/bin/python3 trixie' PYTEST_ARGS=tests/core
test-pythons:
	@tests/support/install-debian-packages.sh
	@tests/support/pythons.sh $(PYTHONS)

# Against others, some 30 minutes; two with make bench BENCH_ARGS=--quick; a change of yours in one, with
# make bench BENCH_ARGS='--only "one 50x32" --against FOLDER', where FOLDER is a checkout of what was before
bench: .venv/test.stamp
	@for program in redis-server node; do \
		command -v $$program >/dev/null && continue; \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || continue; \
		package=$$program; [ $$program = node ] && package=nodejs; \
		echo "Installing $$package"; \
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $$package; } >/dev/null 2>&1 || \
			echo "make bench: $$package could not be installed" >&2; \
	done
	@$(BIN)/python bench/compare.py $(BENCH_ARGS)
	@case "$$BENCH_ARGS" in *--only*|*--against*) exit;; esac; \
	if command -v chromium >/dev/null; then $(BIN)/python bench/page.py; \
	else echo "make bench: chromium is not installed, so the status page is not measured" >&2; fi; \
	$(BIN)/python bench/places.py; $(BIN)/python bench/near.py; $(BIN)/python bench/moving.py; \
	$(BIN)/python bench/follow.py

# Any number of simulated herds: make soak SOAK_ARGS='--seeds 1000000 --first 7'
soak: .venv/test.stamp
	@$(BIN)/python tests/support/soak.py $(SOAK_ARGS)

# Followers of a real herd for an hour, whose servers are killed: make soak-follows SOAK_ARGS='--seconds 600'
soak-follows: .venv/test.stamp
	@$(BIN)/python tests/support/follow_soak.py $(SOAK_ARGS)

# Changes of the program that no quick test notices: make mutants MUTANTS_ARGS='--only proxyherd/core/table.py'
mutants: .venv/test.stamp
	@$(BIN)/python tests/mutation/mutants.py $(MUTANTS_ARGS)

# Coverage-guided fuzzing: INPUTS inputs for all targets together. Inputs that fail are kept in var/fuzz/finds/.
fuzz: .venv/fuzz.stamp
	@$(BIN)/python tests/fuzz/run.py --inputs $(INPUTS)

# The documentation as a site, in var/docs
docs: .venv/test.stamp
	@$(BIN)/python docs/make_site.py

lint: .venv/test.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --no-error-summary

# Into dist/: a wheel for all machines, and a faster one for machines like this, if there is a C compiler.
PIP_WHEEL = rm -rf build && $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
wheel: .venv/run.stamp
	@rm -f dist/proxyherd-*.whl; $(PIP_WHEEL)
	@if command -v cc >/dev/null; then echo "Compiling, for a minute or two"; PROXYHERD_COMPILED=1; export PROXYHERD_COMPILED; $(PIP_WHEEL); \
	else echo "make wheel: there is no C compiler, so only the wheel in pure Python was built" >&2; fi
	@ls dist/proxyherd-*.whl

# A release: source distribution, wheels, and what they bring along (CycloneDX), in environments that are thrown away.
dist: wheel
	@rm -rf build/dist dist/proxyherd-*.tar.gz dist/proxyherd-*.cdx.json
	@$(PYTHON) -m venv build/dist/tools && $(PYTHON) -m venv --without-pip build/dist/program
	@build/dist/tools/bin/pip install --quiet --disable-pip-version-check build twine cyclonedx-bom
	@build/dist/tools/bin/pip --python build/dist/program install --quiet --disable-pip-version-check dist/proxyherd-*-none-any.whl
	@build/dist/tools/bin/python -m build --sdist --outdir dist . >build/dist/log || { cat build/dist/log >&2; exit 1; }
	@build/dist/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file "$$(ls dist/proxyherd-*.tar.gz | sed 's/\.tar\.gz$$/.cdx.json/')" build/dist/program
	@build/dist/tools/bin/twine check --strict dist/*.whl dist/*.tar.gz && ls dist/*

# For systemd, as root: docs/operations.md. A package is made with DESTDIR.
install:
	@PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh deploy/install.sh install

# Into dist/: a package for the release of Debian on which it is built.
deb:
	@sh deploy/debian/build.sh

uninstall:
	@PYTHON= PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh deploy/install.sh uninstall

# The lock files from which make install takes versions and hashes: make lock LOCK_ARGS=--upgrade
lock:
	@PYTHON='$(PYTHON)' LOCK_ARGS='$(LOCK_ARGS)' sh deploy/lock.sh

clean:
	@$(call need_python,$(LOCAL_PYTHON))
	@PROXYHERD_TYPED='make clean' $(LOCAL_PYTHON) -m proxyherd.local check-stopped
	rm -rf .venv var build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment's programs contain its path, and it needs the Python that made it. So a checkout that was moved or
# copied gets a new one, and so does one whose Python is gone, as after an upgrade of the system.
ifneq ($(shell if test -L .venv/bin/python && test ! -e .venv/bin/python; then echo gone; \
	else cat .venv/folder 2>/dev/null || pwd -P; fi),$(shell pwd -P))
$(shell rm -f .venv/folder .venv/run.stamp .venv/test.stamp .venv/fuzz.stamp var/lowest/stamp)
endif
TYPED = make $(or $(firstword $(MAKECMDGOALS)),run)
NEEDED_PYTHON = $(shell sed -n 's/^requires-python = ">=\(.*\)"$$/\1/p' pyproject.toml)
IS_NEW_ENOUGH = import sys; sys.exit(sys.version_info < tuple(map(int, '$(NEEDED_PYTHON)'.split('.'))))
need_python = $(1) -c "$(IS_NEW_ENOUGH)" || { \
	echo "$(TYPED): $(1) is $$($(1) -V 2>&1), and $(NEEDED_PYTHON) or newer is needed:" \
	"$(TYPED) PYTHON=/path/to/python3" >&2; exit 1; }
# What runs without the environment takes its Python all the same, if it is there: that one is new enough.
LOCAL_PYTHON = $(or $(shell $(BIN)/python -c 'print("$(BIN)/python")' 2>/dev/null),$(PYTHON))
define make_venv
@test "$$(cat .venv/folder 2>/dev/null)" = "$$(pwd -P)" || $(call need_python,$(PYTHON))
@echo "Installing into .venv"; test "$$(cat .venv/folder 2>/dev/null)" = "$$(pwd -P)" || { \
	$(PYTHON) -m venv --clear .venv && pwd -P >.venv/folder; }
endef

# Without a network, pip is not to try for minutes, unless the user has said how long.
.venv/%.stamp: export PIP_TIMEOUT ?= 10
.venv/%.stamp: export PIP_RETRIES ?= 1
PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check
without_packages = { echo "$(TYPED): pip could not get the packages. Without a network:" \
	"PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER, where FOLDER has what 'pip download . setuptools' brings elsewhere" >&2; exit 1; }
TESTED_PYTHONS = $(shell sed -n 's/^ *"Programming Language :: Python :: \(3[.][0-9]*\)",$$/\1/p' pyproject.toml)
without_test_packages = { echo "make $(or $(firstword $(MAKECMDGOALS)),test): this is $$($(PYTHON) -V 2>&1); what tests need is" \
	"known to be there for Python $(TESTED_PYTHONS): make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; $(without_packages); }

# The virtual environment is current if its stamp is newer than the files from which it was made.
.venv/run.stamp: pyproject.toml
	$(make_venv)
	@$(PIP_INSTALL) -e . || $(without_packages)
	@touch $@

# Not compiled: that takes longer than compiling what is imported, when it is.
.venv/test.stamp: pyproject.toml
	$(make_venv)
	@$(PIP_INSTALL) --no-compile -e '.[test,bench]' || $(without_test_packages)
	@touch .venv/run.stamp $@

.venv/fuzz.stamp: pyproject.toml
	$(make_venv)
	@$(PIP_INSTALL) -e '.[fuzz]' || $(without_test_packages)
	@touch .venv/run.stamp $@
