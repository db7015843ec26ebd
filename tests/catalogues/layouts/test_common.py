"""What all layouts share."""

import pytest
from astropy.table import Table

from jaxspec.errors import InputError
from tests.tables import layout


def test_a_table_that_is_not_that_surveys(tmp_path):
    with pytest.raises(InputError, match=r"format galah.*none of its columns"):
        layout(tmp_path, Table({"a": [1.0]}), "galah")
