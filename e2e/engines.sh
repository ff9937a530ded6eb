#!/bin/bash
# Runs a command with container engines of its own: e2e/engines.sh docker podman -- go test ./target/container
#
# Needs root. Each engine lives in a temporary place and on a bridge of its own, beside any other that runs here,
# and is gone at the end, with all that was made in it. The command gets
#   DOCKER_HOST                  the first engine named
#   ZARPA_TEST_DOCKER            unix://… of dockerd
#   ZARPA_TEST_DOCKER_CONTROL    a program that takes stop, kill, start: dockerd alone, its containers are what it makes of them
#   ZARPA_TEST_PODMAN            unix://… of Podman's service
#   ZARPA_TEST_PODMAN_CONTROL    the same for it
# Empty chains that Podman makes in the packet filter (NETAVARK…) stay: any Podman uses them again.
# It exits with 77 where an engine cannot be had, and says why.
set -euo pipefail

usage() {
	echo "usage: e2e/engines.sh docker|podman… -- COMMAND…" >&2
	exit 2
}
engines=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	case "$1" in
	docker | podman) engines+=("$1") ;;
	*) usage ;;
	esac
	shift
done
[ $# -ge 2 ] && [ ${#engines[@]} -gt 0 ] || usage
shift

skip() {
	echo "skipped: $1" >&2
	exit 77
}
[ "$(id -u)" = 0 ] || skip "engines are started as root"
for e in "${engines[@]}"; do
	case $e in
	docker) need=(dockerd containerd runc) ;;
	podman) need=(podman runc netavark conmon) ;;
	esac
	for program in "${need[@]}"; do
		PATH="$PATH:/usr/lib/podman" command -v "$program" >/dev/null || skip "$program is not installed"
	done
done

root="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-engines.XXXXXX")"
net=$((RANDOM % 200 + 20)) # of 10.NET.1.0/24 and 10.NET.2.0/24
command=

# The ends are tried one by one: each that fails must not keep the next from happening.
clean() {
	trap '' INT TERM HUP
	set +e
	if [ -n "$command" ]; then
		kill -TERM "$command" 2>/dev/null
		wait "$command" 2>/dev/null
	fi
	if [ -e "$root/podman.control" ]; then
		podman_ rm --all --force --time 0 --volumes >/dev/null 2>&1
		"$root/podman.control" kill
		podman_ rmi --all --force >/dev/null 2>&1
		podman_ network prune --force >/dev/null 2>&1
	fi
	if [ -e "$root/docker.control" ]; then
		DOCKER_HOST="unix://$root/docker.sock" bash -c 'docker ps -aq | xargs -r docker rm -fv' >/dev/null 2>&1
		"$root/docker.control" stop
	fi
	ip link delete "zdk$net" 2>/dev/null
	ip link delete "zpm$net" 2>/dev/null
	for _ in 1 2 3 4 5; do # the deepest first; a mount may hide others
		awk -v root="$root/" 'index($2, root) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount --lazy 2>/dev/null
	done
	rm -rf --one-file-system "$root"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

podman_() {
	CONTAINERS_CONF="$root/containers.conf" podman --root "$root/podman" --runroot "$root/podman-run" \
		--network-config-dir "$root/podman-net" "$@"
}

# control writes the program that stops and starts one engine: its name, how long it may take to end, its command.
control() {
	local name="$1" file="$root/$1.control"
	shift
	{
		echo '#!/bin/bash'
		echo "# stop, kill or start $name"
		echo "set -eu; cd $root"
		printf 'run() { exec setsid %s >>%s/%s.log 2>&1 </dev/null; }\n' "$(printf '%q ' "$@")" "$root" "$name"
		cat <<-END
			pid="\$(cat $name.id 2>/dev/null || true)"
			end() {
				[ -n "\$pid" ] || return 0
				kill "\$1" "\$pid" 2>/dev/null || true
				for _ in \$(seq 300); do
					[ -d "/proc/\$pid" ] && ! grep -q '^State:.Z' "/proc/\$pid/status" 2>/dev/null || break
					sleep 0.1
				done
				kill -KILL "\$pid" 2>/dev/null || true
				rm -f $name.id
			}
			case "\$1" in
			stop) end -TERM ;;
			kill) end -KILL ;;
			start)
				# A killed one that nobody has waited for yet must not be taken for one that runs.
				rm -f $name.sock $name.pid $name-run/containerd/containerd.pid
				(run) & echo \$! >$name.id
				for _ in \$(seq 300); do
					curl -sf --max-time 5 --unix-socket $name.sock http://engine/_ping >/dev/null && exit
					[ -d "/proc/\$(cat $name.id)" ] || break
					sleep 0.1
				done
				tail -20 $name.log >&2
				echo "$name did not start" >&2
				exit 1
				;;
			esac
		END
	} >"$file"
	chmod +x "$file"
}

start_docker() {
	# Without rules of its own it takes nothing away from another dockerd; published ports of 127.0.0.1 go through its proxy.
	ip link add "zdk$net" type bridge
	ip address add "10.$net.1.1/24" dev "zdk$net"
	ip link set "zdk$net" up
	control docker dockerd --host "unix://$root/docker.sock" --data-root "$root/docker" --exec-root "$root/docker-run" --pidfile "$root/docker.pid" \
		--bridge "zdk$net" --iptables=false --ip6tables=false --ip-masq=false --shutdown-timeout 5
	"$root/docker.control" start
	export ZARPA_TEST_DOCKER="unix://$root/docker.sock" ZARPA_TEST_DOCKER_CONTROL="$root/docker.control"
	export DOCKER_HOST="${DOCKER_HOST:-$ZARPA_TEST_DOCKER}"
}

start_podman() {
	cat >"$root/containers.conf" <<-END
		[containers]
		default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
		[engine]
		runtime = "runc"
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		[network]
		network_backend = "netavark"
	END
	mkdir -p "$root/podman-net"
	cat >"$root/podman-net/podman.json" <<-END
		{"name": "podman", "id": "$(printf '%064d' "$net")", "driver": "bridge", "network_interface": "zpm$net",
		 "created": "2024-01-01T00:00:00Z", "subnets": [{"subnet": "10.$net.2.0/24", "gateway": "10.$net.2.1"}],
		 "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}}
	END
	control podman env CONTAINERS_CONF="$root/containers.conf" podman --root "$root/podman" --runroot "$root/podman-run" \
		--network-config-dir "$root/podman-net" system service --time=0 "unix://$root/podman.sock"
	"$root/podman.control" start
	export ZARPA_TEST_PODMAN="unix://$root/podman.sock" ZARPA_TEST_PODMAN_CONTROL="$root/podman.control"
	export DOCKER_HOST="${DOCKER_HOST:-$ZARPA_TEST_PODMAN}"
}

unset DOCKER_HOST
for e in "${engines[@]}"; do
	"start_$e"
done
"$@" &
command=$!
code=0
wait "$command" || code=$?
command=
exit "$code"
