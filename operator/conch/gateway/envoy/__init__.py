"""Everything that is said to Envoy and read from it."""
