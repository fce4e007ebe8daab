"""Making a leg's start method the default, and the replacements that this needs."""
