"""Smaller and faster forms of a graph; each is measured, and kept only where it gains."""
