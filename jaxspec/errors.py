"""The one error for a wrong input, said the same way everywhere."""


class InputError(ValueError):
    """A value, file or field that cannot be used as given.

    The message answers four questions: where it is (`where`: the file, field or argument), what is there
    (`found`), what should be (`expected`), and what to do about it (`fix`).
    """

    def __init__(self, where: str, found: str, expected: str, fix: str):
        # All four go to `args`, so that the error survives pickling: worker processes send errors that way.
        super().__init__(where, found, expected, fix)
        self.where = where
        self.found = found
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected}; {self.fix}"
