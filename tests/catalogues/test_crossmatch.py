"""Which rows are one star, on catalogues made for the purpose and on the published ones."""

import numpy as np
import pytest

from jaxspec.catalogues.crossmatch import crossmatch, far
from jaxspec.catalogues.read import read_survey
from jaxspec.catalogues.spec import parse_file
from jaxspec.errors import InputError
from tests.tables import TWO, catalogue


def test_designations_join_in_a_chain_through_a_third_catalogue():
    a = catalogue("a", hip=[1, 2, 3])
    b = catalogue("b", gaia=np.array([30, 10]), name=["HD 3", "HD 1"])
    c = catalogue("c", hip=["HIP 3", "HIP 9"], name=["HD 3", "HD 9"])
    match = crossmatch([a, b, c])
    assert match.star[0].tolist() == [0, 1, 2]
    assert match.star[1].tolist() == [2, 3] and match.star[2].tolist() == [2, 4]
    assert match.n_stars == 5 and match.findings == ()
    np.testing.assert_array_equal(match.common(), [[3, 1, 1], [1, 2, 1], [1, 1, 2]])


def test_positions_join_at_a_common_epoch():
    # Barnard's star moves by 10.4" a year: 166" from 2000 to 2016.
    here = catalogue("here", ra=np.array([269.4520]), dec=np.array([4.6933]), name=["Barnard"])
    later = dict(ra=np.array([269.448503]), dec=np.array([4.739420]), epoch=2016.0)
    moving = catalogue("moving", **later, pmra=np.array([-801.6]), pmdec=np.array([10362.4]))
    still = catalogue("still", **later)
    assert crossmatch([here, moving]).n_stars == 1
    assert crossmatch([moving, here]).n_stars == 1
    assert crossmatch([here, still]).n_stars == 2


def test_positions_do_not_join_what_designations_or_magnitudes_tell_apart():
    where = dict(ra=np.array([10.0]), dec=np.array([-20.0]))
    near = dict(ra=np.array([10.0001]), dec=np.array([-20.0]))
    assert crossmatch([catalogue("a", **where), catalogue("b", **near)]).n_stars == 1
    match = crossmatch([catalogue("a", hip=[5], **where), catalogue("b", hip=[6], **near)])
    assert match.n_stars == 2
    assert [f.kind for f in match.findings] == ["refused"] and "hip 5 and 6" in match.findings[0].detail
    bright = catalogue("a", magnitude=np.array([5.0]), band="H", **where)
    faint = catalogue("b", magnitude=np.array([9.0]), band="H", **near)
    other = catalogue("b", magnitude=np.array([9.0]), band="V", **near)
    match = crossmatch([bright, faint])
    assert match.n_stars == 2 and "H differs by 4.0 mag" in match.findings[0].detail
    assert crossmatch([bright, other]).n_stars == 1


def test_the_nearest_of_several_is_taken_and_reported():
    a = catalogue("a", ra=np.array([10.0]), dec=np.array([0.0]))
    b = catalogue("b", ra=np.array([10.0003, 10.0001]), dec=np.array([0.0, 0.0]), name=["far", "near"])
    match = crossmatch([a, b])
    assert match.star[1].tolist() == [1, 0]
    # Two rows of one table within the radius, of different names, stay apart: that is said too.
    assert [f.kind for f in match.findings] == ["ambiguous", "refused"]


def test_repeats_and_components():
    a = catalogue("a", hip=[7, 7, 8], gaia=np.array([70, 70, 80]))
    match = crossmatch([a])
    assert match.star[0].tolist() == [0, 0, 1] and match.counts() == {"repeat": 1}
    pair = catalogue("pair", hip=[7, 7], gaia=np.array([70, 71]))
    match = crossmatch([pair, catalogue("other", gaia=np.array([71]))])
    assert match.star[0].tolist() == [0, 1] and match.star[1].tolist() == [1]
    assert match.counts() == {"refused": 1} and "gaia 70 and 71" in match.findings[0].detail
    assert crossmatch([catalogue("a", hip=["5", "5B"])]).n_stars == 2


