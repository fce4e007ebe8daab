"""Confirm or clear findings by running a leg again."""
