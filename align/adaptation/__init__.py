"""Decoders for a new person from little data: what several people share is fitted once, the rest to the new one."""
