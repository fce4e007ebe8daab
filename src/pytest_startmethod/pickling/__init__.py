"""Pickling as a start would do it, and why it fails."""
