"""What runs in a child process: standard library only."""
