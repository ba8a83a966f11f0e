"""The six models of the tests, as their users would write them: one file each, with a module named `net`."""
