#!/bin/bash
# Deploys committed models of every framework by naming their files, and compares what the endpoints answer with the
# frameworks' own predictions; then converts some to ONNX and compares again.
#
#   e2e/nocode.sh                           one model of each framework
#   e2e/nocode.sh sklearn-forest lightgbm-classes     these, of engine/python/testdata/models
#
# The environments are built by the product itself, below .cache/nocode (3 GB with TensorFlow). TorchScript runs with Debian's
# python3-torch, where it is installed. Needs bin/zarpa and Python 3.11. Ends with 1 when a check failed.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x bin/zarpa ] || { echo "skipped: bin/zarpa is not there: run make build" >&2; exit 77; }
mkdir -p .cache/nocode
exec python3 e2e/nocode/check.py "$@"
