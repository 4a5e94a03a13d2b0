"""Brain encoders aligned with an intermediate layer of a frozen vision backbone."""

__version__ = "0.1.0"
