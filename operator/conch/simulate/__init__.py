"""`conch simulate`: a trace of requests replayed through the autoscaler and through the rules of others."""
