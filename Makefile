# ComfyUI-FaithDiff: everything starts from nothing here; the environment is made once, outside the clone (tools/environment.py).

PYTHON ?= python3
PORT ?=

DEMO_ENV = $(PYTHON) tools/environment.py --with demo
TEST_ENV = $(PYTHON) tools/environment.py --with test
AUDIT_ENV = $(PYTHON) tools/environment.py --with audit
TESTS = $(PYTHON) tools/run_tests.py

.DEFAULT_GOAL := help
.PHONY: help demo check lint test test-long test-all test-lowest nano bench fuzz soak mutants coverage audit sbom lock locales clean

help:
	@echo 'make demo    restore a photo through a real ComfyUI server, on the bundled nano model (PORT=8199 chooses the port)'
	@echo 'make check   a first look in a minute: lint, types, the core and one restoration through the nodes'
	@echo 'make test    every test once, against a real ComfyUI (some ten minutes on two cores)'
	@echo 'make test-all  that, what takes long, and the nodes once more in the oldest ComfyUI that is promised'
	@echo 'make test-lowest  make test on the least that a processor may offer: SSE, one thread'
	@echo 'make lint    ruff and pyright'
	@echo 'make nano    train the bundled nano model anew into demo/ (a CPU is enough)'
	@echo 'make bench   measure side by side, print the ratios and write build/bench.json (some minutes; BENCH="...", see docs/engineering/benchmarks.md)'
	@echo 'make fuzz    throw some 170,000 hostile files at the readers (docs/engineering/reliability.md; ten minutes)'
	@echo 'make soak    hundreds of queued runs, kills and faults, with their figures (docs/engineering/reliability.md; an hour)'
	@echo 'make mutants change the core in one place at a time, and count the changes that tests notice'
	@echo 'make coverage  the lines and branches of the pack that tests reach, as build/coverage/index.html'
	@echo 'make audit   known vulnerabilities and licences of everything that is installed for development'
	@echo 'make sbom    write the bill of materials, build/faithdiff.cdx.json'
	@echo 'make lock    pin and hash the development environment anew (tools/lock)'
	@echo 'make locales write the English texts of the nodes anew (locales/en), and say what the other languages lack'
	@echo 'make generated  write anew all that comes from something else: that, API prompts, and workflows (Chromium and Node.js)'
	@echo 'make clean   delete build/ and the caches inside the clone'
	@echo
	@echo 'The first command sets up its environment: about 2.3 GB to fetch and 6.5 GB on disk, in ~/.cache/comfyui-faithdiff.'
	@echo 'PYTHON=python3.12 chooses the Python, COMFYUI_PATH=... an existing ComfyUI, FAITHDIFF_CACHE=... another place.'

demo:
	@$(PYTHON) tools/demo.py $(if $(PORT),--port $(PORT))

# What each of these runs is in tools/hostrun/test_runs.py.
check lint test:
	@$(TESTS) $@

test-long:
	@$(TESTS) long

test-all: test test-long

test-lowest:
	@$(TESTS) lowest

nano:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --no-host --run -m training nano --out demo

bench:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --run benchmarks/run.py $(BENCH)

# All run, whatever the first one says.
fuzz:
	@$(TEST_ENV) > /dev/null
	@failed=0; \
	$(TEST_ENV) --run tests/soak/fuzz_files.py --cases 2400 --mutations 30000 || failed=1; \
	$(TEST_ENV) --no-host --run tests/soak/fuzz_files.py --cases 3800 --mutations 100000 || failed=1; \
	$(TEST_ENV) --run tests/soak/fuzz_guided.py --cases 1500 --seconds 40 || failed=1; \
	$(TEST_ENV) --no-host --run tests/soak/fuzz_guided.py --cases 1500 --seconds 40 || failed=1; \
	exit $$failed

SOAK_WORK = build/soak

soak:
	@$(TEST_ENV) > /dev/null
	rm -rf $(SOAK_WORK) && mkdir -p $(SOAK_WORK)
	@failed=0; \
	$(TEST_ENV) --run tests/soak/leaks.py --out $(SOAK_WORK)/leaks.json || failed=1; \
	$(TEST_ENV) --run tests/soak/queue_bounds.py --out $(SOAK_WORK)/queue_bounds.json || failed=1; \
	$(TEST_ENV) --run tests/soak/queue_faults.py --out $(SOAK_WORK)/queue_faults.json || failed=1; \
	$(TEST_ENV) --no-host --run tests/soak/training_kills.py $(SOAK_WORK)/kills || failed=1; \
	$(TEST_ENV) --no-host --run tests/soak/training_ranks.py $(SOAK_WORK)/ranks --kills 4 || failed=1; \
	exit $$failed

mutants:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --run tests/soak/mutants.py

# Of the pack, by the tests of `make test`; the settings, and the share that is asked for, are in pyproject.toml.
coverage:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --run -m pytest tests/core tests/host -m 'not long' --cov --cov-report term:skip-covered --cov-report html

audit:
	@$(TEST_ENV) > /dev/null
	@failed=0; \
	$(TEST_ENV) --no-host --run tools/audit_licences.py || failed=1; \
	$(AUDIT_ENV) --run tools/audit_licences.py || failed=1; \
	$(AUDIT_ENV) --run tools/audit_advisories.py || failed=1; \
	exit $$failed

sbom:
	@$(AUDIT_ENV) > /dev/null
	$(AUDIT_ENV) --run tools/write_sbom.py

lock:
	@$(AUDIT_ENV) > /dev/null
	$(AUDIT_ENV) --run tools/write_lock.py

locales:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --run tools/write_locales.py

# What needs no browser comes first; without Chromium and Node.js the exit code is 2, and workflows/*.json and subgraphs/ stay as they are.
.PHONY: generated
generated: locales
	$(TEST_ENV) --run tools/frontend/save_all.py

clean:
	rm -rf build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
