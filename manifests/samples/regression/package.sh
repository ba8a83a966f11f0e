#!/bin/sh
# Trains the sample and packages it: $OUT/regression/1/regression. Further arguments go to `conch package`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/regression
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name regression --output "$work/1" \
  --weights "$work/trained/weights.safetensors" --data "$work/trained/test.npz" "$@"
