#!/bin/bash
# Checks that models without code predict as their frameworks do, to the last bit: those that are committed, and those
# that the pinned script trains again.
#
#   e2e/frameworks.sh                        sklearn, boosters, mlflow, tensorflow, torchscript
#   e2e/frameworks.sh sklearn boosters       some of them
#   ZARPA_E2E_TORCH=1 e2e/frameworks.sh torchexport     PyTorch from PyPI: 2.9 GB
#
# Needs Python 3.11. The frameworks are installed below .cache/frameworks with the pins of
# engine/python/testdata/requirements*.txt (533 MB, TensorFlow 1.6 GB); TorchScript is that of Debian's python3-torch. A
# group that cannot be had is skipped and said so. Ends with 77 when all were, and with 1 when a check failed.
set -euo pipefail
cd "$(dirname "$0")/.."

testdata=engine/python/testdata
cache="$PWD/.cache/frameworks"
work="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-frameworks.XXXXXX")"
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM HUP
export PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore TF_CPP_MIN_LOG_LEVEL=3 MLFLOW_DISABLE_TELEMETRY=true

checked=0
code=0

skip() {
	echo "skipped: $*" >&2
}

# installed PINS makes an environment of a file of pins, once, and says where its interpreter is.
installed() {
	local pins="$testdata/$1" venv="$cache/${1%.txt}"
	if ! cmp -s "$pins" "$venv/pins.txt"; then
		rm -rf "$venv"
		mkdir -p "$cache"
		{ python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -r "$pins"; } >&2 || return 1
		cp "$pins" "$venv/pins.txt"
	fi
	echo "$venv/bin/python"
}

# check GROUP PYTHON checks the group's committed models, trains them again, and checks those.
check() {
	local group="$1" python="$2"
	checked=$((checked + 1))
	echo "== $group, as committed"
	"$python" "$testdata/check.py" "$group" "$testdata/models" 2>"$work/log" || { code=1; tail -n 30 "$work/log"; }
	echo "== $group, trained again"
	"$python" "$testdata/train.py" "$group" "$work/models" >"$work/log" 2>&1 &&
		"$python" "$testdata/check.py" "$group" "$work/models" 2>"$work/log" || { code=1; tail -n 30 "$work/log"; }
}

# with GROUP PINS checks a group in its environment.
with() {
	local python
	python="$(installed "$2")" || { skip "$1: the packages of $2 cannot be installed"; return; }
	check "$1" "$python"
}

for group in "${@:-sklearn boosters mlflow tensorflow torchscript torchexport}"; do
	for name in $group; do
		case "$name" in
		sklearn | boosters | mlflow) with "$name" requirements.txt ;;
		tensorflow) with "$name" requirements-tensorflow.txt ;;
		torchscript)
			if /usr/bin/python3 -c 'import torch, numpy' 2>/dev/null; then
				check "$name" /usr/bin/python3
			else
				skip "torchscript: /usr/bin/python3 has no torch: apt-get install python3-torch"
			fi
			;;
		torchexport)
			if [ "${ZARPA_E2E_TORCH:-}" = 1 ]; then
				with "$name" requirements-torch.txt
			else
				skip "torchexport: PyTorch takes 2.9 GB; set ZARPA_E2E_TORCH=1"
			fi
			;;
		*)
			echo "unknown group: $name" >&2
			exit 2
			;;
		esac
	done
done
[ "$checked" -gt 0 ] || exit 77
exit "$code"
