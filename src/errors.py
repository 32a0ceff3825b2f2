"""The user's mistakes: what is wrong, in which file, row or key, and what to do about it, in one line."""

import re
import shlex

LONGEST = 900  # characters; half a million were seen, of a list in a YAML file that was told as it stood there
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]+")


class UserError(ValueError):
    """Something the user can mend. The verbs print it as one line, without a traceback; any other error is a bug."""

    def __str__(self) -> str:
        """One line, whatever was quoted in it; of a long one the beginning and the end, where the remedy stands."""
        said = CONTROL.sub(" ", super().__str__())
        return said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} … {said[-LONGEST // 2 :]}"


def command(*words: object) -> str:
    """`python predict.py 'runs/my run'`: a command to copy from a message, each word quoted as a shell needs it."""
    return f"`{shlex.join(['python', *map(str, words)])}`"
