# Every target sets up what it needs in .venv and skips that in a second when nothing changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: pretrain m2d-clap mga-clap captionstew test format setup clean

pretrain: .venv/ready  ## train, evaluate and export a small SLAP on the embedded data; takes up an interrupted run
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/slap_scenes.yaml --resume

# A stage that is finished is not run again. After training an earlier one anew, by hand with --overwrite, the later
# ones must follow in the same way: they began with weights of the old one.
SCENES := m2d_clap_scenes_stage
m2d-clap: .venv/ready  ## the same for a small M2D-CLAP in its three stages, and their values side by side
	$(BIN)/python training_scripts/precompute_text.py configs/pretrain/$(SCENES)1.yaml
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/$(SCENES)1.yaml --resume
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/$(SCENES)2.yaml --resume
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/$(SCENES)2_1.yaml --resume
	$(BIN)/hf-audiolang compare runs/$(SCENES)1 runs/$(SCENES)2 runs/$(SCENES)2_1

mga-clap: .venv/ready  ## the same for a small MGA-CLAP, which says when a sound is heard
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/mga_clap_scenes.yaml --resume

STEW := captionstew_scenes_
captionstew: .venv/ready  ## the two arms of CaptionStew, contrastive and captioning, and their values side by side
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/$(STEW)contrastive.yaml --resume
	$(BIN)/accelerate launch training_scripts/pretrain.py configs/pretrain/$(STEW)captioning.yaml --resume
	$(BIN)/hf-audiolang compare runs/$(STEW)contrastive runs/$(STEW)captioning

test: .venv/ready  ## lint and the default test run: offline, CPU, under six minutes on two cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: .venv/ready

.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache
