"""The folder study: recordings that users bring, in one folder or in one for each person."""
