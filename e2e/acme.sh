#!/bin/bash
# Gets certificates from a real ACME server, Pebble, by TLS-ALPN-01 and by HTTP-01, and sees that the gateway
# shows them, keeps them over a restart, and that other names get the self-signed one.
#
#   e2e/acme.sh       after make build; PEBBLE names the server's binary when it need not be built
set -euo pipefail
cd "$(dirname "$0")/.."

version=v2.10.3
zarpa="$PWD/bin/zarpa"
pebble="${PEBBLE:-$PWD/.cache/pebble/pebble}"
[ -x "$pebble" ] || GOBIN="$PWD/.cache/pebble" CGO_ENABLED=0 GOFLAGS=-mod=mod go install "github.com/letsencrypt/pebble/v2/cmd/pebble@$version"

work="$(mktemp -d)"
pids=()
stop() {
	for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null && wait "$pid" || true; done
	pids=()
}
cleanup() {
	local code=$?
	stop
	[ "$code" = 0 ] || tail -n 40 "$work"/*.log "$work"/*/gateway/gateway.log 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT INT TERM

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# await WHAT COMMAND… tries for 60 s.
await() {
	local what="$1"
	shift
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.2
	done
	echo "$what did not come about" >&2
	return 1
}

# The authority's own address has a certificate that signs itself; its names are looked up nowhere: every
# name is this machine.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pebble \
	-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
acme=$(free) management=$(free) dns=$(free) tls=$(free) http=$(free) api=$(free)
cat >"$work/pebble.json" <<JSON
{"pebble": {"listenAddress": "127.0.0.1:$acme", "managementListenAddress": "127.0.0.1:$management",
 "certificate": "$work/ca.pem", "privateKey": "$work/ca.key", "httpPort": $http, "tlsPort": $tls,
 "ocspResponderURL": "", "externalAccountBindingRequired": false}}
JSON
python3 tools/dns.py "$dns" >"$work/dns.log" 2>&1 &
pids+=($!)
PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=5 "$pebble" -config "$work/pebble.json" -dnsserver "127.0.0.1:$dns" >"$work/pebble.log" 2>&1 &
pids+=($!)
await "the ACME server" curl -fsS --cacert "$work/ca.pem" "https://127.0.0.1:$acme/dir"
curl -fsS --cacert "$work/ca.pem" "https://127.0.0.1:$management/roots/0" >"$work/root.pem"

# up NAME FLAG… starts a server whose gateway gets certificates.
up() {
	local name="$1"
	shift
	"$zarpa" up --data "$work/$name" --api "127.0.0.1:$api" --gateway "127.0.0.1:$tls" --tls-self-signed \
		--acme-directory "https://127.0.0.1:$acme/dir" --acme-ca "$work/ca.pem" --acme-email ops@example.org "$@" >>"$work/$name.log" 2>&1 &
	server=$!
	pids+=("$server")
	await "zarpa up" test -f "$work/$name/server.json"
}
down() {
	kill -TERM "$server"
	wait "$server" || true
}

# ready NAME asks the gateway by HTTPS under a name, trusting the authority alone.
ready() { curl -fsS --max-time 20 --cacert "$work/root.pem" --resolve "$1:$tls:127.0.0.1" "https://$1:$tls/v2/health/live"; }

# serial NAME is that of the certificate under a name.
serial() { openssl s_client -connect "127.0.0.1:$tls" -servername "$1" </dev/null 2>/dev/null | openssl x509 -noout -serial; }

up alpn --acme-domain models.example.org --acme-domain second.example.org
await "a certificate by TLS-ALPN-01" ready models.example.org
await "the second name's" ready second.example.org
before="$(serial models.example.org)"
[ "$(serial 127.0.0.1)" != "$before" ]
curl -fsS --cacert "$work/alpn/tls/self-signed.pem" "https://127.0.0.1:$tls/v2/health/live" >/dev/null
curl -fsS --cacert "$work/alpn/tls/self-signed.pem" -H "Authorization: Bearer $(cat "$work/alpn/admin-token")" \
	"https://127.0.0.1:$api/metrics/gateway" | grep -q '^zarpa_tls_certificate_expiry_seconds [1-9]'
grep -q 'Gateway       https://models.example.org' "$work/alpn.log"
echo "TLS-ALPN-01: ok"

down
up alpn --acme-domain models.example.org --acme-domain second.example.org
await "the gateway after a restart" ready models.example.org
[ "$(serial models.example.org)" = "$before" ]
echo "kept over a restart: ok"
down

# By HTTP-01: the gateway is elsewhere than the authority looks for TLS.
tls=$(free)
up http --acme-domain http.example.org --acme-http "127.0.0.1:$http"
await "a certificate by HTTP-01" ready http.example.org
[ "$(curl -sS -o /dev/null -w '%{http_code}' --resolve "http.example.org:$http:127.0.0.1" "http://http.example.org:$http/x")" = 302 ]
echo "HTTP-01: ok"
down