def test_designations_that_disagree_across_catalogues_are_joined_and_reported():
    # A source_id may change between releases; the Hipparcos number does not.
    match = crossmatch(
        [catalogue("a", hip=[7], gaia=np.array([70])), catalogue("b", hip=[7], gaia=np.array([71]))]
    )
    assert match.n_stars == 1 and match.counts() == {"conflict": 1}


def test_matches_that_disagree_are_reported():
    rng = np.random.default_rng(1)
    n = 60
    labels = np.column_stack([rng.normal(5500, 300, n), rng.normal(0, 0.2, n)])
    other = labels + rng.normal(0, [60.0, 0.05], (n, 2)) + [100.0, 0.0]
    other[17, 0] += 1500.0
    ra = np.linspace(0, 300, n)
    a = catalogue("a", labels, hip=np.arange(1, n + 1), ra=ra, dec=np.zeros(n))
    b = catalogue("b", other, hip=np.arange(1, n + 1), ra=ra + 0.02 * (np.arange(n) == 40), dec=np.zeros(n))
    match = crossmatch([a, b])
    assert [(f.kind, f.a[1]) for f in match.findings] == [("position", 40), ("label", 17)]
    assert np.flatnonzero(match.doubtful[1]).tolist() == [17, 40]


def test_few_common_stars_are_judged_by_absolute_differences():
    assert far(np.array([50.0, 1200.0, np.nan]), 1000.0).tolist() == [1]
    assert far(np.r_[np.zeros(30), 900.0], 1000.0).tolist() == [30]


def test_wrong_requests_are_refused():
    with pytest.raises(InputError, match="catalogues"):
        crossmatch([])
    with pytest.raises(InputError, match="radius"):
        crossmatch([catalogue("a", hip=[1])], radius=0.0)
    with pytest.raises(InputError, match=r"identifiers\.name: found 'M67' in 300 rows"):
        crossmatch([catalogue("a", name=["M 67"] * 300)])


# --- published tables


def test_published_catalogues_share_the_stars_known_to_be_common(data):
    folder = data / "catalogues"
    content = [
        {"name": "bensby", "file": "bensby2014.fits", "columns": {"teff": "Teff", "fe_h": "Fe_H"},
         "errors": {"teff": "e_Teff", "fe_h": "e_Fe_H"}, "identifiers": {"hip": "HIP"}},
        {"name": "harps", "file": "delgadomena2017_harps.fits", "columns": {"teff": "Teff", "fe_h": "feh"},
         "errors": {"teff": "erTeff", "fe_h": "erfeh"}, "identifiers": {"hip": "HIP", "name": "Star"}},
    ]  # fmt: skip
    tables = parse_file(content, folder).tables
    by_number = [read_survey(table, TWO) for table in tables]
    assert crossmatch(by_number).common()[0, 1] == 79
    # The same stars are found from positions alone.
    content[0]["identifiers"] = content[1]["identifiers"] = {"ra": "_RAJ2000", "dec": "_DEJ2000"}
    by_position = [read_survey(table, TWO) for table in parse_file(content, folder).tables]
    match = crossmatch(by_position)
    assert match.common()[0, 1] == 79
    pairs = {(int(by_number[0].identifiers.keys["hip"][i]), j) for i, j in _rows(match)}
    assert pairs == {
        (int(by_number[0].identifiers.keys["hip"][i]), j) for i, j in _rows(crossmatch(by_number))
    }


def _rows(match):
    where = {int(star): j for j, star in enumerate(match.star[1])}
    return [(i, where[int(star)]) for i, star in enumerate(match.star[0]) if int(star) in where]


def test_a_designation_of_rows_far_apart_is_a_placeholder():
    """Ten rows degrees apart under one name that no list knows stay ten stars; close ones are one."""
    ra = np.linspace(10.0, 100.0, 10)
    a = catalogue("a", name=["sin nombre"] * 10, ra=ra, dec=np.zeros(10))
    b = catalogue("b", name=["sin nombre", "x"], ra=np.array([50.0, 60.0]), dec=np.array([20.0, 20.0]))
    match = crossmatch([a, b])
    assert match.n_stars == 12 and match.counts() == {"refused": 9}
    assert "10.0 deg apart: no star's name" in match.findings[0].detail
    visits = catalogue("v", name=["x"] * 3, ra=10.0 + np.arange(3) / 3600, dec=np.zeros(3))
    assert crossmatch([visits]).n_stars == 1
