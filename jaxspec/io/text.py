"""Spectra as text: columns of wavelength, flux and error, separated by blanks, commas, semicolons or bars.

A line that starts with `#`, `%`, `;` or `!` is a comment. Where a line of column names stands before the
numbers (a comment or not), the names decide what each column holds, in any order and number; without one, the
columns are wavelength, flux and (one-sigma) error.
"""

import re

import numpy as np

from jaxspec.errors import InputError
from jaxspec.io.arrays import Array, combine
from jaxspec.io.names import CERTAIN, ERRORS, MASKS, Name, Role, understand
from jaxspec.io.raw import RawSpectrum
from jaxspec.io.wcs import to_angstrom

COMMENTS = ("#", "%", ";", "!")
SEPARATORS = (",", ";", "|")
PLAIN = (Name("column 1", Role.WAVE), Name("column 2", Role.FLUX), Name("column 3", Role.SIGMA))
UNDEFINED = frozenset(("", "--", "-", "nan", "null", "none", "n/a", "na", "indef", "masked"))
LOGICAL = {"true": 1.0, "t": 1.0, "yes": 1.0, "false": 0.0, "f": 0.0, "no": 0.0}
# Words of a comment that contradict "wavelength, flux, one-sigma error".
CONTRARY = re.compile(
    r"(?i)\b(inv(erse)?[ _]?var(iance)?|ivar|variance|var|mask|quality|flags?|s/n|snr|"
    r"log[ _]?(lam|wave)\w*)\b(?!\s*[=:~]?\s*\d)"  # "S/N 100" is a fact, no column
)


def read_text(data: bytes, where: str, unit: str | None = None) -> RawSpectrum:
    """Wavelength, flux, errors and masks of a text spectrum.

    Wavelengths are in the unit that their name states (`wavelength [nm]`), in `unit`, or in A; air or vacuum
    is what their name or a comment says. Raises `InputError` naming the line for anything but numbers, a
    changing number of columns or a last line that was cut off, and for names without a wavelength and a flux.
    """
    lines = _lines(data, where)
    first = next((i for i, line in enumerate(lines) if _is_numbers(line)), len(lines))
    separator = next((s for s in SEPARATORS if first < len(lines) and s in lines[first]), None)
    before = [line for line in lines[:first] if line.strip()]
    n_columns = len(_split(lines[first], separator)) if first < len(lines) else 0
    names = _names(lines, first, separator, n_columns, where)
    rows, last = _rows(lines, first, separator, names, where)
    widths = [len(lines[i].rstrip()) for i in last]
    if len(set(widths[:-1])) == 1 and widths[-1] < widths[0] and not data.endswith(b"\n"):
        raise InputError(
            f"{where} line {len(lines)}",
            "a line that is cut off",
            "a complete last line",
            "the file is truncated: fetch it again",
        )
    comments = [line for line in before if line.lstrip().startswith(COMMENTS)]
    if names is None:
        _check_comments(comments, n_columns, where)
    columns = list(names or PLAIN[:n_columns])
    return _spectrum(np.asarray(rows, np.float64), columns, names is not None, comments, where, unit)


