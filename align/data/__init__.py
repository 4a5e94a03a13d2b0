"""From a stranger's files to clean trials."""
