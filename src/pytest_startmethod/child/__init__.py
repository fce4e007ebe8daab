"""Code that runs in child processes. Imports the standard library only."""
