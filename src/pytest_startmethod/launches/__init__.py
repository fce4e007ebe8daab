"""Records what a leg starts."""
