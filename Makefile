# ComfyUI-FaithDiff: everything starts from nothing here; the environment is made once, outside the clone (tools/environment.py).

PYTHON ?= python3
PORT ?=

DEMO_ENV = $(PYTHON) tools/environment.py --with demo
TEST_ENV = $(PYTHON) tools/environment.py --with test

.DEFAULT_GOAL := help
.PHONY: help demo test lint nano bench locales clean

help:
	@echo 'make demo    restore a photo through a real ComfyUI server, on the bundled nano model (PORT=8199 chooses the port)'
	@echo 'make test    run all tests, against a real ComfyUI'
	@echo 'make lint    ruff and pyright'
	@echo 'make nano    train the bundled nano model anew into demo/ (a CPU is enough)'
	@echo 'make bench   measure side by side, print the ratios and write build/bench.json (some minutes; BENCH="...", see docs/benchmarks.md)'
	@echo 'make locales write the English texts of the nodes anew (locales/en), and say what the other languages lack'
	@echo 'make clean   delete build/ and the caches inside the clone'
	@echo
	@echo 'The first command sets up its environment: about 2.3 GB to fetch and 6.5 GB on disk, in ~/.cache/comfyui-faithdiff.'
	@echo 'PYTHON=python3.12 chooses the Python, COMFYUI_PATH=... an existing ComfyUI, FAITHDIFF_CACHE=... another place.'

demo:
	@$(PYTHON) tools/demo.py $(if $(PORT),--port $(PORT))

# Processes of their own: what needs the host, the same in the oldest host that the pack promises, training, which must never see one,
# and the front end in a browser, once more the workflows in the oldest host.
# All run, whatever the first one says.
test:
	@$(TEST_ENV) > /dev/null
	@failed=0; \
	$(TEST_ENV) --run -m pytest tests/core tests/host tests/server || failed=1; \
	$(TEST_ENV) --oldest-host --run -m pytest tests/core tests/host --ignore tests/host/test_official.py --deselect tests/host/test_trainer_agrees.py::test_an_export_of_published_size || failed=1; \
	$(TEST_ENV) --no-host --run -m pytest tests/training || failed=1; \
	$(TEST_ENV) --run -m pytest tests/browser || failed=1; \
	$(TEST_ENV) --oldest-host --run -m pytest tests/browser/test_validation.py || failed=1; \
	exit $$failed

lint:
	@$(TEST_ENV) > /dev/null
	@failed=0; \
	$(TEST_ENV) --run -m ruff check . || failed=1; \
	$(TEST_ENV) --run tools/type_check.py || failed=1; \
	exit $$failed

nano:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --no-host --run -m training nano --out demo

bench:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --run benchmarks/run.py $(BENCH)

locales:
	@$(TEST_ENV) > /dev/null
	$(TEST_ENV) --run tools/write_locales.py

clean:
	rm -rf build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
