#!/bin/bash
# Runs the conformance suite against MLServer and writes docs/conformance-mlserver.md.
#
# MLServer is installed under .cache/mlserver with the pins of clients/requirements-mlserver.txt; a small model of
# ours answers its inputs. Needs Python 3.11 and bin/zarpa. Ends with 77 and a reason where that cannot be had.
# MLSERVER_REPORT names another file for the report.
set -euo pipefail
cd "$(dirname "$0")/.."

report="${MLSERVER_REPORT:-docs/conformance-mlserver.md}"
cache="$PWD/.cache/mlserver"
work="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-mlserver.XXXXXX")"
server=""

skip() {
	echo "skipped: $*" >&2
	exit 77
}

finish() {
	if [ -n "$server" ]; then
		kill -TERM "$server" 2>/dev/null || true
		for _ in $(seq 100); do
			kill -0 "$server" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

[ -x bin/zarpa ] || skip "bin/zarpa is not there: run make build"
python="$(command -v python3.11)" || skip "the pins are those of Python 3.11"
pins=e2e/clients/requirements-mlserver.txt
if ! cmp -s "$pins" "$cache/installed.txt"; then
	rm -rf "$cache/venv"
	"$python" -m venv "$cache/venv"
	"$cache/venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$pins" || skip "MLServer cannot be installed"
	cp "$pins" "$cache/installed.txt"
fi

# tensors NAME DATATYPE… are the declarations of inputs or outputs of shape [-1, 3].
tensors() {
	local list=""
	while [ $# -gt 0 ]; do
		list="$list{\"name\": \"$1\", \"datatype\": \"$2\", \"shape\": [-1, 3]}, "
		shift 2
	done
	echo "[${list%, }]"
}

# model NAME CLASS INPUTS OUTPUTS
model() {
	mkdir -p "$work/models/$1"
	cp e2e/clients/mlserver_model.py "$work/models/$1/"
	cat >"$work/models/$1/model-settings.json" <<JSON
{"name": "$1", "implementation": "mlserver_model.$2", "platform": "mirror", "inputs": $3, "outputs": $4, "parameters": {"version": "1"}}
JSON
}

model add Add "$(tensors a FP32 b FP32)" "$(tensors sum FP32 difference FP32)"
for type in BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP32 FP64 BYTES; do
	model "identity_$(echo "$type" | tr '[:upper:]' '[:lower:]')" Mirror "$(tensors x "$type")" "$(tensors y "$type")"
done

read -r http grpc metrics < <("$python" - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in held))
PY
)
cat >"$work/models/settings.json" <<JSON
{"host": "127.0.0.1", "http_port": $http, "grpc_port": $grpc, "metrics_port": $metrics, "parallel_workers": 0, "debug": false}
JSON
env PYTHONDONTWRITEBYTECODE=1 "$cache/venv/bin/mlserver" start "$work/models" >"$work/mlserver.log" 2>&1 &
server=$!
url="http://127.0.0.1:$http"
for i in $(seq 600); do
	curl -fs -o /dev/null "$url/v2/health/ready" && break
	if ! kill -0 "$server" 2>/dev/null || [ "$i" = 600 ]; then
		tail -n 20 "$work/mlserver.log" >&2
		skip "MLServer does not start here"
	fi
	sleep 0.1
done

code=0
bin/zarpa conformance "$url" --grpc "127.0.0.1:$grpc" -o json >"$work/report.json" || code=$?
[ "$code" -le 1 ] || exit "$code"
"$python" e2e/clients/report.py "$work/report.json" "MLServer" "$(bin/zarpa version | cut -d" " -f1,2)" \
	"from PyPI, with a model of ours that answers its inputs. MLServer leaves it to a model to hold inputs against its metadata, and this one does not: what it takes that is wrong is its own" >"$report"
echo "wrote $report"
