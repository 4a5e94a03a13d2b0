"""What lies on disk is what was written: checksums of caches and results, and caches made by one process at a time."""
