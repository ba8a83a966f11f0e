"""What packaging costs and gains, and the packaged text service beside the Flask server that it replaces."""
