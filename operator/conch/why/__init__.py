"""`conch why`: for the person whose model does not come up. Reads with that person's own rights, and writes nothing."""
