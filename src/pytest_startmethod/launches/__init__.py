"""Recording what a leg starts, and ending what it leaves behind."""
