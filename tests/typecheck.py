"""The decorator that the import hook puts on every annotated function of `jaxspec` while the tests run."""

from beartype import BeartypeConf, beartype

# The tower lets an int stand where a float is asked for, as Python's own type rules do.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
