"""Files that are copied into a packaged model and run there, in Triton's Python stub; they cannot import Conch."""
