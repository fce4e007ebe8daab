"""The start method as the default, and what is replaced for it."""
