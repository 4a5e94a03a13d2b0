"""Comparison of layers, backbones and encoders by cross-validation on training rows."""
