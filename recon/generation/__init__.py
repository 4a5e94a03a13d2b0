"""Tokens to pictures: conditioner, pipeline, and the embedded miniature Stable Diffusion."""
