"""How one revision takes over from another: see machine.py."""
