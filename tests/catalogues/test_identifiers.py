"""Identifiers written in many ways are the same identifier; those that cannot be one are refused by name."""

import numpy as np
import pytest

from jaxspec.catalogues.identifiers import canonical, check_release, identifiers, recognise
from jaxspec.errors import InputError


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("hip", "57051", "57051"),
        ("hip", "HIP57051", "57051"),
        ("hip", "HIP 57051", "57051"),
        ("hip", "hip 057051", "57051"),
        ("hip", "57051.0", "57051"),
        ("hip", "HIP 71683 A", "71683"),
        ("hip", "71681B", "71681B"),
        ("hip", "", ""),
        ("hip", "0", ""),
        ("hip", "--", ""),
        ("gaia", "Gaia DR3 3592683243377269248", "3592683243377269248"),
        ("gaia", "3592683243377269248", "3592683243377269248"),
        ("tmass", "2M03242060+0758421", "03242060+0758421"),
        ("tmass", "J18583782+4822494", "18583782+4822494"),
        ("tmass", "2MASS J11414506-0641043", "11414506-0641043"),
        ("name", "HD 101644", "HD101644"),
        ("name", "  alf  Cen A", "ALFCENA"),
    ],
)
def test_canonical_forms(kind, text, expected):
    assert canonical(kind, text) == expected


@pytest.mark.parametrize(
    ("kind", "text", "match"),
    [
        ("hip", "HD 10700", "Hipparcos number such as"),
        ("hip", "3592683243377269248", "1 to 120404"),
        ("gaia", "HIP 3", "source_id"),
        ("tmass", "alfCenB", "2MASS designation"),
    ],
)
def test_what_cannot_be_an_identifier_is_refused(kind, text, match):
    with pytest.raises(InputError, match=match):
        canonical(kind, text, "table")


def test_names_that_are_designations_of_another_catalogue():
    assert recognise("HIP 57051") == ("hip", "57051")
    assert recognise("Gaia DR2 42") == ("gaia_dr2", "42")
    assert recognise("2MASS J11414506-0641043") == ("tmass", "11414506-0641043")
    assert recognise("HD101644") == ("name", "HD101644")
    who = identifiers(2, name=["HIP 5", "HD 1"])
    assert list(who.keys["hip"]) == ["5", ""] and who.label(1) == "HD1" and who.label(0) == "HIP 5"


def test_no_identifier_in_all_its_forms():
    hip = np.ma.MaskedArray([5, 7, 0, -2147483648, -9999], mask=[False, True, False, False, False])
    assert list(identifiers(5, hip=hip).keys["hip"]) == ["5", "", "", "", ""]
    assert list(identifiers(3, hip=np.array([5.0, np.nan, 6.0])).keys["hip"]) == ["5", "", "6"]
    assert list(identifiers(2, gaia=np.array([b"12", b""])).keys["gaia"]) == ["12", ""]
    assert identifiers(2, name=["a", ""]).named.tolist() == [True, False]


def test_large_gaia_numbers_are_exact_or_refused():
    wanted = 3592683243377269249  # not a multiple of what a float can hold
    assert identifiers(1, gaia=np.array([wanted])).keys["gaia"][0] == str(wanted)
    with pytest.raises(InputError, match=r"identifiers\.gaia.*64-bit"):
        identifiers(1, gaia=np.array([float(wanted)]))


def test_a_few_foreign_cells_become_names_and_many_are_an_error():
    cells = ["03242060+0758421"] * 39 + ["alfCenB"]
    who = identifiers(40, tmass=cells)
    assert who.keys["name"][39] == "ALFCENB" and who.keys["tmass"][39] == ""
    assert "1 cells such as 'alfCenB'" in who.notes[0]
    with pytest.raises(InputError, match=r"identifiers\.hip row 0.*'HD 1'"):
        identifiers(3, hip=["HD 1", "HD 2", "HIP 3"])


def test_kinds_and_lengths_are_checked():
    with pytest.raises(InputError, match="unknown kind"):
        identifiers(1, kic=["KIC 1"])
    with pytest.raises(InputError, match="one for each row"):
        identifiers(2, name=["a"])


def test_other_releases_are_other_identifiers():
    who = identifiers(3, gaia=["Gaia DR2 5", "Gaia DR3 6", "7"])
    assert list(who.keys["gaia"]) == ["", "6", "7"] and list(who.keys["gaia_dr2"]) == ["5", "", ""]
    assert "1 cells name another Gaia release" in who.notes[0]
    who = identifiers(2, gaia_dr2=["Gaia EDR3 5", "DR2 8"])
    assert list(who.keys["gaia"]) == ["5", ""] and list(who.keys["gaia_dr2"]) == ["", "8"]
    for text in ("Gaia DR1 5", "Gaia DR4 5"):
        with pytest.raises(InputError, match="differ between releases"):
            identifiers(2, gaia=[text, text])
    with pytest.raises(InputError, match=r"identifiers\.gaia_dr2"):
        canonical("gaia", "Gaia DR2 5")


@pytest.mark.parametrize(
    ("kind", "column", "said", "fix"),
    [
        ("gaia", "dr2_source_id", "", "gaia_dr2: dr2_source_id"),
        ("gaia", "GaiaDR2", "", "gaia_dr2: GaiaDR2"),
        ("gaia", "Source", "Gaia DR2 unique identifier", "gaia_dr2: Source"),
        ("gaia_dr2", "gaiaedr3_source_id", "", "gaia: gaiaedr3_source_id"),
        ("gaia", "gaia_dr1", "", "name: gaia_dr1"),
    ],
)
def test_a_column_of_another_release_is_refused(kind, column, said, fix):
    with pytest.raises(InputError, match=fix):
        check_release(kind, column, said, "t.fits, identifiers")
    for name in ("source_id", "gdr3_source_id", "GAIAEDR3_SOURCE_ID", "apogee_dr17_gaia"):
        check_release("gaia", name, "", "t.fits")


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("gaia", np.array([999999, 999999, 5])),
        ("gaia", np.array([2**63 - 1, -9999, 5])),
        ("hip", np.array([999999, 2147483647, 5])),
        ("name", ["Unknown", "-", "5"]),
        ("tmass", ["2M00000000+0000000", "not available", "2M00000005+0000000"]),
        ("name", ["UNKNOWN", "no name", "HD 5"]),
    ],
)
def test_placeholders_name_no_star(kind, cells):
    who = identifiers(3, **{kind: cells})
    assert [bool(key) for key in who.keys[kind]] == [False, False, True]
    assert not who.named[:2].any()
