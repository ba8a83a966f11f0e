"""The rules by which replicas are scaled: Conch's own, and those of others as their sources have them."""
