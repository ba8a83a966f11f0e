#!/bin/sh
# Trains the sample and packages it: $OUT/sequence/1/sequence. Further arguments go to `conch package`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/sequence
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name sequence --output "$work/1" \
  --weights "$work/trained/weights.safetensors" --data "$work/trained/test.npz" --labels "$work/trained/labels.txt" "$@"
