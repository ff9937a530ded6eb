#!/bin/sh
# Runs every fuzz target for a while: fuzz.sh [TIME]
set -eu
cd "$(dirname "$0")/.."
time="${1:-10s}"

git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' |
	sort -u | while IFS=: read -r file func; do
	echo "$(dirname "$file") ${func#func }"
	"${GO:-go}" test -run '^$' -fuzz "^${func#func }\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null
done
