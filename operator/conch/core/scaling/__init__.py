"""How many servers a load needs: from a latency objective to a count, and why."""
