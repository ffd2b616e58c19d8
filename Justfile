# sarx: bare `just` lists the recipes. Everything runs from .venv, which `just setup` makes.
set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

export RAY_AUTH_MODE := "token"
export RAY_USAGE_STATS_ENABLED := "0"
python := ".venv/bin/python"

# list the recipes
[private]
default:
    @just --list --unsorted

# make .venv and install what constraints.txt pins; does nothing when nothing changed
setup:
    @[ -x {{python}} ] || python3 -m venv .venv
    @stamp="$(cat pyproject.toml constraints.txt | sha256sum) $(pwd)"; \
    if [ "$(cat .venv/.sarx-setup 2>/dev/null)" != "$stamp" ]; then \
        echo "setting up .venv (a few minutes, 6.6 GB)"; \
        {{python}} -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
        grep -q '^export RAY_AUTH_MODE=token' .venv/bin/activate || printf 'export RAY_AUTH_MODE=token\nexport RAY_USAGE_STATS_ENABLED=0\n' >> .venv/bin/activate; \
        echo "$stamp" > .venv/.sarx-setup; \
    fi

# SAR against plain cross-entropy on the embedded data: search, confirm, table (about 2 minutes after set-up)
demo: setup
    @{{python}} -m sarx.tune search_spaces/demo.yaml --on-code-change rerun
    @{{python}} -m analysis demo

# train once: just train data=digit_scenes model=fcn_lcnet_050 regularizer=sar
train *arguments: setup
    @{{python}} -m sarx.train "$@"

# run or continue a study on this machine: just tune search_spaces/ablation.yaml [--dry-run] [--set KEY=VALUE ...]
tune *arguments: setup
    @{{python}} -m sarx.tune "$@"

# tables and figures of a study (default: the one changed last)
analyze *arguments: setup
    @{{python}} -m analysis "$@"

# make the example of the README again: the ablation study, its table and its figures (about an hour)
example: setup
    @{{python}} -m sarx.tune search_spaces/ablation.yaml --on-code-change rerun
    @{{python}} -m analysis sar-ablation
    @{{python}} -m analysis.excerpt sar-ablation README.md

# how studies stand: running, stopped, failed and why (--retry-failed, --forget TRIAL_ID), and the cluster's jobs
status *arguments: setup
    @{{python}} -m sarx.cluster.words status "$@"

# look at a study's curves, hyperparameters and pictures (default: all studies)
tensorboard *study: setup
    @{{python}} -m sarx.cluster.words tensorboard "$@"

# start a Ray cluster: just up [local|bare_metal|slurm|aws|gcp|kuberay]; clusters/ says what each needs
up *arguments: setup
    @{{python}} -m sarx.cluster.words up "$@"

# end the cluster that `just up` started, and nothing else
down *place: setup
    @{{python}} -m sarx.cluster.words down "$@"

# submit a study to the cluster, or attach to its running job, and follow its log; --stop STUDY stops it
job *arguments: setup
    @{{python}} -m sarx.cluster.words job "$@"

# follow the log of the newest job, or of a study's newest job
logs *study: setup
    @{{python}} -m sarx.cluster.words logs "$@"

# Ray's dashboard on loopback, through a tunnel until Ctrl-C
dashboard *arguments: setup
    @{{python}} -m sarx.cluster.words dashboard "$@"

# all fast tests (about 10 minutes on 2 cores)
test *arguments: setup
    @.venv/bin/pytest -n 2 --dist worksteal "$@"

# those with several Ray nodes run alone: Ray gives nodes fixed times to start and to be noticed as lost
# tests with real kills, clusters and job submission, of several hosts, in a browser, with TeX (about half an hour)
test-slow *arguments: setup
    @if [ $# -gt 0 ]; then .venv/bin/pytest -m slow -rs --durations 20 --timeout 900 "$@"; else \
        alone=(tests/ray/test_{session,hosts,lost_workers,growing,check}.py); \
        .venv/bin/pytest -m slow -rs --durations 20 --timeout 900 -n 2 --dist worksteal "${alone[@]/#/--ignore=}" && \
        .venv/bin/pytest -m slow -rs --durations 20 --timeout 900 "${alone[@]}"; fi

# kill and damage running studies, and count what was lost (8 to 20 minutes; see --help)
chaos *arguments: setup
    @{{python}} -m tests.chaos "$@"

# ruff, mypy --strict, import-linter
check: setup
    @.venv/bin/ruff check .
    @.venv/bin/ruff format --check .
    @.venv/bin/mypy
    @.venv/bin/lint-imports

# a name that Python's own library has too stands in a file with _ behind it: statistics_.py
# a benchmark of tests/benchmarks by name, e.g. just bench scenes; exit 1 if a bar is missed
bench name *arguments: setup
    @shift; file=tests/benchmarks/{{name}}.py; [ -f "$file" ] || file=tests/benchmarks/{{name}}_.py; {{python}} "$file" "$@"

# remove caches; results are never touched
clean:
    rm -rf .ruff_cache .mypy_cache .pytest_cache .import_linter_cache .hypothesis build "${SARX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sarx}/arrays"
    find sarx analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +
