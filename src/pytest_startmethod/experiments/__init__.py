"""Confirms or clears findings by running a leg again."""
