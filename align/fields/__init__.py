"""Fields of configurations: what each may hold (`checks`), how values are written (`syntax`) and read (`loading`)."""
