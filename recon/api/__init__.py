"""The Python interface: `Study`, `Decoder` and `Pictures`, over the functions that the commands call."""
