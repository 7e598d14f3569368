"""The one error that users are meant to see, and the exit codes of the commands."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

USER_ERROR = 2
"""Exit code of a command that told its user what is wrong."""
INCOMPLETE = 3
"""Exit code of a study that has ended, but in which trials were given up, or nothing worked."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
UNREAD = 141
"""Exit code where nobody reads the output any more, as `| head`: what a shell gives of programs that end of it."""


class UserError(Exception):
    """One sentence that names the file, the field and the mend; the command line prints it and exits with code 2."""


def meant(name: object, known: Iterable[str]) -> str:
    """` (did you mean 'train'?)`, to be put behind a name that is not known; nothing if none of the known is near."""
    near = get_close_matches(str(name), [*known], n=1, cutoff=0.7)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Diverged(UserError):
    """A training that its own configuration makes impossible (the loss became NaN); a study notes it and goes on."""


@contextmanager
def naming(source: object, mend: str = "") -> Iterator[None]:
    """Within, an error that does not name its source yet gets it put in front, and the mend behind."""
    try:
        yield
    except UserError as error:
        if str(source) in str(error):
            raise
        said = f"{str(error).removesuffix('.')}; {mend}" if mend else str(error)
        raise type(error)(f"{source}: {said}") from error
