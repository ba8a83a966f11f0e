"""Stages that work on an ONNX graph; none of them needs torch."""
