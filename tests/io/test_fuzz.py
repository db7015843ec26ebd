"""Files drawn from layout x error name x unit x medium x axis x damage, with a known truth: a file is read
rightly, or it is refused or told by name. None is silently wrong.

"Told" means that `meta` says it: an assumption about the medium or the noise, and the arrays not used.
"""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import Assume, read_spectrum
from jaxspec.spectra import vacuum_to_air

N = 400
ASSUME = Assume(medium="air", frame="unknown", estimate_noise=True)
LAYOUTS = ("image", "extensions", "cells", "rows", "variable", "blanks", "csv", "comment", "semicolon")
ERRORS = {
    "sigma": "ERR ERROR SIGMA STD UNCERT UNCERTAINTY FLUX_ERROR flux_err e_flux noise ERRS stddev fluxerr",
    "variance": "VAR VARIANCE flux_var sigma_sq variance_flux fluxvar",
    "ivar": "IVAR INVVAR flux_ivar inverse_variance ivar_flux InverseVariance",
    "unknown": "BLAH ERR2 weight SNR COL3",
    "none": "-",
}
MASKS = ("", "", "MASK", "QUAL", "DQ", "bad_pixels", "flags", "GOOD")
AXES = ("CDELT", "CD", "log10", "ln", "image")
UNITS = {"Angstrom": 1.0, "nm": 0.1, "um": 1e-4}
MEDIA = ("air", "vacuum", None)
DAMAGES = (
    *("none", "none", "none", "none", "nan flux", "inf flux", "nan error", "inf error", "negative error"),
    *("zero error", "null", "fill", "sky first", "error first", "second flux", "shuffled", "blank card"),
    *("byte-order mark", "latin comment", "errors agree", "errors contradict", "negative errors"),
    *("inverted mask", "no unit"),
)


