"""From evidence to findings."""
