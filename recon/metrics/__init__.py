"""Picture metrics and the networks they read; used by everything that scores."""
