#!/bin/sh
# Packages version 2 of what package.sh has trained, in eight bits: the repository $OUT/text/2.
# It is kept if it is faster, and the accuracy falls by at most 0.01.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/text
conch package "$here/train.py:net" --name text --version 2 --output "$work/2" \
  --weights "$work/trained/weights.safetensors" --data "$work/trained/test.npz" --labels "$work/trained/labels.txt" \
  --tokenizer "$work/trained/tokenizer.json" --max-length 48 \
  --optimise int8 --calibration "$work/trained/calibration.npz" --max-drop 0.01 "$@"
