#!/bin/sh
# Trains the network, packages it, and packages the pipeline around it: the repository $OUT/pipeline/1 with the models
# pipeline, pipeline_collect, pipeline_preprocess and so on. Further arguments go to the last `conch package`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${OUT:-packaged}/pipeline
python "$here/train.py" --out "$work/trained"
conch package "$here/train.py:net" --name net --output "$work/net" --weights "$work/trained/weights.safetensors" \
  --data "$work/trained/test.npz"
# The paths in pipeline.yaml are relative to it.
cp -r "$here/pipeline.yaml" "$here/steps" "$work/"
conch package "$work/pipeline.yaml" --output "$work/1" "$@"
