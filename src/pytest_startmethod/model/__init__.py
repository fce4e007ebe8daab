"""The nouns that the other packages share."""