class Case:
    """One drawn file: what is true, what is written, and whether a reader has no excuse to refuse it."""

    def __init__(self, seed: int):
        rng = np.random.default_rng([20261130, seed])
        self.layout, self.unit, self.medium = (
            LAYOUTS[rng.integers(len(LAYOUTS))],
            list(UNITS)[rng.integers(3)],
            MEDIA[rng.integers(3)],
        )
        self.kind = ("sigma", "sigma", "variance", "ivar", "unknown", "none")[rng.integers(6)]
        names = ERRORS[self.kind].split()
        self.error_name = names[rng.integers(len(names))]
        self.mask_name, self.damage = MASKS[rng.integers(len(MASKS))], DAMAGES[rng.integers(len(DAMAGES))]
        self.axis = AXES[rng.integers(len(AXES))] if self.layout in ("image", "extensions") else "column"
        level = 10.0 ** rng.uniform(-1, 4)
        wavelength = 5400.0 + 0.05 * np.arange(N)
        if self.axis in ("log10", "ln"):
            wavelength = 5400.0 * np.exp(1e-5 * np.arange(N))
        sigma = level * rng.uniform(0.005, 0.02) * (1 + 0.2 * np.sin(np.arange(N) / 50))
        lines = sum(0.4 * np.exp(-0.5 * ((wavelength - c) / 0.3) ** 2) for c in rng.uniform(5401, 5419, 6))
        self.wavelength, self.sigma = wavelength, sigma
        self.flux = level * np.clip(1 - lines, 0.2, None) + sigma * rng.normal(size=N)
        self.bad = np.zeros(N, bool)
        self._arrays(rng)

    def __repr__(self) -> str:
        return (
            f"{self.layout} ({self.axis}), {self.kind} as {self.error_name!r}, mask {self.mask_name!r}, "
            f"{self.unit}, {self.medium}, {self.damage}"
        )

    @property
    def wrong(self) -> bool:
        """Whether the file contradicts itself or lacks what it takes: it must be refused."""
        return (
            (self.damage in ("errors contradict", "negative errors") and self.kind not in ("none", "unknown"))
            or (self.damage == "inverted mask" and self.mask_name != "")
            or (self.damage == "no unit" and self.unit != "Angstrom")
        )

    @property
    def text(self) -> bool:
        return self.layout in ("blanks", "csv", "comment", "semicolon")

    def _arrays(self, rng: np.random.Generator) -> None:
        """The arrays to be written, by name, in order; `bad` are the pixels that must not be used."""
        flux, sigma = self.flux.copy(), self.sigma.copy()
        part = slice(start := int(rng.integers(20, N - 60)), start + int(rng.integers(1, 30)))
        has_error = self.kind not in ("none", "unknown")
        damage = self.damage
        if damage in ("nan flux", "inf flux"):
            flux[part] = {"nan flux": np.nan, "inf flux": np.inf}[damage]
            self.bad[part] = True
        if damage == "fill":
            flux[part] = -1e30
            self.bad[part] = True
        values = {
            "sigma": sigma,
            "variance": sigma**2,
            "ivar": sigma**-2.0,
            "unknown": 1.0 / sigma,
            "none": None,
        }[self.kind]
        if values is not None and damage.endswith(" error"):
            wrong = {"nan": np.nan, "inf": np.inf, "negative": -1.0, "zero": 0.0}[damage.split()[0]]
            values = values.copy()
            values[part] = wrong
            if has_error:
                self.bad[part] = True
                flux[part] = rng.uniform(0, 5, len(flux[part])) * np.median(self.flux)
        if damage == "negative errors" and has_error:
            values = -values
        arrays = {"FLUX": flux}
        if damage in ("errors agree", "errors contradict") and has_error:
            other = "STD" if self.kind != "sigma" else "IVAR"
            scale = 1.0 if damage == "errors agree" else 3.0
            arrays[other] = scale * (sigma if other == "STD" else sigma**-2.0)
        if values is not None:
            arrays[self.error_name] = values
        if self.mask_name:
            masked = np.zeros(N, bool)
            masked[N - 15 : N - 5] = True
            self.bad |= masked
            flux[masked] = 7.0 * np.median(self.flux)
            inverted = (self.mask_name == "GOOD") != (damage == "inverted mask")
            arrays[self.mask_name] = (masked != inverted).astype(np.int16)
        if damage == "sky first":
            arrays = {"SKY": 0.3 * self.flux, **arrays}
        if damage == "error first" and values is not None:
            arrays = {self.error_name: values, **arrays}
        if damage == "second flux":
            arrays["NORM_FLUX"] = self.flux / np.median(self.flux)
        if damage == "shuffled":
            arrays = {k: arrays[k] for k in rng.permutation(list(arrays))}
        self.arrays = arrays
        self.part = part

    def write(self, folder):
        path = folder / ("s.txt" if self.text else "s.fits")
        axis = self.wavelength * UNITS[self.unit]
        (self._write_text if self.text else self._write_fits)(path, axis)
        return path

    def _write_text(self, path, axis) -> None:
        wave = "wavelength" + {"air": "_air", "vacuum": "_vac", None: ""}[self.medium]
        wave += "" if self.damage == "no unit" else f"[{self.unit}]"
        names = [wave, *self.arrays]
        columns = [axis, *self.arrays.values()]
        separator = {"csv": ",", "semicolon": ";"}.get(self.layout, " ")
        lines = [("# " if self.layout == "comment" else "") + separator.join(names)]
        lines += [separator.join(f"{v:.12g}" for v in row) for row in zip(*columns, strict=True)]
        data = ("\n".join(lines) + "\n").encode()
        if self.damage == "latin comment":
            data = "# Längen und Fluss\n".encode("latin-1") + data
        path.write_bytes(b"\xef\xbb\xbf" + data if self.damage == "byte-order mark" else data)

    def _write_fits(self, path, axis) -> None:
        primary = fits.PrimaryHDU()
        if self.damage == "blank card":
            for key in ("SNR", "SPEC_RES", "OBJECT"):
                primary.header[key] = None
        hdus = [primary]
        if self.layout in ("image", "extensions"):
            header = self._header(axis)
            arrays = {**self.arrays, **({"WAVE": axis} if self.axis == "image" else {})}
            for name, values in arrays.items():
                first = self.layout == "image" and name == next(iter(self.arrays))
                hdu = primary if first else fits.ImageHDU(name=name)
                hdu.data = values
                # A lone primary image without a name is the flux; any other has to say what it is.
                if first and name != "FLUX":
                    hdu.header["EXTNAME"] = name
                hdu.header.update(header)
                if name == "WAVE" and self.damage != "no unit":
                    hdu.header["BUNIT"] = self.unit
                if self.damage == "no unit":
                    hdu.header.pop("CUNIT1", None)
                if not first:
                    hdus.append(hdu)
        else:
            cells: list[fits.Column] = []
            for name, values in {"WAVE": axis, **self.arrays}.items():
                code = "I" if values.dtype.kind == "i" else "D"
                null = None
                if self.damage == "null" and name == self.mask_name and name:
                    values, null = values.copy(), -99
                    values[self.part] = null
                    self.bad[self.part] = True
                unit = self.unit if name == "WAVE" and self.damage != "no unit" else None
                if self.layout == "rows":
                    cells.append(fits.Column(name, code, array=values, null=null, unit=unit))
                elif self.layout == "variable" and null is None:
                    cells.append(fits.Column(name, f"P{code}()", array=[values], unit=unit))
                else:
                    cells.append(fits.Column(name, f"{N}{code}", array=values[None], null=null, unit=unit))
            table = fits.BinTableHDU.from_columns(cells, name="SPECTRUM" if self.unit == "nm" else "STAR")
            if self.medium:
                table.header["TUCD1"] = "em.wl;obs.atmos" if self.medium == "air" else "em.wl"
            hdus.append(table)
        fits.HDUList(hdus).writeto(path, overwrite=True, output_verify="ignore")

    def _header(self, axis) -> dict:
        if self.axis == "image":
            return {"AIRORVAC": self.medium} if self.medium else {}
        ctype = {"air": "AWAV", "vacuum": "WAVE", None: "LINEAR"}[self.medium]
        header = {"CRVAL1": axis[0], "CRPIX1": 1.0, "CUNIT1": self.unit, "CTYPE1": ctype}
        step = axis[1] - axis[0]
        if self.axis == "log10":
            # IRAF's, of which log10 is taken of the number in the unit.
            return {**header, "CRVAL1": np.log10(axis[0]), "CDELT1": 1e-5 / np.log(10.0), "DC-FLAG": 1}
        if self.axis == "ln" and self.medium:
            return {**header, "CTYPE1": f"{ctype}-LOG", "CDELT1": 1e-5 * axis[0]}
        if self.axis == "ln":
            return {
                **header,
                "CRVAL1": np.log10(axis[0]),
                "CDELT1": 1e-5 / np.log(10.0),
                "CTYPE1": "LOG-LINEAR",
            }
        return {**header, {"CDELT": "CDELT1", "CD": "CD1_1"}[self.axis]: step}


