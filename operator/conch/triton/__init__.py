"""Everything that speaks Triton: repository layout, model configuration, client.

Nothing is imported here: the modules cost memory (protobuf, numpy, gRPC) that not every role has to pay.
"""
