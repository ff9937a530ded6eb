#!/bin/bash
# Runs the two commands of the README, make demo and make test, in a clean Debian: fresh.sh SUITE [demo]
#
# SUITE is bookworm or trixie; with demo, the first command alone runs. Needs root and mmdebstrap. The clean system has git, make, Python 3
# and Go, no C compiler and nothing else; a user without rights clones this repository's HEAD there.
#
# FRESH_GOPROXY=host lets it take Go modules from this machine's module cache first.
# FRESH_KEEP=DIR keeps the tarball of the clean system in DIR and uses one of the last seven days.
set -euo pipefail
cd "$(dirname "$0")/.."

suite="${1:?usage: e2e/fresh.sh bookworm|trixie [demo]}"
only="${2:-}"
repo="$PWD"
if [ "$(id -u)" != 0 ]; then
	echo "fresh.sh: needs root" >&2
	exit 2
fi

# In mount and process namespaces of its own: whatever happens, nothing stays mounted or running.
if [ -z "${FRESH_ROOT:-}" ]; then
	FRESH_ROOT="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-fresh.XXXXXX")"
	export FRESH_ROOT
	unshare --mount --propagation private --pid --fork --kill-child "$0" "$suite" "$only" &
	inside=$!
	# SIGKILL alone ends what is process 1 of its namespace
	trap 'kill -KILL $inside 2>/dev/null || true; wait $inside 2>/dev/null || true; rm -rf --one-file-system "$FRESH_ROOT"' EXIT
	trap 'exit 130' INT TERM HUP
	wait $inside
	exit
fi
root="$FRESH_ROOT/root"
mkdir -p "$root"
chmod 755 "$FRESH_ROOT"

# step NAME COMMAND… runs a command and says how long it took.
step() {
	local name="$1" began=$SECONDS
	shift
	"$@"
	echo "== $suite: $name took $((SECONDS - began)) s"
}

# debian_mirror prints this machine's own source of Debian packages, if it names one.
debian_mirror() {
	# shellcheck disable=SC2016 # apt fills these in
	apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }'
}

make_root() {
	local tar="${FRESH_KEEP:+$FRESH_KEEP/$suite.tar}" packages=ca-certificates,git,make,python3,python3-venv
	if [ -n "$tar" ] && [ -n "$(find "$tar" -mtime -7 2>/dev/null)" ]; then
		tar -C "$root" -xf "$tar"
		return
	fi
	local mirror proxy=()
	mirror="$(debian_mirror)"
	while read -r line; do proxy+=("--aptopt=$line"); done < <(apt-config dump | grep -E '^Acquire::(http|https|Retries)' || true)
	mmdebstrap --quiet --variant=minbase --include="$packages" "${proxy[@]}" "$suite" "$root" ${mirror:+"$mirror"}
	if [ -n "$tar" ]; then
		mkdir -p "$FRESH_KEEP"
		tar -C "$root" --one-file-system -cf "$tar.new" . && mv "$tar.new" "$tar"
	fi
}

# furnish gives the clean system Go, and this machine's way to the package registries.
furnish() {
	mkdir -p "$root/usr/local/go" "$root/srv"
	mount --bind "$(go env GOROOT)" "$root/usr/local/go"
	mount -o remount,bind,ro "$root/usr/local/go"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
	cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
	for conf in /etc/pip.conf "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$HOME/.pip/pip.conf"; do
		if [ -f "$conf" ]; then cat "$conf" >>"$root/etc/pip.conf"; fi
	done
	chroot "$root" useradd --create-home dev
	git -c safe.directory='*' clone --quiet --bare --no-hardlinks "$repo" "$root/srv/zarpa.git"
	git -c safe.directory='*' -C "$root/srv/zarpa.git" update-ref HEAD "$(git -c safe.directory='*' rev-parse HEAD)"
	chroot "$root" chown -R dev:dev /srv/zarpa.git
	if [ "${FRESH_GOPROXY:-}" = host ]; then
		mkdir -p "$root/srv/gomod"
		mount --bind "$(go env GOMODCACHE)/cache/download" "$root/srv/gomod"
		mount -o remount,bind,ro "$root/srv/gomod"
	fi
}

# as_dev runs a command as the user without rights, with a clean environment but for what names
# registries and their certificates.
as_dev() {
	local env=(HOME=/home/dev USER=dev LANG=C.UTF-8 TERM=dumb PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin)
	local name value
	for name in GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOTOOLCHAIN; do
		value="$(go env "$name")"
		if [ "$name" = GOPROXY ] && [ "${FRESH_GOPROXY:-}" = host ]; then value="file:///srv/gomod,$value"; fi
		if [ -n "$value" ]; then env+=("$name=$value"); fi
	done
	while IFS= read -r name; do
		env+=("$name=${!name}")
	done < <(compgen -e | grep -E '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|DEFAULT_TIMEOUT|PROXY)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY)$' || true)
	chroot --userspec=dev:dev "$root" /usr/bin/env -i "${env[@]}" /bin/sh -ec "cd; $1"
}

demo() {
	as_dev 'cd zarpa; make demo' 2>&1 </dev/null | tee "$FRESH_ROOT/demo.log"
	if [ "$(grep -c ' OK$' "$FRESH_ROOT/demo.log")" -lt 6 ] || grep -q DIFFERENT "$FRESH_ROOT/demo.log"; then
		echo "fresh.sh: make demo ended well without six right predictions" >&2
		return 1
	fi
	if as_dev 'ls -l /proc/[0-9]*/exe 2>/dev/null | grep bin/zarpa'; then
		echo "fresh.sh: make demo left processes behind" >&2
		return 1
	fi
}

verdict=0
# tests notes in verdict that something passed only when it was tried again.
tests() {
	as_dev 'cd zarpa; tools/test.sh' || verdict=$?
	[ $verdict = 0 ] || [ $verdict = 75 ]
}

step "clean system" make_root
step "Go and a clone" furnish
if as_dev 'command -v cc || command -v gcc || command -v clang'; then
	echo "fresh.sh: the clean system has a C compiler: it shows nothing" >&2
	exit 1
fi
as_dev 'git clone --quiet /srv/zarpa.git zarpa; cd zarpa; git log -1 --oneline; . /etc/os-release; echo "$PRETTY_NAME"; go version; python3 --version; make --version | head -1'
step "make demo" demo
step "make demo again" demo
[ "$only" = demo ] || step "make test" tests
if [ -n "$(as_dev 'cd zarpa; git status --porcelain')" ]; then
	echo "fresh.sh: the commands changed the clone:" >&2
	as_dev 'cd zarpa; git status --short'
	exit 1
fi
echo "== $suite: the commands pass on a clean system, in $SECONDS s"
exit $verdict
