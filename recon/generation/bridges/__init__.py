"""From tokens of one backbone layer to what the adapter of a generator reads."""