def _spectrum(
    table: np.ndarray, names: list[Name], named: bool, comments: list[str], where: str, unit: str | None
) -> RawSpectrum:
    wave = _one(names, (Role.WAVE, Role.LOG_WAVE), "wavelength", where)
    index = _one(names, (Role.FLUX,), "flux", where)
    name, flux = names[wave], table[:, index]
    several = sum(n.role == Role.FLUX for n in names) > 1
    arrays, used = [], {wave, index}
    for i, column in enumerate(names):
        if column.role in ERRORS + MASKS and (column.set == names[index].set or not several):
            label = f"{where} column {i + 1}" + (f" ({column.text})" if named else "")
            arrays.append(Array(column.text, column.role, table[:, i], label))
            used.add(i)
    ivar, quality, empty = combine(flux, arrays)
    unused = [f"column {n}" for n in empty]
    unused += [
        f"column {n.text!r}" + (" (a second spectrum)" if n.role == Role.FLUX else "")
        for i, n in enumerate(names)
        if i not in used and n.text
    ]
    stated = "Angstrom" if name.role == Role.LOG_WAVE else name.unit or _ecsv_unit(comments, name.text)
    if stated and unit and to_angstrom(stated, where) != to_angstrom(unit, where):
        raise InputError(
            where,
            f"unit {stated!r} in the name of column {name.text!r} and unit={unit!r}",
            "one of them",
            "leave unit= out",
        )
    notes = [] if stated or unit else ["no wavelength unit in a text file: read as Angstrom"]
    wavelength = table[:, wave]
    if name.role == Role.LOG_WAVE:
        wavelength = 10.0 ** np.clip(wavelength, -300.0, 300.0)
    medium = name.medium or _medium(comments)
    if medium and not name.medium:
        notes.append(f"wavelengths in {medium}, as a comment says")
    return RawSpectrum(
        product="text",
        wavelength=wavelength * to_angstrom(stated or unit or "Angstrom", where),
        flux=flux,
        ivar=ivar,
        quality=quality,
        medium=medium,
        notes=notes,
        unused=unused,
    )


