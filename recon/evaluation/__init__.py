"""Scores of retrieval and reconstruction, always beside their chance, controls and ceiling."""
