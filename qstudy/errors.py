"""The one error that users are meant to see."""


class UserError(Exception):
    """One sentence that names the file, the field and the mend; the command line prints it and exits with code 2."""
