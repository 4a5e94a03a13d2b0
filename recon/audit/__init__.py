"""Leak checks for anybody's decoding results: each file one idea, each function arrays in, one `Finding` out."""
