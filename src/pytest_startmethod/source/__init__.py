"""The user's source code."""
