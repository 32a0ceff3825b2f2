"""The user's mistakes: what is wrong, in which file, row or key, and what to do about it, in one line."""


class UserError(ValueError):
    """Something the user can mend. The verbs print it as one line, without a traceback; any other error is a bug."""
