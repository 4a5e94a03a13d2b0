"""Scores of anybody's outputs: embeddings, score matrices, pictures; the row of a paper."""
