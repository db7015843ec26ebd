"""The text of one cell as a value: nothing, yes or no, a number.

Tables write "no value" in dozens of ways, and booleans and codes as text wherever a program without types
touched them. Every reader of a column asks here, so that a word means the same in all of them.
"""

import re

# Words for "no value", compared without blanks and punctuation, in capitals.
BLANK = frozenset({"NONE", "NAN", "NULL", "NA", "NIL", "MASKED", "INDEF", "UNDEF"})
# Beyond these, what people write where a star has no name.
NAMELESS = BLANK | {
    *("UNKNOWN", "UNKN", "UNK", "UNNAMED", "NONAME", "ANON", "ANONYMOUS", "UNDEFINED", "UNIDENTIFIED"),
    *("UNSPECIFIED", "MISSING", "EMPTY", "BLANK", "INVALID", "NOTAVAILABLE", "NOTKNOWN", "NOTFOUND"),
    *("NOMATCH", "NOID", "NOIDENTIFIER", "NODATA", "NOSOURCE", "NOCOUNTERPART", "TBD", "SKY", "STAR"),
    *("OBJECT", "TARGET", "SOURCE", "FIELD", "DUMMY", "PLACEHOLDER"),
}
YES, NO = frozenset({"TRUE", "T", "YES", "Y", "ON"}), frozenset({"FALSE", "F", "NO", "N", "OFF"})
# The largest integers of each width fill other tables.
LARGEST = frozenset({2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1})


def bare(text: str) -> str:
    """The letters and digits of a text, in capitals."""
    return "".join(c for c in text.upper() if c.isalnum())


def is_blank(text: str) -> bool:
    """Whether a cell is empty: no letter or digit ("-", "...", "?"), or a word such as "N/A"."""
    word = bare(text)
    return not word or word in BLANK


def is_nameless(text: str) -> bool:
    """Whether a text names no star: an empty cell, "Unknown", a number that is 0 or negative, 2147483647."""
    word = bare(text)
    if not word or word in NAMELESS or not word.strip("0"):
        return True
    if re.fullmatch(r"\s*-\s*\d+(\.\d*)?\s*", text):
        return True
    return bool(re.fullmatch(r"\s*\d+(\.0*)?\s*", text)) and int(text.split(".")[0]) in LARGEST


def is_fill(number: str) -> bool:
    """Whether a catalogue's number is one of the nines that fill integer columns: 999999 is what numpy, and
    so DESI, writes for a masked identifier."""
    return bool(re.fullmatch(r"9{3,}", number))


def truth(text: str) -> bool | None:
    """A word as a truth value: "True", "T", "yes" and "False", "F", "no" in any case; None for other text."""
    word = text.strip().upper()
    return True if word in YES else False if word in NO else None


def number(text: str) -> float | None:
    """The number that a cell writes ("000", "1e3", "0x10"); None for other text."""
    text = text.strip()
    try:
        return float(int(text, 16)) if re.fullmatch(r"0[xX][0-9a-fA-F]+", text) else float(text)
    except ValueError:
        return None


def integer(text: str) -> int | None:
    """The integer that a cell writes, exactly; None for other text."""
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        return int(text.split(".")[0])
    return int(text, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]+", text) else None
