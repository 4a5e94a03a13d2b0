"""Sets of pictures on disk: sampled, chosen among samples, explained by maps."""
