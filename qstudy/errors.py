"""The one error that users are meant to see."""


class UserError(Exception):
    """One sentence that names the file, the field and the mend; the command line prints it and exits with code 2."""


class Diverged(UserError):
    """A training that its own configuration makes impossible (the loss became NaN); a study notes it and goes on."""
