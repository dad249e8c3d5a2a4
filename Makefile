# `make figures` and `make test` do all the set-up by themselves; both may be stopped and repeated at any time.
PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
LIMIT = $(if $(shell command -v timeout),timeout 600)

.PHONY: help env figures test lab site outputs readme tables clean gpu gpu-bundle

help:
	@echo "make figures  regenerate every figure of the quick profile (first creates $(VENV): some minutes, about 6 GB)"
	@echo "make test     the whole test suite"
	@echo "make lab      open the notebooks in JupyterLab"
	@echo "make site     all notebooks and the library's reference as pages for a browser: _site/index.html"
	@echo "make outputs  regenerate, then keep the outputs in the notebooks (before a commit)"
	@echo "make readme   rebuild README.md from nbs/index.ipynb"
	@echo "make tables   compute the package's own tables of trained architectures again (some hours of one core)"
	@echo "make gpu      tests, speed and the runs of paper on a GPU, with \$$(PYTHON) as it is: TIME=9m in slices; DEVICE=cpu PROFILE=smoke to try it"
	@echo "make gpu-bundle  before that: what a bare machine lacks, and the data, into data/gpu"
	@echo "make clean    remove $(VENV), caches and build leftovers; data/ and the committed figures stay"
	@echo "Another Python: make PYTHON=python3.12 figures"

env:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) not found: install Python 3.11 or newer, or name it: make PYTHON=python3.12 figures" >&2; exit 1; }
	@$(PYTHON) tools/setup_venv.py $(VENV)

figures: env
	$(BIN)/nas-nb figures

# those that the last step executes from beginning to end; beside them what nbdev_test skips anyway
DRAWN = ^([_.]|(02|17c|5[0-8]|95h?)_)

test: env
	@echo "== 1/4 exported modules in step with the notebooks; ruff; types"
	$(BIN)/python tools/check_sync.py
	$(BIN)/ruff check nbs tests tools
	$(BIN)/ruff format --check --quiet nbs tests tools
	$(BIN)/ruff check --quiet --isolated --select F821 nas_nb
	$(BIN)/python tools/cite.py --check
	$(BIN)/python tools/check_types.py
	@echo "== 2/4 pytest, with the lint of the notebooks"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal
	@echo "== 3/4 every other notebook as its own test"
	OMP_NUM_THREADS=1 $(LIMIT) $(BIN)/nbdev_test --n_workers 2 --timing --skip_file_re '$(DRAWN)'
	@echo "== 4/4 every notebook with figures through the command line (smoke profile)"
	$(BIN)/nas-nb figures --profile smoke --force --jobs 2

# tools/lab.py keeps saved notebooks free of execution counts and editor metadata, as nbdev_clean would.
# numpy reads its variable when it is imported; for torch's the notebooks care themselves (nbs/08_bits.ipynb)
NUMPY = $(if $(filter x86_64,$(shell uname -m)),NPY_DISABLE_CPU_FEATURES=X86_V4)
lab: env
	@$(BIN)/python tools/trust.py
	$(NUMPY) $(BIN)/python tools/lab.py $$([ "$$(id -u)" != 0 ] || echo --allow-root)

# The extra is installed when it is first needed; from then on neither building nor reading needs a network.
site: env
	@$(BIN)/python tools/build_site.py --ready || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[site]"
	$(BIN)/python tools/build_site.py

outputs: figures
	$(NUMPY) $(BIN)/python tools/keep_outputs.py
	$(BIN)/nbdev_clean

tables: env
	$(NUMPY) $(BIN)/python tools/tables.py

readme: env
	$(BIN)/python tools/build_readme.py

# Without the environment above: on a machine with torch, for minutes (nbs/06d_inprocess.ipynb). ONLY=tests, speed or runs; DOCS="52 55".
DEVICE = cuda
PROFILE = paper
gpu:
	@$(PYTHON) tools/gpu.py $(DOCS) --device $(DEVICE) --profile $(PROFILE) $(if $(TIME),--time-limit $(TIME)) $(if $(ONLY),--only $(ONLY)) \
		$(if $(OUT),--out "$(OUT)")

gpu-bundle: env
	rm -rf data/gpu/wheels
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --constraint constraints.txt --dest data/gpu/wheels fastcore
	@$(BIN)/python -c "import nas_nb.inprocess as i; raise SystemExit(i.main_bundle())"

clean:
	rm -rf $(VENV) $(VENV).installing build dist *.egg-info _docs _proc _site _site.src .pytest_cache .hypothesis .mypy_cache .ruff_cache figures/smoke nbs/.last_checked
	find nbs nas_nb tests tools \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	find figures -type f \( -name .stamp.json -o -name '.*.lock' -o -name report.json -o -name '*.ipynb' \) -exec rm -f {} +
	@echo "kept: data/ (downloads and cached runs) and the committed figures"
