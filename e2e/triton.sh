#!/bin/bash
# Runs the conformance suite against a real Triton and writes docs/conformance-triton.md.
#
# Triton's server comes from the wheel nvidia-pytriton, installed under .cache/triton with the pins of
# clients/requirements-triton.txt. It has the Python back end alone, so a small model.py stands for the models:
# this is Triton's protocol, not its speed. Needs Python 3.11 with its shared library, and bin/zarpa.
# Ends with 77 and a reason where that cannot be had. TRITON_REPORT names another file for the report.
set -euo pipefail
cd "$(dirname "$0")/.."

report="${TRITON_REPORT:-docs/conformance-triton.md}"
cache="$PWD/.cache/triton"
work="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-triton.XXXXXX")"
server=""

skip() {
	echo "skipped: $*" >&2
	exit 77
}

# finish ends the server, which may take its time, and removes what was made.
finish() {
	if [ -n "$server" ]; then
		kill -TERM "$server" 2>/dev/null || true
		for _ in $(seq 300); do
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

[ "$(uname -sm)" = "Linux x86_64" ] || skip "the wheel has Triton for Linux on x86-64 alone"
[ -x bin/zarpa ] || skip "bin/zarpa is not there: run make build"
python="$(command -v python3.11)" || skip "the wheel's back end needs Python 3.11"
"$python" -c 'import ctypes; ctypes.CDLL("libpython3.11.so.1.0")' 2>/dev/null || skip "libpython3.11 is not installed"

pins=e2e/clients/requirements-triton.txt
if ! cmp -s "$pins" "$cache/installed.txt"; then
	rm -rf "$cache/venv"
	"$python" -m venv "$cache/venv"
	"$cache/venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$pins" || skip "nvidia-pytriton cannot be installed"
	cp "$pins" "$cache/installed.txt"
fi
site="$("$cache/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
triton="$site/pytriton/tritonserver"

# The back end wants its stub of the right Python beside it.
mkdir -p "$work/backends/python"
cp "$triton"/backends/python/*.so "$triton"/backends/python/*.py "$triton"/python_backend_stubs/3.11/triton_python_backend_stub "$work/backends/python/"

# model NAME CONFIG makes a model of triton_model.py.
model() {
	mkdir -p "$work/models/$1/1"
	cp e2e/clients/triton_model.py "$work/models/$1/1/model.py"
	printf 'name: "%s"\nbackend: "python"\nmax_batch_size: 0\ninstance_group [{ kind: KIND_CPU }]\n%s\n' "$1" "$2" >"$work/models/$1/config.pbtxt"
}

model add '
input [{ name: "a" data_type: TYPE_FP32 dims: [-1, 4] }, { name: "b" data_type: TYPE_FP32 dims: [-1, 4] }]
output [{ name: "sum" data_type: TYPE_FP32 dims: [-1, 4] }, { name: "difference" data_type: TYPE_FP32 dims: [-1, 4] }]'
for type in BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING; do
	name="identity_$(echo "$type" | tr '[:upper:]' '[:lower:]')"
	model "$name" "
input [{ name: \"x\" data_type: TYPE_$type dims: [-1, 3] }]
output [{ name: \"y\" data_type: TYPE_$type dims: [-1, 3] }]"
done

read -r http grpc < <("$python" - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in held))
PY
)
env PATH="$cache/venv/bin:$PATH" LD_LIBRARY_PATH="$site/nvidia_pytriton.libs" PYTHONPATH="$site" \
	"$triton/bin/tritonserver" --model-repository="$work/models" --backend-directory="$work/backends" \
	--model-control-mode=explicit --load-model='*' --http-address=127.0.0.1 --http-port="$http" \
	--grpc-address=127.0.0.1 --grpc-port="$grpc" --allow-metrics=false --exit-timeout-secs=5 >"$work/triton.log" 2>&1 &
server=$!
url="http://127.0.0.1:$http"
for i in $(seq 600); do
	curl -fs -o /dev/null "$url/v2/health/ready" && break
	if ! kill -0 "$server" 2>/dev/null || [ "$i" = 600 ]; then
		tail -n 20 "$work/triton.log" >&2
		skip "Triton does not start here"
	fi
	sleep 0.1
done

code=0
bin/zarpa conformance "$url" --grpc "127.0.0.1:$grpc" --extensions load -o json >"$work/report.json" || code=$?
[ "$code" -le 1 ] || exit "$code"
kill -0 "$server" || {
	tail -n 20 "$work/triton.log" >&2
	echo "Triton died of the suite" >&2
	exit 1
}
"$python" e2e/clients/report.py "$work/report.json" "Triton" "$(bin/zarpa version | cut -d" " -f1,2)" \
	"from the wheel $(grep -o '^nvidia-pytriton==[^ ]*' "$pins"), with the Python back end" >"$report"
echo "wrote $report"
