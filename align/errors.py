"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """Bad input: one line that says what, which value, and what to do. Commands print it and exit with 2."""
