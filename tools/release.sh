#!/bin/sh
# Makes dist/zarpa-VERSION-linux-{amd64,arm64}.tar.gz: release.sh VERSION
# The same commit gives the same bytes.
set -eu
cd "$(dirname "$0")/.."
version="$1"
stamp="@$(git log -1 --format=%ct 2>/dev/null || echo 0)"

for arch in amd64 arm64; do
	name="zarpa-$version-linux-$arch"
	rm -rf "dist/$name"
	mkdir -p "dist/$name"
	CC="$("$PYTHON" tools/cc.py --release "$arch")"
	CC="$CC" CGO_ENABLED=1 GOOS=linux GOARCH="$arch" "$GO" build -tags grpcnotrace -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$version" -o "dist/$name/" ./cmd/zarpa ./cmd/zarpa-score
	"$PYTHON" tools/onnxruntime.py "dist/$name" "$arch"
	tar --create --directory dist --sort=name --owner=0 --group=0 --numeric-owner --mtime="$stamp" "$name" |
		gzip -n9 >"dist/$name.tar.gz"
	rm -r "dist/$name"
	(cd dist && sha256sum "$name.tar.gz")
done