def _lines(data: bytes, where: str) -> list[str]:
    """The lines; letters beyond ASCII are legal in comments and names alone."""
    for mark, coding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            data = data.decode(coding, errors="replace").encode("utf-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines, numbers = [], False
    for number, line in enumerate(re.split(rb"\r\n|\n|\r", data), start=1):
        try:
            text = line.decode("ascii")
        except UnicodeDecodeError as error:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                text = line.decode("latin-1")
            if numbers and not text.lstrip().startswith(COMMENTS):
                raise InputError(
                    f"{where} line {number}",
                    f"byte {line[error.start]:#04x}",
                    "numbers",
                    "the file is damaged or of a kind that is not supported: repair the line",
                ) from None
        numbers = numbers or _is_numbers(text)
        lines.append(text)
    return lines


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return [part.strip("\"'") for part in line.split()]
    # An empty cell must stay visible as one: "5330.0,,0.01" is not two columns.
    parts = [part.strip().strip("\"'").strip() for part in line.strip().split(separator)]
    return parts[1:-1] if separator == "|" and not parts[0] and not parts[-1] else parts


def _is_numbers(line: str) -> bool:
    """Whether a line holds numbers: its first cell, or the second of a table with a column of row names."""
    stripped = line.strip()
    if not stripped or stripped.startswith(COMMENTS):
        return False
    cell = next((c for c in re.split(r"[\s,;|]+", stripped) if c), "").strip("\"'")
    return bool(re.match(r"[-+.]?\d", cell)) or (cell != "" and _undefined(cell))


def _undefined(cell: str) -> bool:
    return cell.lower() in UNDEFINED


def _names(
    lines: list[str], first: int, separator: str | None, n: int, where: str
) -> tuple[Name, ...] | None:
    """The columns' names from the last line before the numbers that holds them; None without one."""
    for number in range(first - 1, -1, -1):
        comment = lines[number].lstrip().startswith(COMMENTS)
        line = lines[number].strip().lstrip("#%;!").strip()
        if not line:
            continue
        guesses = [_split(line, s) for s in dict.fromkeys((separator, None, *SEPARATORS))]
        # Units in brackets may stand after a blank: "wavelength (nm)".
        guesses.append(re.sub(r"\s+([(\[])", r"\1", line).split())
        for cells in guesses:
            understood = tuple(understand(cell) for cell in cells)
            if len(cells) == n and sum(u.role is not None for u in understood) >= 2:
                return understood
        if not comment:
            # A line of numbers or of names, and none of them fits.
            raise InputError(
                f"{where} line {number + 1}",
                repr(lines[number][:80]),
                f"names of the {n} columns, such as 'wavelength flux error'" if n else "numbers",
                "write the names (WAVE, FLUX, ERR, VAR, IVAR or MASK) of all columns, or delete the line",
            )
    return None


def _rows(
    lines: list[str], first: int, separator: str | None, names: tuple[Name, ...] | None, where: str
) -> tuple[list[list[float]], list[int]]:
    rows: list[list[float]] = []
    places: list[int] = []
    masks = {i for i, n in enumerate(names or ()) if n.role in MASKS}
    needed = {i for i, n in enumerate(names or PLAIN) if n.role not in (None, Role.OTHER)}
    for number, line in enumerate(lines[first:], start=first + 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(COMMENTS):
            continue
        parts = _split(stripped, separator)
        expected = len(rows[0]) if rows else None
        if names is None and len(parts) not in (2, 3) and not expected:
            raise InputError(
                f"{where} line {number}",
                f"{len(parts)} columns" if len(parts) > 1 else repr(line[:80]),
                "wavelength, flux and (optional) error",
                "repair the line, or write the columns' names in a first line: wavelength flux error ...",
            )
        if expected and len(parts) != expected:
            raise InputError(
                f"{where} line {number}",
                f"{len(parts)} columns",
                f"{expected} columns as above",
                "repair the line",
            )
        try:
            rows.append([_number(p, names is not None, i in masks, i in needed) for i, p in enumerate(parts)])
        except ValueError:
            raise InputError(
                f"{where} line {number}",
                repr(line[:80]),
                "numbers: wavelength, flux, error",
                "repair the line",
            ) from None
        places.append(number - 1)
    if not rows:
        raise InputError(
            where, "no numbers", "lines of wavelength, flux, error", "check that this is a spectrum"
        )
    return rows, places


def _number(cell: str, named: bool, mask: bool, needed: bool) -> float:
    if mask and cell.lower() in LOGICAL:
        return LOGICAL[cell.lower()]
    if (named or cell) and _undefined(cell):
        return np.nan
    try:
        return float(cell)
    except ValueError:
        if needed:
            raise
        return np.nan


def _one(names: list[Name], roles: tuple[Role, ...], what: str, where: str) -> int:
    """Position of the column of a role, the surest name first."""
    found = [i for i, n in enumerate(names) if n.role in roles]
    if not found:
        raise InputError(
            where,
            f"no column of {what} among {', '.join(repr(n.text) for n in names)}",
            "columns named wavelength and flux",
            f"rename the column that holds it {what}",
        )
    if what == "flux":
        found.sort(key=lambda i: names[i].rank)
        if len(found) > 1 and names[found[0]].rank in (names[found[1]].rank, len(CERTAIN)):
            listed = ", ".join(names[i].text for i in found)
            raise InputError(where, f"several columns of flux ({listed})", "one", "name the one to use flux")
    return found[0]


def _check_comments(comments: list[str], n_columns: int, where: str) -> None:
    """Raise when a comment hints at another meaning of three unnamed columns than the usual one."""
    if n_columns < 3:
        return
    for line in comments:
        if found := CONTRARY.search(line):
            raise InputError(
                where,
                f"the comment {line.strip()[:80]!r}, in which {found.group(0)!r} may be a column",
                "a line with the names of all columns",
                "write the names before the numbers, such as 'wavelength flux error' or "
                "'wavelength flux ivar', or delete the comment",
            )


def _ecsv_unit(comments: list[str], column: str) -> str | None:
    """Unit of a column in the header of an ECSV file."""
    for line in comments:
        if "name:" in line and re.search(rf"name:\s*['\"]?{re.escape(column)}['\"]?\s*[,}}]", line):
            if unit := re.search(r"unit:\s*['\"]?([A-Za-z0-9.]+)", line):
                return unit.group(1)
    return None


def _medium(comments: list[str]) -> str | None:
    """Air or vacuum as a comment says; None when comments say nothing or both."""
    text = " ".join(comments).lower()
    words = {"vacuum" if w.startswith("vac") else "air" for w in re.findall(r"\b(?:vacuum|vac|air)\b", text)}
    return words.pop() if len(words) == 1 else None
