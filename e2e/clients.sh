#!/bin/bash
# Runs real clients against Zarpa: tritonclient and the kserve SDK, curl and grpcurl, over REST and gRPC.
#
#   e2e/clients.sh            a bare replica, then the gateway
#   e2e/clients.sh replica    one of them
#   e2e/clients.sh gateway
#
# The clients are installed under .cache/clients with the pins of clients/requirements.txt. Needs bin/zarpa, curl,
# Python 3 and Go. Ends with 77 and a reason where the clients cannot be had, and with 1 when a check failed.
set -euo pipefail
cd "$(dirname "$0")/.."

grpcurl_version=v1.9.4
cache="$PWD/.cache/clients"
zoo=engine/enginetest/testdata
work="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-clients.XXXXXX")"
running=()

skip() {
	echo "skipped: $*" >&2
	exit 77
}

# finish ends what was started, the newest first, and removes what was made.
finish() {
	for ((i = ${#running[@]} - 1; i >= 0; i--)); do
		kill -INT "${running[i]}" 2>/dev/null || true
		wait "${running[i]}" 2>/dev/null || true
	done
	rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# until COMMAND… waits up to a minute for a command to succeed.
until_ok() {
	for _ in $(seq 600); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "timed out: $*" >&2
	tail -n 20 "$work"/*.log >&2
	return 1
}

[ -x bin/zarpa ] || skip "bin/zarpa is not there: run make build"
pins=e2e/clients/requirements.txt
if ! cmp -s "$pins" "$cache/installed.txt"; then
	rm -rf "$cache/venv"
	python3 -m venv "$cache/venv"
	"$cache/venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$pins" || skip "the clients cannot be installed"
	cp "$pins" "$cache/installed.txt"
fi
export GRPCURL="$PWD/.cache/bin/grpcurl"
if [ ! -x "$GRPCURL" ]; then
	GOBIN="$PWD/.cache/bin" CGO_ENABLED=0 go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl_version" || skip "grpcurl cannot be built"
fi

export ZARPA_DATA="$work/data"
bin/zarpa up --api 127.0.0.1:0 --gateway 127.0.0.1:0 >"$work/up.log" 2>&1 &
running+=($!)
until_ok test -s "$ZARPA_DATA/server.json"
models=(--model "$zoo/add.onnx")
for type in bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float double string; do
	models+=(--model "$zoo/identity_$type.onnx")
	bin/zarpa model register "identity_$type" "$zoo/identity_$type.onnx" >/dev/null
done
bin/zarpa model register add "$zoo/add.onnx" >/dev/null
models=("${models[@]//$zoo\//}")
models=("${models[@]//.onnx/}")
bin/zarpa deploy zoo "${models[@]}" >/dev/null

# value NAME FILE finds a text of a JSON file.
value() {
	sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$2" | head -1
}

code=0

# suites FLAG… runs all clients against a server.
suites() {
	local suite
	for suite in triton kserve commands; do
		"$cache/venv/bin/python" e2e/clients/main.py "$suite" "$@" || code=1
	done
}

replica() {
	bin/zarpa score --bundle "$ZARPA_DATA"/bundles/* --model add --listen 127.0.0.1:0 >"$work/score.log" 2>&1 &
	running+=($!)
	until_ok grep -q 'ready.*listen' "$work/score.log"
	local address
	address="$(grep -o '127\.0\.0\.1:[0-9]*' "$work/score.log" | tail -1)"
	echo "== a bare replica"
	suites --rest "$address" --grpc "$address"
}

gateway() {
	bin/zarpa keys zoo -o json >"$work/keys.json"
	bin/zarpa endpoint show zoo -o json >"$work/zoo.json"
	local url="" address
	url="$(value score "$work/zoo.json")"
	url="${url#http://}"
	address="${url%%/*}"
	echo "== the gateway"
	suites --rest "${url%/score}" --grpc "$address" -H "Authorization: Bearer $(value primary "$work/keys.json")" -H "zarpa-endpoint: zoo"
}

for what in "${@:-replica gateway}"; do
	for name in $what; do
		"$name"
	done
done
exit "$code"
