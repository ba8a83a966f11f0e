#!/bin/sh
# Trains the sample and packages it: $OUT/linear/1/linear. Further arguments go to `conch package`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/linear
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name linear --output "$work/1" --weights "$work/trained/weights.safetensors" \
  --example-input "$work/trained/example.npz" --data "$work/trained/test.npz" "$@"
