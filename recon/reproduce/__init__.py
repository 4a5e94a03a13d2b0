"""Recipes of published decoders, trained here and scored under their own rule and under the clean one."""
