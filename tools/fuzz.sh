#!/bin/sh
# Runs every fuzz target for a while: fuzz.sh [TIME]
set -eu
cd "$(dirname "$0")/.."
time="${1:-10s}"
log=.cache/fuzz.log
mkdir -p .cache

# fuzz FOLDER TARGET. Inputs that reach new code are made smaller for a while only, not for the minute that Go gives
# each of them, in which nothing new is tried. Go's fuzzer may report its own end as a failure, when the time is over
# while a worker still runs an input (golang/go#75804): nothing was found then, and no input was written.
fuzz() {
	if "${GO:-go}" test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 100x "./$1" >"$log" 2>&1 </dev/null; then
		tail -n 3 "$log"
		return
	fi
	if grep -q '^ *context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic' "$log"; then
		echo "the time was over while an input ran: nothing found"
		return
	fi
	cat "$log"
	return 1
}

git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' |
	sort -u | while IFS=: read -r file func; do
	echo "$(dirname "$file") ${func#func }"
	fuzz "$(dirname "$file")" "${func#func }"
done
