"""What code reads, and which values parent and child have for it."""
