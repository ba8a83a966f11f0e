"""What is concluded from a candidate's traffic: pure statistics that may be looked at as often as one likes."""
