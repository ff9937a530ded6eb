#!/bin/bash
# Runs the newest arm64 release of dist/ under qemu: zarpa up, a real model deployed and called.
# Needs root, qemu-user-static and Debian's arm64 cross libraries.
set -euo pipefail
cd "$(dirname "$0")/.."

archive="$(ls -t dist/zarpa-*-linux-arm64.tar.gz | head -1)"
dir="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-arm64.XXXXXX")"
server=
end() {
	if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
	rm -rf "$dir"
}
trap end EXIT

tar -C "$dir" --strip-components 1 -xzf "$archive"

# Replicas and gateway are started by the binary itself, so the kernel must know what to do with it.
if ! "$dir/zarpa" version >/dev/null 2>&1; then
	mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	update-binfmts --enable qemu-aarch64 2>/dev/null ||
		cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
fi
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu ZARPA_DATA="$dir/data"
"$dir/zarpa" version | tee "$dir/version"
grep -q linux/arm64 "$dir/version"

"$dir/zarpa" up --api 127.0.0.1:0 --gateway 127.0.0.1:0 --on-exit stop >"$dir/log" 2>&1 &
server=$!
for _ in $(seq 300); do
	if [ -s "$dir/data/server.json" ] && "$dir/zarpa" endpoint list >/dev/null 2>&1; then break; fi
	kill -0 "$server" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
	sleep 0.1
done
"$dir/zarpa" deploy iris --model examples/iris/iris.onnx || { tail -40 "$dir/log" >&2; exit 1; }
answer="$("$dir/zarpa" invoke iris -d '{"data": [[7.0, 3.2, 4.7, 1.4], [5.1, 3.4, 1.5, 0.2]]}')"
echo "$answer"
case "$answer" in
'{"label":[1,0],'*) echo "arm64: right predictions" ;;
*)
	echo "arm64: wrong predictions" >&2
	exit 1
	;;
esac
