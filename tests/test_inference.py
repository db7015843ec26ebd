"""One pipeline: what a notebook gets is what the command writes."""

import numpy as np
import pytest

import jaxspec
from jaxspec.errors import InputError
from jaxspec.inference import InferenceConfig, refinement
from jaxspec.io import read_table


def test_refinements_are_known_by_name():
    assert [refinement(x) for x in (True, False, "none", "robust", "exact")] == [
        *("robust", "none", "none", "robust", "exact")
    ]
    with pytest.raises(InputError, match="refine: found 'more'; expected none, robust or exact"):
        InferenceConfig(refine="more")
    with pytest.raises(InputError, match="n_draws"):
        InferenceConfig(n_draws=0)


@pytest.mark.slow
def test_five_lines_give_what_the_command_writes(data, tmp_path):
    """The shipped weights on real files: labels, errors and flags are equal to the last bit."""
    from jaxspec import cli

    files = [*(data / "spectra" / "giraffe").glob("*.fit"), data / "spectra" / "hr10" / "sun_uves.txt"]
    command = ["infer", *map(str, files), "-o", str(tmp_path), "plots.spectra=0", "plots.corners=0"]
    assert cli.main(command) == 0
    written = read_table(tmp_path / "labels.fits")

    spectra, refused = jaxspec.read_spectra(files)
    result = jaxspec.infer(spectra)
    table = result.table()
    assert refused == [] and len(result) == 2
    for name in table.colnames:
        np.testing.assert_array_equal(np.asarray(table[name]), np.asarray(written[name]), err_msg=name)
    np.testing.assert_array_equal(np.asarray(written["flags"]), result.flags)
    np.testing.assert_allclose(written["e_teff"].value, result.errors[:, 0], rtol=1e-6)
    np.testing.assert_allclose(written["teff"].value, result.labels[:, 0], rtol=1e-6)
