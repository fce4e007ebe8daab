"""Runs a script under a start method."""
