#!/bin/sh
# Trains the sample and packages it: the repository $OUT/text/1 with the models text, text_tokenize and text_model.
# Further arguments go to `conch package`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/text
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name text --output "$work/1" --weights "$work/trained/weights.safetensors" \
  --data "$work/trained/test.npz" --labels "$work/trained/labels.txt" \
  --tokenizer "$work/trained/tokenizer.json" --max-length 48 "$@"
