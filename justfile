# The project's commands, each defined once: people, the gate (`.ci/run`), the workflows and pre-commit call these.
# `just` comes with the development packages: `.venv/bin/just`, or any other on the path.

set positional-arguments

venv := env("VENV", ".venv")
python := venv / "bin/python"

# list the commands
[private]
default:
    @{{ quote(just_executable()) }} --list --unsorted

# make .venv with everything for development; again after a change of the dependencies
setup:
    python3 -m venv {{ venv }}
    {{ python }} -m pip install -q -e '.[dev]'

# the unit tests: no process, no real sleep, seconds
test *args:
    {{ python }} -m pytest tests/unit "$@"

# every test but the full counts: the README's command, minutes
test-all *args:
    {{ python }} -m pytest "$@"

# the full counts: thousands of kills, power cuts and faults, hours
soak *args:
    {{ python }} -m pytest --soak "$@"

# format, lint, types (the pages' scripts too), layers
lint:
    {{ venv }}/bin/ruff format --check .
    {{ venv }}/bin/ruff check .
    {{ venv }}/bin/mypy
    {{ venv }}/bin/lint-imports
    .ci/types/check

# put right what can be put right without thinking
format:
    {{ venv }}/bin/ruff check --fix .
    {{ venv }}/bin/ruff format .

# generated pages and the dashboard against the code, then the HTML in build/docs; any warning fails
docs:
    {{ python }} -m docs.generate --check
    {{ python }} -m observability.make --check
    {{ venv }}/bin/sphinx-build -q -W -n -b html docs build/docs

# which lines and branches the unit tests reach
coverage *args:
    {{ python }} -m pytest tests/unit --cov --cov-report=term:skip-covered "$@"

# the wheel and the source distribution, in dist/
build:
    {{ python }} -m build --no-isolation --outdir dist .

# what the changelog of the next version will say
changes:
    {{ venv }}/bin/towncrier build --draft --version next

# move the fragments into CHANGELOG.md under this version
changelog version:
    {{ venv }}/bin/towncrier build --yes --version {{ version }}
