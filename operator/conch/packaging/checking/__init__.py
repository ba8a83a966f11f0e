"""`conch package check`: check.py goes through it, each other file checks one thing."""
