#!/bin/sh
# make test, and what failed of it once more: that tells what is flaky from what is broken. Ends with 75 when
# all passed then; what failed first is a bug all the same, and is printed.
set -u
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
{ make test 2>&1; echo "make test: $?" >>"$log.rc"; } | tee "$log"
rc="$(sed -n 's/^make test: //p' "$log.rc")"
rm -f "$log.rc"
[ "$rc" = 0 ] && exit 0
failed="$(awk '$1 == "FAIL" && $2 ~ /^[a-z.]+\// { print $2 }' "$log" | sort -u | tr '\n' ' ')"
[ -n "$failed" ] || exit "$rc"
echo "### failed, and tried once more: $failed"
make test PACKAGES="$failed" || exit 1
echo "### flaky: $failed"
exit 75
