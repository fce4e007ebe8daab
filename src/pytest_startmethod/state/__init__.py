"""What code reads, and what parent and child have there."""
