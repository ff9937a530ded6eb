#!/bin/sh
# Says which generated files are not what "go generate ./..." makes of their sources.
set -eu
cd "$(dirname "$0")/.."

sums() {
	git ls-files --cached --others --exclude-standard '*.go' |
		xargs grep -lE '^// Code generated .* DO NOT EDIT\.$' | sort | xargs sha256sum
}

mkdir -p .cache
sums >.cache/generated.before
"${GO:-go}" generate ./...
sums >.cache/generated.after
if ! diff .cache/generated.before .cache/generated.after; then
	echo "generated code was old; it is new now: commit it" >&2
	exit 1
fi
echo "generated code is up to date: $(wc -l <.cache/generated.after) files"
