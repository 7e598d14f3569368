# make demo      everything once: install, synthesize speech, run a sweep, write reports/quickstart/
# make test      lint, types and tests
# make fuzz      2,000 bad files and options through the real commands
# make bench     speed, side by side with peers
# make policies  every policy at every width on two corpora, into reports/policies/
# make architectures  Conformer, cascaded, bidirectional and amortized encoders on digits and commands, into
#                reports/architectures/ and reports/architectures-commands/
# make unheard   digits of each speaker in turn, whom the model has never heard, into reports/unheard/ (about an hour)
# make int4      recognizers and language models in 4 bits from end to end: what fusion and wider beams are worth, into
#                reports/int4/ (about three hours)
# make papers    every table and figure of reports/ anew from the committed records, and the page over all of them
#                (reports/index.html); four to five minutes
# make papers-train  the papers' studies trained anew on synthesized commands and on digits (about a day on two cores,
#                most of it Conformers; what is there is kept, what was interrupted goes on), then make papers;
#                KNOWN=1: only what the committed records lack
# make search    what a search costs, plain and with screening, into reports/search/ (about half an hour)
# make setup     only .venv, with the command `qstudy` in it

PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: setup demo test fuzz bench policies architectures unheard int4 papers papers-train search
.DEFAULT_GOAL := setup

# Images of containers forbid Python to keep what it compiles: then every command would compile Lightning and all that it
# imports anew, for ten seconds and more.
unexport PYTHONDONTWRITEBYTECODE

# Compiled ahead is what commands import; pip would compile thousands of modules more, for a minute.
setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "qstudy needs Python 3.11 or 3.12; none of python3, python3.12, python3.11 is one."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -c "import wandb, qstudy.commands.report, qstudy.sweep.worker, qstudy.training.fit"
	@touch $@

# Where the float model that comes with the project was removed, the sweep trains its own.
FRESH := $(if $(wildcard sweeps/base/commands.qst),,--fresh)
GO_ON := || { code=$$?; echo; echo "The demo stopped. Go on, once what is said above is mended: make demo"; exit $$code; }

demo:
	@echo "The demo, on two CPU cores:"
	@echo "  install   Python packages into .venv (5 GB)                          $(if $(wildcard .venv/installed),done,about 2 min)"
	@echo "  sweep     synthesize speech, quantize a recognizer in ten ways       $(if $(FRESH),9 min or more,6 to 12 min)"
	@echo "  report    tables, plots and a page in reports/quickstart             about 10 s"
	@echo
	@$(MAKE) --no-print-directory setup $(GO_ON)
	@$(BIN)/qstudy sweep sweeps/quickstart.yaml --workers 2 $(FRESH) $(GO_ON)
	@$(BIN)/qstudy report studies/quickstart --out reports/quickstart $(GO_ON)
	@echo
	@echo "Look at the report:  reports/quickstart/index.html"
	@echo "Browse the runs:     cd studies/quickstart && ../../$(BIN)/wandb leet"
	@echo "Recognize speech:    $(BIN)/qstudy transcribe MODEL corpora/commands/test/000000.flac   (MODEL: the best packed model, named above)"

# One thread each: two processes with two threads on two cores wait for each other most of the time. Neighbours stay
# together until one process has nothing left to do, so that what a file prepares is prepared once.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

SEED ?= 0
fuzz: setup
	$(BIN)/python -m tests.fuzz --cases 2000 --seed $(SEED)

bench: setup
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

policies: setup
	$(BIN)/qstudy sweep sweeps/policies-digits.yaml --workers 2
	$(BIN)/qstudy sweep sweeps/policies-commands.yaml --workers 2
	$(BIN)/qstudy report studies/policies-digits studies/policies-commands --out reports/policies

# A preset in float, from scratch: corpus, preset, steps, folder.
FLOAT = $(BIN)/qstudy train --config sweeps/base/$(1).yaml --model.preset $(2) --training.steps $(3) --out runs/$(4)

ARCHITECTURES = --table analysis.architectures.architectures \
	--figure+ analysis.architectures.word_errors --figure+ analysis.architectures.against_control

