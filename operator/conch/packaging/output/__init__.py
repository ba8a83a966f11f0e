"""What packaging writes: configuration, golden set, record, and the folder that holds them."""
