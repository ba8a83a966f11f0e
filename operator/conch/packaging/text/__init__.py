"""A text model as one service: a tokenise step in front of the graph, so that a client sends a string."""