def check(case: Case, folder) -> str:
    """Raise unless the file is read rightly, or refused or told by name; returns which."""
    path = case.write(folder)
    try:
        spectrum = read_spectrum(path, assume=ASSUME)
    except InputError as error:
        assert path.name in str(error), f"{case}: the error does not name the file: {error}"
        in_a_table = case.damage == "no unit" and case.layout in ("cells", "rows", "variable")
        assert case.wrong or in_a_table, f"{case}: refused: {error}"
        return "refused"
    assert not case.wrong, f"{case}: read although it contradicts itself"
    meta = spectrum.meta
    air = vacuum_to_air(case.wavelength) if case.medium == "vacuum" else case.wavelength
    np.testing.assert_allclose(spectrum.wavelength, air, atol=2e-4, err_msg=repr(case))
    assert ("medium" in meta["assumed"]) == (case.medium is None), case
    used = spectrum.ivar > 0
    assert not used[case.bad].any(), f"{case}: {int(used[case.bad].sum())} bad pixels used"
    # Beside a pixel without data its neighbours are left out as well.
    assert used[~case.bad].mean() > 0.97, f"{case}: {meta['masked']}"
    np.testing.assert_allclose(spectrum.flux[used], case.flux[used], rtol=1e-6, err_msg=repr(case))
    if case.kind in ("sigma", "variance", "ivar"):
        assert "noise" not in meta["assumed"], f"{case}: {meta}"
        np.testing.assert_allclose(
            spectrum.ivar[used], case.sigma[used] ** -2.0, rtol=1e-5, err_msg=repr(case)
        )
    else:
        assert "noise" in meta["assumed"], case
        if case.kind == "unknown":
            told = " ".join(meta["not_used"]).upper()
            assert case.error_name.upper() in told, f"{case}: {told}"
    for name in ("SKY", "NORM_FLUX"):
        if name in case.arrays:
            assert any(name in item for item in meta["not_used"]), f"{case}: {meta['not_used']}"
    return "read"


def test_sixty_files(tmp_path):
    outcomes = [check(Case(seed), tmp_path) for seed in range(60)]
    assert outcomes.count("read") > 45


@pytest.mark.slow
def test_a_thousand_files(tmp_path):
    outcomes = [check(Case(seed), tmp_path) for seed in range(60, 1060)]
    assert outcomes.count("read") > 850
