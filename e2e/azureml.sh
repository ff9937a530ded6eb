#!/bin/bash
# Asks azureml-inference-server-http and Zarpa the same things with the same scoring scripts, and compares
# status, headers and body. Differences that docs/compatibility.md names are allowed, and must be there.
#
#   e2e/azureml.sh                    a replica of Zarpa, every script
#   e2e/azureml.sh worker             the worker's Python code alone, without Go
#   e2e/azureml.sh replica NAME       one script of azureml/scripts
#
# The real server is installed under .cache/azureml with the pins of azureml/requirements*.txt. Needs bin/zarpa and
# Python 3. Ends with 77 and a reason where the server cannot be had, and with 1 when an answer differs.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="$PWD/.cache/azureml"

skip() {
	echo "skipped: $*" >&2
	exit 77
}

# environment NAME PINS makes a virtual environment, once for its pins.
environment() {
	cmp -s "$2" "$cache/$1.txt" && return
	rm -rf --one-file-system "${cache:?}/$1"
	mkdir -p "$cache"
	python3 -m venv "$cache/$1"
	"$cache/$1/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$2" || return
	cp "$2" "$cache/$1.txt"
}

case "${1:-replica}" in
replica)
	[ -x bin/zarpa ] || skip "bin/zarpa is not there: run make build"
	zarpa=("$PWD/bin/zarpa" score)
	;;
worker)
	zarpa=("$PWD/e2e/azureml/harness.py")
	;;
*)
	echo "usage: e2e/azureml.sh [replica|worker] [SCRIPT]" >&2
	exit 2
	;;
esac
environment server e2e/azureml/requirements.txt || skip "the server cannot be installed"
more=()
if environment sdk e2e/azureml/requirements-sdk.txt; then
	more+=(--sdk "$cache/sdk")
fi
if [ $# -gt 1 ]; then
	more+=(--only "$2")
fi
exec python3 e2e/azureml/main.py --server "$cache/server" "${more[@]}" --zarpa "${zarpa[@]}"
