# microfin: `make` shows what there is.
.DEFAULT_GOAL := help
.PHONY: help setup setup-python run start stop grow status observe clean lint fmt test test-quick \
	simulate faults site \
	deploy undeploy kind-up kind-down e2e bench load load-k8s overload compare figures fill reference pins

PYTHON := .venv/bin/python
PLATFORM := $(PYTHON) -m microfin_local

# Said on the command line (make run WORKERS=8) or in the environment; unsaid, the state remembers.
export WORKERS SHARDS BROKERS REDIS_REPLICAS API_PROCESSES ARCHIVES

help:  ## Show this help
	@echo 'microfin on one machine. Everything is real and listens on loopback only.'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*##  *\(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'
	@echo
	@echo 'The form of the platform (make run WORKERS=8 API_PROCESSES=4):'
	@echo '  WORKERS=4         partitions, each with its worker; more by make grow'
	@echo '  API_PROCESSES=2   API processes behind nginx'
	@echo '  BROKERS=1         Kafka brokers, 1 or 3; fixed at the first start'
	@echo '  REDIS_REPLICAS=0  replicas of each Redis master, 0 or 1'
	@echo '  SHARDS=1          PostgreSQL instances; fixed at the first start'
	@echo '  ARCHIVES=0        1 gives each shard an archive, for microfin archive'
	@echo
	@echo 'Data, logs and passwords are in .local/; one process dies or freezes by'
	@echo '  $(PLATFORM) kill|restart|pause|resume NAME'

setup:  ## Install what is missing: packages, Kafka, .venv (the targets below do it too)
	@local/setup.sh

setup-python:
	@local/setup.sh python

run: setup  ## Start the platform and stay in the foreground; Ctrl-C stops it
	@$(PLATFORM) run

start: setup  ## Start the platform in the background; returns when all is ready
	@$(PLATFORM) start

stop:  ## Stop the platform; its state stays
	@if [ -x $(PYTHON) ]; then $(PLATFORM) stop; fi

grow: setup  ## Grow the running platform while money moves (make grow WORKERS=6)
	@$(PLATFORM) grow

status:  ## Show the processes and where everything listens
	@$(PLATFORM) status

observe: setup  ## Run Prometheus beside the running platform, with the charts' alerts loaded
	@$(PLATFORM) observe

clean: stop  ## Forget data, logs and passwords (.venv and downloads stay)
	@if [ -x $(PYTHON) ]; then $(PLATFORM) clean; fi

lint: setup-python  ## Check style, format, types and imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

fmt: setup-python  ## Format the Python files and fix what ruff can fix
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

test-quick: setup-python  ## Run the tests that start no real component; two minutes
	.venv/bin/pytest --quick --numprocesses=2 --dist=worksteal $(ARGS)

# Two at a time: the tests of faults wait more than they compute. One file stays in one process, and
# the files keep their order, so that the long ones do not come last.
test: setup lint  ## Run lint and all tests, with real parts (ARGS=... goes to pytest)
	.venv/bin/pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(ARGS)

simulate: setup  ## Search simulated schedules for wrong money (SECONDS=60), or replay one (SEED=4711)
	@PYTHONPATH=tests $(PYTHON) -m simulation $(if $(SEED),--seed $(SEED),--seconds $(or $(SECONDS),60)) $(ARGS)

deploy: setup  ## Install the bank into the cluster of KUBECONFIG (deploy/README.md)
	@$(PYTHON) -m microfin_deploy deploy $(ARGS)

undeploy: setup  ## Remove it from there, with its data
	@$(PYTHON) -m microfin_deploy undeploy $(ARGS)

kind-up: setup  ## Make a kind cluster with Strimzi, CloudNativePG, ingress-nginx and the k6 operator
	@$(PYTHON) -m microfin_deploy kind-up

kind-down: setup  ## Delete that cluster
	@$(PYTHON) -m microfin_deploy kind-down

e2e: setup  ## End-to-end tests on the cluster of KUBECONFIG (tests/e2e/README.md)
	.venv/bin/pytest tests/e2e $(ARGS)

bench: setup  ## Measure the money path on this machine; prints one JSON object (ARGS='--runs 1')
	@$(PYTHON) -m microfin_local.benchmarks $(ARGS)

load: setup  ## Load the running platform (SCRIPT=mix.js RATE=100 DURATION=60s), audit it, report
	@$(PYTHON) -m microfin_loadtest run "$(or $(SCRIPT),mix.js)" --rate "$(or $(RATE),100)" \
		--duration "$(or $(DURATION),60s)" $(ARGS)

load-k8s: setup  ## Load the bank in the cluster of KUBECONFIG, from inside it (SCRIPT=mix.js RATE=100)
	@$(PYTHON) -m microfin_loadtest kubernetes "$(or $(SCRIPT),mix.js)" --rate "$(or $(RATE),100)" \
		--duration "$(or $(DURATION),60s)" $(ARGS)

overload: setup  ## Offer the running platform far more than it carries (PEAK=1500 RATE=5000 SECONDS=60)
	@$(PYTHON) -m microfin_loadtest overload --peak "$(or $(PEAK),1500)" \
		--rate "$(or $(RATE),5000)" --seconds "$(or $(SECONDS),60)"

compare: setup  ## Compare ledgers: settled transfers/s (LEDGERS='microfin ./mine.py=URL' SECONDS=10)
	@$(PYTHON) -m microfin_loadtest compare $(or $(LEDGERS),microfin) \
		--seconds "$(or $(SECONDS),10)" $(ARGS)

figures: setup  ## Measure the goals' figures against a commit before (BEFORE=e415498 ARGS='--part mix')
	@$(PYTHON) -m microfin_loadtest figures $(if $(BEFORE),"$(BEFORE)",--help) $(ARGS)

fill: setup  ## Give the running platform a past, decided and explained (OPERATIONS=1000000 ACCOUNTS=100000)
	@$(PYTHON) -m microfin_loadtest fill --operations "$(or $(OPERATIONS),1000000)" \
		--accounts "$(or $(ACCOUNTS),100000)" $(ARGS)

faults: setup  ## Break a platform of its own and compare all money (SEED=1 ROUNDS=10 ARGS=--resume)
	@PYTHONPATH=tests $(PYTHON) -m faults run --seed "$(or $(SEED),1)" --rounds "$(or $(ROUNDS),10)" $(ARGS)

reference: setup  ## Make the generated pages of docs/reference anew
	$(PYTHON) -m microfin.process.settings_reference docs/reference
	$(PYTHON) -m microfin_api.reference docs/reference
	$(PYTHON) charts/reference.py
	$(PYTHON) charts/custom_resource_reference.py

site: setup-python  ## Build the documentation as a site into build/site (no network needed to read it)
	@website/build.sh

pins: setup  ## Renew requirements.txt, images/*.txt and website/requirements.txt
	$(PYTHON) -m uv pip compile pyproject.toml --group development --universal --generate-hashes \
		--no-emit-index-url --no-emit-find-links \
		--no-emit-package microfin --no-emit-package microfin-api \
		--no-emit-package microfin-worker --no-emit-package microfin-tools \
		--no-emit-package microfin-local \
		--no-emit-package microfin-loadtest --no-emit-package microfin-operator \
		--no-emit-package microfin-deploy \
		--custom-compile-command 'make pins' -o requirements.txt
	images/pins.sh