architectures: setup
	$(call FLOAT,digits,lstm,2400,arch/lstm)
	$(call FLOAT,digits,conformer-s,700,arch/conformer-s) --training.learning_rate 0.002
	$(call FLOAT,digits,cascaded,1300,arch/cascaded) --training.learning_rate 0.002
	$(call FLOAT,digits,bilstm,2000,arch/bilstm)
	$(call FLOAT,digits,lstm-small,4000,arch/lstm-small)
	$(call FLOAT,digits,amnet-lowrank,2000,arch/amnet-lowrank)
	$(call FLOAT,digits,amnet-sparse,2000,arch/amnet-sparse)
	$(call FLOAT,digits,amnet-lowrank,2000,arch/full-alone) --model.encoder.branch_from 1 --model.encoder.hard_from 1
	$(call FLOAT,commands,lstm,11000,commands/lstm)
	$(call FLOAT,commands,conformer-s,5500,commands/conformer-s) --training.learning_rate 0.002
	$(call FLOAT,commands,cascaded,4500,commands/cascaded) --training.learning_rate 0.002
	$(call FLOAT,commands,bilstm,8000,commands/bilstm)
	$(call FLOAT,commands,lstm-small,12000,commands/lstm-small)
	$(call FLOAT,commands,amnet-lowrank,8000,commands/amnet-lowrank)
	$(call FLOAT,commands,amnet-sparse,2400,commands/amnet-sparse)
	$(BIN)/qstudy sweep sweeps/architectures-commands.yaml --workers 2
	$(BIN)/qstudy sweep sweeps/architectures-digits.yaml --workers 2
	$(BIN)/qstudy sweep sweeps/architectures-amortized.yaml --workers 2
	$(BIN)/qstudy report studies/architectures-digits studies/architectures-amortized runs/arch \
	  --out reports/architectures $(ARCHITECTURES) --figure+ analysis.architectures.amortized
	$(BIN)/qstudy report studies/architectures-commands runs/commands \
	  --out reports/architectures-commands $(ARCHITECTURES)
	$(BIN)/qstudy branches runs/arch/amnet-lowrank/model.qst corpora/digits/test/*0.flac \
	  --out reports/architectures/branches.png

SPEAKERS = george jackson lucas nicolas yweweler

unheard: setup
	@for who in $(SPEAKERS); do $(BIN)/qstudy train --config sweeps/base/digits-unheard.yaml \
	  --data.make.unheard "[$$who]" --out runs/unheard/$$who || exit $$?; done
	$(BIN)/qstudy report runs/unheard --out reports/unheard $(TABLES_unheard)

INT4 = runs/int4
FUSION = --table+ analysis.fusion.kept --table+ analysis.fusion.searches --table+ analysis.fusion.choices \
	--figure+ analysis.fusion.by_beam --figure+ analysis.fusion.against_latency
FOUR_BITS = --policy '{name: int4_e2e}'
# A language model in float and in 4 bits: folder, text, recognizer, options.
LANGUAGE = $(BIN)/qstudy train-lm --text $(2) --like $(3) --out $(1) $(4) && \
	$(BIN)/qstudy train-lm --text $(2) --start $(1)/model.qst $(4) $(FOUR_BITS) --finetune.steps 300 --out $(1)-int4
# A recognizer trained on, in float and in 4 bits: folder, configuration, steps.
RECOGNIZER = $(BIN)/qstudy train --config $(2) --start $(1)/am/model.qst --finetune.steps $(3) --out $(1)/am-float && \
	$(BIN)/qstudy train --config $(2) --start $(1)/am/model.qst --finetune.steps $(3) $(FOUR_BITS) --out $(1)/am-int4

int4: setup
	$(BIN)/qstudy train --config sweeps/base/commands-shifted.yaml --out $(INT4)/commands/am
	$(call RECOGNIZER,$(INT4)/commands,sweeps/base/commands-shifted.yaml,1500)
	$(BIN)/qstudy data text --domain world --out $(INT4)/commands/world.txt \
	  --exclude '[corpora/commands-shifted/dev.jsonl, corpora/commands-shifted/test.jsonl]'
	$(BIN)/qstudy data text --source corpora/commands-shifted/train.jsonl --exclude '[]' --out $(INT4)/commands/source.txt
	$(call LANGUAGE,$(INT4)/commands/lm-world,$(INT4)/commands/world.txt,$(INT4)/commands/am/model.qst,--training.steps 1500)
	$(call LANGUAGE,$(INT4)/commands/lm-source,$(INT4)/commands/source.txt,$(INT4)/commands/am/model.qst,--training.steps 1500)
	$(BIN)/qstudy train --config sweeps/base/digits.yaml --training.steps 2400 --out $(INT4)/digits/am
	$(call RECOGNIZER,$(INT4)/digits,sweeps/base/digits.yaml,600)
	$(BIN)/qstudy data digits --root ../shared/data/fsdd --out corpora/digits-numbers --train 20 --test_strings numbers
	$(BIN)/qstudy data noisy corpora/digits-numbers/dev.jsonl corpora/digits-numbers/test.jsonl --snr 5 \
	  --out corpora/digits-numbers-5db
	$(BIN)/qstudy data text --source numbers --out $(INT4)/digits/numbers.txt \
	  --exclude '[corpora/digits-numbers/dev.jsonl, corpora/digits-numbers/test.jsonl]'
	$(BIN)/qstudy data text --source digits --exclude '[]' --out $(INT4)/digits/source.txt
	$(call LANGUAGE,$(INT4)/digits/lm-numbers,$(INT4)/digits/numbers.txt,$(INT4)/digits/am/model.qst,\
	  --model.hidden 256 --training.steps 800)
	$(call LANGUAGE,$(INT4)/digits/lm-source,$(INT4)/digits/source.txt,$(INT4)/digits/am/model.qst,\
	  --model.hidden 256 --training.steps 800)
	$(BIN)/qstudy decode sweeps/int4-commands.yaml
	$(BIN)/qstudy decode sweeps/int4-digits.yaml
	$(BIN)/qstudy report studies/int4-commands studies/int4-digits --out reports/int4 --alone $(FUSION)

# The papers' studies, in the order in which they need each other's models, and what they leave out of one front.
PAPERS = native_qat accelerator_aware int4_e2e s8bqat amnet frontier
TABLE = --table analysis.architectures.architectures
TABLES_native_qat = --table+ analysis.architectures.architectures --table+ analysis.conditions.conditions \
	--figure+ analysis.architectures.against_control
TABLES_accelerator_aware = --table analysis.served.served
TABLES_int4_e2e = $(TABLE) --figure+ analysis.architectures.against_control
TABLES_s8bqat = --table analysis.footprints.footprints --table+ analysis.architectures.architectures
TABLES_amnet = $(TABLE) --figure+ analysis.architectures.amortized
TABLES_frontier = $(TABLE) --figure+ analysis.architectures.against_control
# Folders with committed records, as a list for --known.
comma := ,
COMMITTED = [$(subst $() ,$(comma),$(patsubst %/records.jsonl,%,$(wildcard $(PAPERS:%=reports/%/records.jsonl))))]
# What a report has beside that of every study.
TABLES_architectures = $(ARCHITECTURES) --figure+ analysis.architectures.amortized
TABLES_architectures-commands = $(ARCHITECTURES)
TABLES_int4 = --alone $(FUSION)
TABLES_unheard = --table analysis.folds.folds

REPORTS = policies architectures architectures-commands digits digits-search int4 unheard $(PAPERS)

# A report anew from the records that lie in it.
REBUILD = $(BIN)/qstudy report reports/$(1) --out reports/$(1) $(TABLES_$(1))

papers: setup
	@for each in $(REPORTS); do \
	  if test -e reports/$$each/records.jsonl; then $(MAKE) --no-print-directory report-$$each || exit $$?; \
	  else echo "reports/$$each has no records yet: make papers-train"; fi; done
	$(BIN)/qstudy index

report-%:
	$(call REBUILD,$*)

papers-train: setup
	$(call FLOAT,digits,amnet-lowrank,2000,arch/amnet-lowrank)
	$(call FLOAT,digits,amnet-sparse,2000,arch/amnet-sparse)
	@for each in $(PAPERS); do $(BIN)/qstudy sweep sweeps/$$each.yaml $(if $(KNOWN),--known '$(COMMITTED)') || exit $$?; done
	$(BIN)/qstudy data noisy corpora/commands-20000/test.jsonl --snr 10 --out corpora/commands-noisy-10
	$(BIN)/qstudy data noisy corpora/commands-20000/test.jsonl --snr 5 --out corpora/commands-noisy-5
	$(BIN)/qstudy data noisy corpora/commands-20000/test.jsonl --snr 0 --out corpora/commands-noisy-0
	$(BIN)/qstudy rescore studies/native_qat --sets '{snr10: corpora/commands-noisy-10/test.jsonl, \
	  snr5: corpora/commands-noisy-5/test.jsonl, snr0: corpora/commands-noisy-0/test.jsonl}'
	@for each in $(PAPERS); do $(MAKE) --no-print-directory study-$$each || exit $$?; done
	@$(MAKE) --no-print-directory papers

study-%:
	$(BIN)/qstudy report studies/$* --out reports/$* $(TABLES_$*)

search: setup
	$(call FLOAT,digits,lstm-small,4000,arch/lstm-small)
	$(BIN)/qstudy data digits --root ../shared/data/fsdd --out corpora/digits-numbers --train 20 --test_strings numbers
	$(BIN)/qstudy data noisy corpora/digits-numbers/dev.jsonl corpora/digits-numbers/test.jsonl --snr 5 \
	  --out corpora/digits-numbers-5db
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search
