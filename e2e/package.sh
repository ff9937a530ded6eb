#!/bin/bash
# Packages real models and a script as images, loads them into a real engine, and calls them there, locked up as
# far as an engine can: read-only, no capability, no user of the machine. DOCKER_HOST names the engine. Skipped
# (77) without one. Needs bin/zarpa and bin/zarpa-score, curl and python3; packages come from the user's index.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v docker >/dev/null; then
	echo "skipped: there is no docker"
	exit 77
fi
if ! docker version >/dev/null 2>&1; then
	echo "skipped: no engine answers at ${DOCKER_HOST:-its usual socket}"
	exit 77
fi
if [ ! -x bin/zarpa ] || [ ! -x bin/zarpa-score ]; then
	echo "bin/zarpa or bin/zarpa-score is missing: run make build" >&2
	exit 1
fi

tag="img-e2e-$$"
folder="$(mktemp -d "${TMPDIR:-/tmp}/zarpa-package.XXXXXX")"
images=()
clean() {
	docker ps -aq --filter "name=^$tag" | xargs -r docker rm -f >/dev/null 2>&1 || true
	if [ "${#images[@]}" -gt 0 ]; then docker rmi -f "${images[@]}" >/dev/null 2>&1 || true; fi
	rm -rf "$folder"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
export ZARPA_DATA="$folder/data"
status=0

# package NAME ARG… makes an archive twice, the second time without what was kept, and loads it.
package() {
	local name="$1" began
	shift
	began="$(date +%s%3N)"
	bin/zarpa package "$@" --output "tar:$folder/$name.tar" --name "$tag-$name:1" >"$folder/$name.out" 2>"$folder/$name.err" ||
		{ cat "$folder/$name.err" >&2; return 1; }
	echo "$name: packaged in $(($(date +%s%3N) - began)) ms"
	grep -E '^(LAYER|system|runtime|interpreter|environment|code|model|image) ' "$folder/$name.out"
	rm -rf "$ZARPA_DATA/layers"
	began="$(date +%s%3N)"
	bin/zarpa package "$@" --output "tar:$folder/again.tar" --name "$tag-$name:1" >/dev/null 2>&1
	echo "$name: packaged again in $(($(date +%s%3N) - began)) ms, its environment kept, its layers not"
	cmp "$folder/$name.tar" "$folder/again.tar" || { echo "$name: two archives of the same differ" >&2; status=1; }
	docker load -qi "$folder/$name.tar" >/dev/null
	images+=("$tag-$name:1")
}

# serve NAME ARG… runs an image with arguments of zarpa-score until it is ready, and prints its address.
serve() {
	local name="$1" address began
	shift
	began="$(date +%s%3N)"
	docker run -d --name "$tag-$name" --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --pids-limit 200 \
		-e FACTOR=3 -p 127.0.0.1::5001 "$tag-$name:1" "$@" >/dev/null
	address="$(docker port "$tag-$name" 5001 | head -1)"
	for _ in $(seq 600); do
		if curl -sf -o /dev/null "http://$address/v2/health/ready"; then
			echo "$name: ready $(($(date +%s%3N) - began)) ms after docker run" >&2
			echo "$address"
			return
		fi
		if [ "$(docker inspect -f '{{.State.Running}}' "$tag-$name")" != true ]; then break; fi
		sleep 0.1
	done
	echo "$name: is not ready" >&2
	docker logs "$tag-$name" >&2
	return 1
}

# expect NAME PATTERN CURL… compares an answer.
expect() {
	local name="$1" pattern="$2" answer
	shift 2
	answer="$(curl -s "$@" || true)"
	if [[ "$answer" =~ $pattern ]]; then
		echo "$name: $(cut -c 1-100 <<<"$answer" | head -1)"
	else
		echo "$name: answered $answer, and not $pattern" >&2
		docker logs "$tag-$name" >&2
		status=1
	fi
}

package iris examples/iris/iris.onnx
at="$(serve iris --max-concurrency 4)"
expect iris '"label":\[1,0\]' -d '{"data": [[7.0, 3.2, 4.7, 1.4], [5.1, 3.4, 1.5, 0.2]]}' "http://$at/score"
expect iris '"name":"iris"' "http://$at/v2/models/iris"
expect iris '"swagger"' "http://$at/swagger.json"
if [ "$(docker exec "$tag-iris" /bin/sh -c true >/dev/null 2>&1; echo $?)" = 0 ]; then
	echo "iris: there is a shell in it" >&2
	status=1
fi
read -r compressed unpacked < <(awk '$1 == "image" { print $2, $4 }' "$folder/iris.out")
echo "iris: $compressed MB compressed, $unpacked MB unpacked"

# Another machine with the same libraries makes the same image: another host name, user, folder, time zone and umask,
# and files of another age. As root, because a host name is the machine's.
if [ "$(id -u)" = 0 ]; then
	other="$folder/other"
	mkdir -p "$other/bin" "$other/home"
	cp bin/zarpa bin/zarpa-score bin/libonnxruntime* "$other/bin" # now, not when they were built
	cp examples/iris/iris.onnx "$other/"
	chmod 755 "$folder"
	chown -R 65534:65534 "$other"
	# shellcheck disable=SC2016 # the shell within fills it in
	unshare --uts sh -c 'hostname another && cd "$0" && umask 077 && exec env -i PATH=/usr/bin:/bin TZ=Asia/Tokyo LANG=tr_TR.UTF-8 HOME="$0/home" \
		setpriv --reuid 65534 --regid 65534 --clear-groups bin/zarpa package iris.onnx --output tar:there.tar --name '"$tag-iris:1"' >/dev/null' "$other"
	cmp "$folder/iris.tar" "$other/there.tar" || { echo "iris: two machines make two images" >&2; status=1; }
	echo "iris: the same image from another machine with these libraries"
	docker image inspect -f '{{index .Config.Labels "dev.zarpa.libraries"}}' "$tag-iris:1" | cut -c 1-200
fi

package digits examples/digits/digits.onnx
at="$(serve digits)"
python3 - examples/digits/heldout.json >"$folder/digits.json" <<'P'
import json, sys
held = json.load(open(sys.argv[1]))
rows = next(v for v in held.values() if isinstance(v, list) and isinstance(v[0], list))
json.dump({"data": rows[:2]}, sys.stdout)
P
expect digits '^\{.*\[' -d "@$folder/digits.json" "http://$at/score"

package script --code examples/script
at="$(serve script --workers 1)"
expect script '^\[3.0, ?6.0\]' -d '{"data": [1, 2]}' "http://$at/score"

if [ "${PACKAGE_SKLEARN:-1}" = 1 ]; then
	package sklearn engine/python/testdata/models/sklearn-logistic/model/model.pkl
	at="$(serve sklearn --workers 1)"
	expect sklearn 'predict' -d '{"data": [[5.1, 3.5, 1.4, 0.2]]}' "http://$at/score"
fi

# The engine builds the same from the folder for it.
bin/zarpa package examples/iris/iris.onnx --dockerfile "$folder/build" >/dev/null
docker build -q -t "$tag-built:1" "$folder/build" >/dev/null 2>&1
images+=("$tag-built:1")
at="$(serve built)"
expect built '"label":\[1,0\]' -d '{"data": [[7.0, 3.2, 4.7, 1.4], [5.1, 3.4, 1.5, 0.2]]}' "http://$at/score"
exit "$status"
