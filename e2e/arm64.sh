#!/bin/bash
# Runs the newest arm64 release of dist/ under qemu: zarpa up, a real model deployed and called.
# Needs root, qemu-user-static, binfmt-support and Debian's arm64 cross libraries.
set -euo pipefail
cd "$(dirname "$0")/.."

# In mount and process namespaces of its own: whatever happens, nothing stays mounted or running.
if [ -z "${ARM64_ROOT:-}" ]; then
	ARM64_ROOT="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-arm64.XXXXXX")"
	export ARM64_ROOT
	unshare --mount --propagation private --pid --fork --kill-child "$0" &
	inside=$!
	# SIGKILL alone ends what is process 1 of its namespace
	trap 'kill -KILL $inside 2>/dev/null || true; wait $inside 2>/dev/null || true; rm -rf --one-file-system "$ARM64_ROOT"' EXIT
	trap 'exit 130' INT TERM HUP
	wait $inside
	exit
fi
root="$ARM64_ROOT"

# A system of arm64 alone: its C libraries and the release.
# shellcheck disable=SC2012 # names are our own
archive="$(ls -t dist/zarpa-*-linux-arm64.tar.gz | head -1)"
mkdir -p "$root"/{zarpa,lib,proc,dev,tmp}
tar -C "$root/zarpa" --strip-components 1 -xzf "$archive"
cp -L /usr/aarch64-linux-gnu/lib/*.so* "$root/lib/"
cp examples/iris/iris.onnx "$root/zarpa/"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"

# The binary starts gateway and replicas itself, so the kernel must know what to do with it.
zarpa() {
	chroot "$root" /zarpa/zarpa "$@" --data /data
}
if ! zarpa version >/dev/null 2>&1; then
	mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || true
	update-binfmts --enable qemu-aarch64 || true
	if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
		echo "skipped: this kernel takes no binfmt_misc entry for qemu"
		exit 77
	fi
fi
zarpa version | grep linux/arm64

zarpa up --api 127.0.0.1:0 --gateway 127.0.0.1:0 >"$root/log" 2>&1 &
server=$!
for _ in $(seq 100); do
	if zarpa endpoint list >/dev/null 2>&1; then break; fi
	kill -0 "$server" 2>/dev/null || break
	sleep 0.3
done
zarpa deploy iris --model /zarpa/iris.onnx || { tail -40 "$root/log" >&2; exit 1; }
answer="$(zarpa invoke iris -d '{"data": [[7.0, 3.2, 4.7, 1.4], [5.1, 3.4, 1.5, 0.2]]}')"
echo "$answer"
if [[ "$answer" != '{"label":[1,0],'* ]]; then
	echo "arm64: wrong predictions" >&2
	exit 1
fi
echo "arm64: right predictions"
