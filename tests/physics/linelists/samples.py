# ruff: noqa: E501 (lines as long as the formats have them)
"""The same three lines in every format, after the formats' own documentation; values of NIST and Kurucz.

Fe I 5371.489, Mg I 5528.405 and Ca II 8542.091 A in air; levels 7728.060, 35051.264 and 13710.880 cm^-1.
"""

from jaxspec.physics.linelists.text import Text

SCALED = "* oscillator strengths were scaled by the solar isotopic ratios.\n"
FOOT = "'castelli_ap00k2_T05750G40.krz',\n'H :  0.92','He: -1.11',\n'Es:-20.00','END'\n" + SCALED
VALD_SHORT_STELLAR = (
    """\
 5000.00000, 9000.00000, 3, 26863354, 1.0 Wavelength region, lines selected, lines processed, Vmicro
                                                  Damping parameters    Lande  Central
Spec Ion       WL_vac(A)  Excit(eV) Vmic log gf* Rad.   Stark   Waals   factor  depth  Reference
'Fe 1',        5372.9831,  0.9582, 1.0, -1.645, 7.150,-6.210,  -7.820,  0.910, 0.951, '   1 wl:K14   1 K14 Fe       '
'Mg 1',        5529.9403,  4.3458, 1.0, -0.498, 8.720,-4.460,  -6.980,  1.000, 0.860, '   2 wl:KP    2 KP Mg        '
'Ca 2',        8544.4379,  1.6999, 1.0, -0.463, 8.210,-5.700,  -7.680,  1.100, 0.980, '   3 wl:TB    3 TB Ca+       '
"""
    + FOOT
)
VALD_SHORT_ALL = (
    """\
                                             Damping parameters  Lande
Elm Ion       WL_air(A) Excit(eV) log gf*   Rad.  Stark    Waals factor   References
'Fe 1',      5371.48900,   0.9582, -1.645,  7.150,-6.210,  -7.820,  0.910,'   1 wl:K14   1 K14             Fe'
'Mg 1',      5528.40500,   4.3458, -0.498,  8.720,-4.460,  -6.980,  1.000,'   2 wl:KP    2 KP              Mg'
'Ca 2',      8542.09100,   1.6999, -0.463,  8.210,-5.700,  -7.680,  1.100,'   3 wl:TB    3 TB              Ca+'
"""
    + SCALED
)
_TERMS = "'  LS                     3d7.(4F).4s a5F'\n'  LS                 3d6.(5D).4s.4p z5F*'\n"
VALD_LONG_ALL = (
    """\
                                                                               Lande factors        Damping parameters
Elm Ion       WL_air(A)  log gf* E_low(cm^-1)   J lo  E_up(cm^-1)   J up   lower   upper    mean   Rad.  Stark    Waals
"""
    "'Fe 1',      5371.48900,  -1.645,   7728.060,    3.0,  26339.696,    4.0,"
    "  1.250,  1.350,  0.910, 7.150,-6.210,  -7.820\n"
    f"{_TERMS}'_      Kurucz FeI 2014    7 wl:K14   7 gf:K14   7 K14             Fe'\n"
    "'Mg 1',      5528.40500,  -0.498,  35051.264,    1.0,  53134.642,    2.0,"
    "  1.000,  1.000,  1.000, 8.720,-4.460,  -6.980\n"
    f"{_TERMS}'_      NIST               8 wl:KP    8 gf:KP    8 KP              Mg'\n"
    "'Ca 2',      8542.09100,  -0.463,  13710.880,    2.5,  25414.400,    1.5,"
    "  1.200,  1.330,  1.100, 8.210,-5.700,  -7.680\n"
    f"{_TERMS}'_      T. Brage           9 wl:TB    9 gf:TB    9 TB              Ca+'\n" + SCALED
)
VALD_LONG_STELLAR = (
    """\
 5000.00000, 6000.00000, 2, 6413, 1.0 Wavelength region, lines selected, lines processed, Vmicro
                                                                       Lande factors       Damping parameters   Central
Spec Ion        WL_vac(A)  log gf* E_low(eV) J lo E_up(eV)  J up   lower   upper   mean   Rad.   Stark   Waals   depth
"""
    "'Fe 1',        5372.9831, -1.645,  0.9582,  3.0,  3.2657,  4.0,"
    "  1.250,  1.350,  0.910, 7.150,-6.210,  -7.820, 0.951,\n"
    f"{_TERMS}'_          Kurucz FeI 2014 Fe               1 wl:K14   1 gf:K14   1 K14'\n"
    "'Mg 1',        5529.9403, -0.498,  4.3458,  1.0,  6.5879,  2.0,"
    "  1.000,  1.000,  1.000, 8.720,-4.460,  -6.980, 0.860,\n"
    f"{_TERMS}'_          NIST Mg                          2 wl:KP    2 gf:KP    2 KP'\n" + FOOT
)
_REST = " 0 0  0 0.000  0 0.000                     1250 1350     0\n"
KURUCZ = (
    "   537.1489 -1.645 26.00    7728.060  3.0 s6F5D a5F   -26339.696  4.0 4s4p z5F    7.15 -6.21 -7.82K14 "
    + _REST
    + "   552.8405 -0.498 12.00   53134.642  2.0 3s4d 1D      35051.264  1.0 3s3p 1P     8.72 -4.46 -6.98KP  "
    + _REST
    + "   854.2091 -0.463 20.01   13710.880  2.5 3d  2D       25414.400  1.5 4p  2P      8.21 -5.70 -7.68TB  "
    + _REST
)
MOOG = """\
three lines of the optical (format 7e10.3)
  5371.489      26.0     0.958    -1.645     -7.82               10.0
  5528.405      12.0     4.346    -0.498     -6.98              200.0
  8542.091  20.10000     1.700    -0.463     -7.68                     TB
"""
MOOG_FREE = """\
three lines of the optical (freeform)
5371.489 26.0 0.958 -1.645 -7.82 0.0 10.0
5528.405 12.0 4.346 -0.498 -6.98 0.0 200.0
8542.091 20.1 1.700 -0.463 -7.68 0.0 0.0
"""
TURBOSPECTRUM = """\
'  26.000            '    1         1
'Fe I    NLTE'
  5371.489  0.958 -1.645   -7.820    9.0  1.41E+07  0.000  'x' 'x'   0.0    1.0 'Fe I LS:3d7.(4F).4s a5F LS: z5F*'
'  12.000            '    1         1
'Mg I    LTE'
  5528.405  4.346 -0.498   -6.980    5.0  5.25E+08  'x' 'x'   0.0    1.0 'Mg I LS:3s.3p 1P* LS:3s.4d 1D'
'  20.000            '    2         1
'Ca II   NLTE'
  8542.091  1.700 -0.463   -7.680    4.0  1.62E+08  'x' 'x'   0.0    1.0 'Ca II LS:3p6.3d 2D LS:3p6.4p 2P*'
"""
FORMATS = {
    "vald, short, stellar": VALD_SHORT_STELLAR,
    "vald, short, all": VALD_SHORT_ALL,
    "vald, long, all": VALD_LONG_ALL,
    "kurucz": KURUCZ,
    "moog": MOOG,
    "moog, free": MOOG_FREE,
    "turbospectrum": TURBOSPECTRUM,
}


def text_of(content: str) -> Text:
    return Text("a.list", content.splitlines())
