# What a newcomer types.

PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
BIN := .venv/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=
INPUTS ?= 200000
SOAK_ARGS ?=
# The longest path of supervisord's socket: 107 bytes that UNIX allows, less "." and a pid, which it adds.
MAX_SOCKET := 99

.PHONY: run run-redis check-path stop test soak fuzz lint bench clean install uninstall

run: .venv/run.stamp check-path
	@umask 027; mkdir -p var/lib var/log var/run
	@$(BIN)/proxyherd secret new var/secret --if-missing
	@$(BIN)/proxyherd gazetteer build var/gazetteer.sqlite --config deploy/herd.toml || \
		echo "make run: the herd starts with the offline places that it has" >&2
	@if $(BIN)/supervisorctl avail 2>/dev/null | grep -q '^redis:'; then \
		echo "make run: the herd on Redis runs in this folder; type make stop first" >&2; exit 1; \
	elif $(BIN)/supervisorctl pid >/dev/null 2>&1; then \
		$(BIN)/supervisorctl update >/dev/null; $(BIN)/supervisorctl start 'herd:*' | grep -v 'already started'; true; \
	else \
		$(BIN)/proxyherd check-config --config deploy/herd.toml --ports >/dev/null && $(BIN)/supervisord -c supervisord.conf; \
	fi
	@$(BIN)/proxyherd status --config deploy/herd.toml --wait 30 || { \
		echo "make run: the herd is not whole; see also: $(BIN)/supervisorctl status" >&2; exit 1; }
	@echo; echo "The herd is up. Next, for example:"; \
	echo "  nc 127.0.0.1 10003      and type there:"; \
	echo "    IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"; \
	echo "    WHATSAT kiwi.cs.ucla.edu 10 5"; \
	echo "  $(BIN)/proxyherd whatsat kiwi.cs.ucla.edu 10 5 --server Bailey"; \
	echo "  $(BIN)/proxyherd status"; \
	echo "  $(BIN)/supervisorctl tail -f herd:Clark"; \
	echo "  $(BIN)/supervisorctl restart herd:Clark"; \
	echo "  make stop"

# The same servers with their table in Redis, on nine nodes: docs/redis.md
run-redis: .venv/run.stamp check-path
	@BIN=$(BIN) deploy/redis/run.sh

check-path:
	@socket="$$(pwd -P)/var/run/supervisor.sock"; size=$$(printf %s "$$socket" | wc -c); \
	if [ $$size -gt $(MAX_SOCKET) ]; then \
		echo "make: $$socket: $$size bytes, a socket's path has $(MAX_SOCKET) at most; move this folder to a shorter path" >&2; \
		exit 1; \
	fi

# Gone is what removed its pid file: the process itself may stay a zombie where nobody reaps it.
stop:
	@$(BIN)/supervisorctl shutdown >/dev/null 2>&1 || { echo "No herd of this folder runs."; exit 0; }; \
	for _ in $$(seq 300); do \
		[ -e var/run/supervisord.pid ] || { echo "The herd has stopped."; exit 0; }; sleep 0.1; \
	done; \
	echo "make stop: supervisord has not ended in 30 s; see var/log/supervisord.log" >&2; exit 1

# Three at once, on two cores too: tests wait more than they work.
test: .venv/test.stamp
	@tests/install-debian-packages.sh
	@$(BIN)/pytest -n 3 --dist loadgroup -m 'not quiet' $(PYTEST_ARGS) || [ $$? -eq 5 ]  # 5: PYTEST_ARGS left none of these
	@$(BIN)/pytest -m quiet $(PYTEST_ARGS) || [ $$? -eq 5 ]

# Against others, some 25 minutes; two with make bench BENCH_ARGS=--quick
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
	@if command -v chromium >/dev/null; then $(BIN)/python bench/page.py; \
	else echo "make bench: chromium is not installed, so the status page is not measured" >&2; fi

# As many simulated herds as wanted: make soak SOAK_ARGS='--seeds 1000000 --first 7'
soak: .venv/test.stamp
	@$(BIN)/python tests/soak.py $(SOAK_ARGS)

# Coverage-guided: INPUTS of them over all targets; what is found is kept below var/fuzz/finds/.
fuzz: .venv/fuzz.stamp
	@$(BIN)/python tests/fuzz/run.py --inputs $(INPUTS)

lint: .venv/test.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --no-error-summary

# For systemd, as root: docs/operations.md. A package is made with DESTDIR.
install:
	@PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh deploy/install.sh install

uninstall:
	@PYTHON= PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh deploy/install.sh uninstall

clean:
	@if $(BIN)/supervisorctl pid >/dev/null 2>&1; then \
		echo "make clean: the herd runs, and its state is in var/; type make stop first" >&2; exit 1; \
	fi
	rm -rf .venv var build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment is current when its stamp is newer than what it was made from.
.venv/run.stamp: pyproject.toml
	@echo "Installing into .venv"; test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/test.stamp: pyproject.toml
	@echo "Installing into .venv"; test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,bench]'
	@touch .venv/run.stamp $@

.venv/fuzz.stamp: pyproject.toml
	@echo "Installing into .venv"; test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@touch .venv/run.stamp $@
