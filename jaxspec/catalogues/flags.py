"""Which rows a table's own flags call suspect, whatever type the column has.

A flag is a boolean, a code or a mask of bits, as a number or as text. Every code counts, those below 0 too:
bit 31 of a signed column is a negative number. Cells without a value are safe, and are counted in the notes.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float, Int

from jaxspec.catalogues.cells import integer, is_blank, number, truth
from jaxspec.catalogues.columns import find_column, strings
from jaxspec.catalogues.spec import FlagRule, TableSpec
from jaxspec.errors import InputError

# Words of a text column that say that all is well.
GOOD = frozenset({"OK", "GOOD", "CLEAN", "FINE", "SAFE"})
# Integers up to which a float of each width is exact.
EXACT = {2: 2**11, 4: 2**24, 8: 2**53}


class Cells(NamedTuple):
    """A column of flags: its `texts` (None for a column of numbers), `numbers [n]` (NaN for what is none),
    `codes [n]` (exact integers; None where some cell is none) and where a cell has `no_value [n]`."""

    texts: tuple[str, ...] | None
    numbers: Float[np.ndarray, " n"]
    codes: Int[np.ndarray, " n"] | None
    no_value: Bool[np.ndarray, " n"]


def flagged(
    table: Table, rule: FlagRule, spec: TableSpec, entry: str = "flags", notes: list[str] | None = None
) -> Bool[np.ndarray, " n"]:
    """Rows that a rule calls suspect; what was not plain is added to `notes`.

    Raises `InputError` naming the column for a rule that its type cannot answer: bits of text or of
    fractions, limits of words, words of numbers.
    """
    found, column = find_column(table, rule.column, spec, entry)
    where = f"{spec.file}, {entry}, column {column}"
    cells = read_cells(found, column, spec.missing, where)
    bad = np.zeros(len(table), bool)
    if rule.bits:
        bad |= (_codes(cells, where) & np.int64(sum(1 << bit for bit in rule.bits))) != 0
    if rule.values:
        bad |= is_one_of(cells, rule.values, where)
    if rule.not_values:
        bad |= ~is_one_of(cells, rule.not_values, where)
    if rule.contains:
        if cells.texts is None:
            raise InputError(where, "numbers", "text, for contains:", "use bits: or values:")
        bad |= np.array([any(str(part) in text for part in rule.contains) for text in cells.texts], bool)
    for limit, beyond in ((rule.below, np.less), (rule.above, np.greater)):
        if limit is not None:
            if np.isnan(cells.numbers[~cells.no_value]).any():
                raise InputError(where, "text", "numbers, for bits and limits", "use contains: or values:")
            bad |= beyond(cells.numbers, limit)
    plain = not (rule.values or rule.not_values or rule.contains or rule.bits)
    plain = plain and rule.below is None and rule.above is None
    if plain:
        bad |= _not_zero(cells)
    if notes is not None:
        notes += _remarks(cells, bad, column, rule, plain)
    return bad


def read_cells(table: Table, name: str, missing: tuple[float, ...] = (), where: str = "") -> Cells:
    """The cells of a column as text, numbers and exact codes; numbers of `missing` have no value.

    Raises `InputError` for a column with more than one number a row.
    """
    column = table[name]
    if column.ndim != 1 or column.dtype.kind not in "SUObiuf":
        found = f"{column.dtype} of shape {column.shape}"
        raise InputError(where, found, "one flag a row", f"name an element of it, such as {name}[0]")
    texts, codes = None, None
    if column.dtype.kind in "SUO":
        texts = strings(table, name, blanks=False)
        none = np.array([is_blank(text) for text in texts], bool)
        said = [truth(text) for text in texts]
        values = [number(t) if s is None else float(s) for t, s in zip(texts, said, strict=True)]
        numbers = np.array([np.nan if v is None else v for v in values], float)
        exact = [integer(t) if s is None else int(s) for t, s in zip(texts, said, strict=True)]
        if all(c is not None or empty for c, empty in zip(exact, none, strict=True)):
            codes = np.array([_wrapped(c or 0) for c in exact], np.int64)
    else:
        none = np.array(np.ma.getmaskarray(np.ma.asarray(column)), bool)
        data = np.asarray(np.ma.getdata(np.ma.asarray(column)))
        numbers = np.where(none, np.nan, data.astype(np.float64))
        none = none | np.isnan(numbers)
        whole = np.where(none, 0, data)
        if data.dtype.kind in "biu":
            codes = whole.astype(np.int64)
        elif np.all((whole == np.round(whole)) & (np.abs(whole) <= EXACT.get(data.dtype.itemsize, 2**53))):
            codes = whole.astype(np.int64)
    for fill in missing:
        none = none | np.isclose(numbers, fill, rtol=1e-6, atol=1e-6)
    numbers = np.where(none, np.nan, numbers)
    return Cells(texts, numbers, None if codes is None else np.where(none, 0, codes), none)


def _wrapped(code: int) -> int:
    """A code of up to 64 bits as the signed integer with the same bits."""
    code &= 2**64 - 1
    return code - 2**64 if code >= 2**63 else code


def _codes(cells: Cells, where: str) -> Int[np.ndarray, " n"]:
    if cells.codes is None and cells.texts is not None:
        raise InputError(where, "text", "numbers, for bits and limits", "use contains: or values:")
    if cells.codes is None:
        raise InputError(
            where, "fractions, or floats too large to be exact", "integers, for bits", "use above: or values:"
        )
    return cells.codes


def is_one_of(cells: Cells, values: tuple[Any, ...], where: str) -> Bool[np.ndarray, " n"]:
    """Cells that are one of `values`: text as it is written, numbers by value, true and false by what the
    cell says. Raises `InputError` for a word asked of a column of numbers."""
    out = np.zeros(len(cells.numbers), bool)
    for value in values:
        if isinstance(value, (bool, int, float)):
            out |= cells.numbers == float(value)
            continue
        if cells.texts is not None:
            out |= np.array([text == str(value).strip() for text in cells.texts], bool)
            continue
        said = truth(str(value))
        wanted = number(str(value)) if said is None else float(said)
        if wanted is None:
            raise InputError(
                where, "numbers", f"text, to hold {str(value)!r}", "name numbers, as values: [1]"
            )
        out |= cells.numbers == wanted
    return out


def _not_zero(cells: Cells) -> Bool[np.ndarray, " n"]:
    """Cells that say anything but "nothing is wrong"."""
    bad = ~cells.no_value & (cells.numbers != 0.0)
    if cells.texts is not None:
        bad &= np.array([text.strip().upper() not in GOOD for text in cells.texts], bool)
    return bad


def _remarks(cells: Cells, bad: np.ndarray, column: str, rule: FlagRule, plain: bool) -> list[str]:
    out = []
    if cells.texts is None and cells.no_value.any():
        what = "suspect" if bad[cells.no_value].all() else "safe"
        out.append(f"flags: {int(cells.no_value.sum())} rows without a value of {column} taken as {what}")
    if plain and cells.texts is not None:
        words = Counter(
            t
            for t, x, none in zip(cells.texts, cells.numbers, cells.no_value, strict=True)
            if np.isnan(x) and not none
        )
        suspect = [f"{t!r} ({k} rows)" for t, k in words.most_common() if t.strip().upper() not in GOOD]
        safe = [f"{t!r} ({k} rows)" for t, k in words.most_common() if t.strip().upper() in GOOD]
        for what, of in (("suspect", suspect), ("safe", safe)):
            if of:
                more = f" and {len(of) - 3} other words" if len(of) > 3 else ""
                out.append(f"flags: words of {column} taken as {what}: {', '.join(of[:3])}{more}")
    if plain or rule.bits:
        negative = cells.numbers < 0
        lowest = -(2.0**31), -(2.0**15), -(2.0**7), -(2.0**63)
        odd = negative & ~np.isin(cells.numbers, lowest)
        if odd.any():
            value = f"{cells.numbers[odd][0]:g}"
            out.append(
                f"flags: {int(odd.sum())} rows of {column} below 0, such as {value}, taken as codes; list "
                f"missing: [{value}] if it stands for no value"
            )
    return out
