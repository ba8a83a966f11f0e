#!/bin/sh
# Trains the sample and packages it: $OUT/classifier/1/classifier. Further arguments go to `conch package`.
# --head none: clients get all ten probabilities, and the labels' names where they ask for a classification.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/classifier
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name classifier --output "$work/1" \
  --weights "$work/trained/weights.safetensors" --data "$work/trained/test.npz" \
  --labels "$work/trained/labels.txt" --head none "$@"
