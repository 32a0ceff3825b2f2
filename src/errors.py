"""The user's mistakes: what is wrong, in which file, row or key, and what to do about it, in one line."""


import shlex


def command(*words: object) -> str:
    """`python predict.py 'runs/my run'`: a command to copy from a message, each word quoted as a shell needs it."""
    return f"`{shlex.join(['python', *map(str, words)])}`"


class UserError(ValueError):
    """Something the user can mend. The verbs print it as one line, without a traceback; any other error is a bug."""
