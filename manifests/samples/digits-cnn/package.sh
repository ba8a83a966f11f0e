#!/bin/sh
# Trains the sample and packages it: $OUT/digits-cnn/1/digits-cnn. Further arguments go to `conch package`.
# With --labels the softmax and the names are in the graph: clients get LABEL and SCORE.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/digits-cnn
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name digits-cnn --output "$work/1" \
  --weights "$work/trained/weights.safetensors" --data "$work/trained/test.npz" --labels "$work/trained/labels.txt" "$@"
