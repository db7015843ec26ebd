"""Numbers of published model atmospheres, and files with them in the layouts of MARCS, ATLAS and MOOG."""

import numpy as np

MARCS_ABUNDANCES = """\
  12.00  10.93   1.05   1.38   2.70   8.39   7.78   8.66   4.56   7.84
   6.17   7.53   6.37   7.51   5.36   7.14   5.50   6.18   5.08   6.31
   3.17   4.90   4.00   5.64   5.39   7.45   4.92   6.23   4.21   4.60
   2.88   3.58   2.29   3.33   2.56   3.25   2.60   2.92   2.21   2.58
   1.42   1.92 -99.00   1.84   1.12   1.66   0.94   1.77   1.60   2.00
   1.00   2.19   1.51   2.24   1.07   2.17   1.13   1.70   0.58   1.45
 -99.00   1.00   0.52   1.11   0.28   1.14   0.51   0.93   0.00   1.08
   0.06   0.88  -0.17   1.11   0.23   1.25   1.38   1.64   1.01   1.13
   0.90   2.00   0.65 -99.00 -99.00 -99.00 -99.00 -99.00 -99.00   0.06
 -99.00  -0.52
"""

# MARCS of May 2008 (Gustafsson et al. 2008): the Sun, and a giant in spherical geometry. The tables are cut
# after five layers.
MARCS_SUN = f"""\
sun
  5777.      Teff [K].         Last iteration; yyyymmdd=20080519
  6.3157E+10 Flux [erg/cm2/s]
  2.7542E+04 Surface gravity [cm/s2]
  1.0        Microturbulence parameter [km/s]
  0.0        No mass for plane-parallel models
 +0.00 +0.00 Metallicity [Fe/H] and [alpha/Fe]
  1.0000E+00 1 cm radius for plane-parallel models
  2.0783E-22 Luminosity [Lsun] FOR A RADIUS OF 1 cm!
  1.50 8.00 0.076 0.00 are the convection parameters: alpha, nu, y and beta
  0.73826 0.24954 1.22E-02 are X, Y and Z, 12C/13C=89 (=solar)
Logarithmic chemical number abundances, H always 12.00
{MARCS_ABUNDANCES}\
   5 Number of depth points
Model structure
 k lgTauR  lgTau5    Depth     T        Pe          Pg         Prad       Pturb
  1 -5.00 -4.9174 -6.931E+07  4066.8  2.1166E-02  2.6699E+02  1.4884E+00  0.0000E+00
  2 -4.80 -4.7204 -6.672E+07  4102.6  2.7299E-02  3.4586E+02  1.4886E+00  0.0000E+00
  3 -4.60 -4.5278 -6.411E+07  4145.9  3.5324E-02  4.4694E+02  1.4889E+00  0.0000E+00
  4 -4.40 -4.3377 -6.149E+07  4190.4  4.5691E-02  5.7706E+02  1.4892E+00  0.0000E+00
  5 -4.20 -4.1484 -5.884E+07  4235.5  5.9048E-02  7.4443E+02  1.4896E+00  0.0000E+00
 k lgTauR    KappaRoss   Density   Mu      Vconv   Fconv/F      RHOX
  1 -5.00  1.8399E-03  1.0006E-09 1.267  0.000E+00 0.00000  9.747804E-03
  2 -4.80  2.2630E-03  1.2849E-09 1.267  0.000E+00 0.00000  1.271237E-02
  3 -4.60  2.7846E-03  1.6431E-09 1.267  0.000E+00 0.00000  1.652902E-02
  4 -4.40  3.4300E-03  2.0990E-09 1.267  0.000E+00 0.00000  2.144205E-02
  5 -4.20  4.2278E-03  2.6789E-09 1.267  0.000E+00 0.00000  2.776095E-02
Assorted logarithmic partial pressures
 k  lgPgas   H I    H-     H2     H2+    H2O    OH     CH     CO     CN     C2
"""
MARCS_GIANT = f"""\
s5000_g+3.0_m1.0_t02_st_z+0.00_a+0.00_c+0.00_n+0.00_o+0.00_r+0.00_s+0.00
  5000.      Teff [K].         Last iteration; yyyymmdd=20080520
  3.5440E+10 Flux [erg/cm2/s]
  1.0000E+03 Surface gravity [cm/s2]
  2.0        Microturbulence parameter [km/s]
  1.0        Mass [Msun]
 +0.00 +0.00 Metallicity [Fe/H] and [alpha/Fe]
  3.6526E+11 Radius [cm] at Tau(Rosseland)=1.0
    15.56074 Luminosity [Lsun]
  1.50 8.00 0.076 0.00 are the convection parameters: alpha, nu, y and beta
  0.73826 0.24954 1.22E-02 are X, Y and Z, 12C/13C=89 (=solar)
Logarithmic chemical number abundances, H always 12.00
{MARCS_ABUNDANCES}\
   5 Number of depth points
Model structure
 k lgTauR  lgTau5    Depth     T        Pe          Pg         Prad       Pturb
  1 -5.00 -4.5739 -1.690E+09  3386.1  1.8317E-03  4.4980E+01  8.3089E-01  0.0000E+00
  2 -4.80 -4.3836 -1.617E+09  3436.6  2.5827E-03  6.1263E+01  8.3119E-01  0.0000E+00
  3 -4.60 -4.2079 -1.550E+09  3487.9  3.5658E-03  8.1286E+01  8.3154E-01  0.0000E+00
  4 -4.40 -4.0396 -1.485E+09  3537.1  4.8264E-03  1.0621E+02  8.3193E-01  0.0000E+00
  5 -4.20 -3.8740 -1.422E+09  3584.6  6.4450E-03  1.3752E+02  8.3240E-01  0.0000E+00
 k lgTauR    KappaRoss   Density   Mu      Vconv   Fconv/F      RHOX
  1 -5.00  3.1277E-04  2.0253E-10 1.268  0.000E+00 0.00000  4.622821E-02
  2 -4.80  4.0270E-04  2.7179E-10 1.268  0.000E+00 0.00000  6.277779E-02
  3 -4.60  5.1545E-04  3.5532E-10 1.268  0.000E+00 0.00000  8.316070E-02
  4 -4.40  6.5325E-04  4.5784E-10 1.268  0.000E+00 0.00000  1.085022E-01
  5 -4.20  8.2233E-04  5.8491E-10 1.268  0.000E+00 0.00000  1.402640E-01
"""

# The same solar model at all depths, lg tau_Ross = -5, -4.8 ... 2:
# T, Pe, Pg, Prad, Rosseland opacity, density, mean molecular weight, column mass (cgs).
SUN_GRAVITY = 2.7542e4
SUN = np.array([
    [4066.8, 2.1166e-02, 2.6699e+02, 1.4884, 1.8399e-03, 1.0006e-09, 1.267, 9.747804e-03],
    [4102.6, 2.7299e-02, 3.4586e+02, 1.4886, 2.2630e-03, 1.2849e-09, 1.267, 1.271237e-02],
    [4145.9, 3.5324e-02, 4.4694e+02, 1.4889, 2.7846e-03, 1.6431e-09, 1.267, 1.652902e-02],
    [4190.4, 4.5691e-02, 5.7706e+02, 1.4892, 3.4300e-03, 2.0990e-09, 1.267, 2.144205e-02],
    [4235.5, 5.9048e-02, 7.4443e+02, 1.4896, 4.2278e-03, 2.6789e-09, 1.267, 2.776095e-02],
    [4280.8, 7.6224e-02, 9.5958e+02, 1.4902, 5.2132e-03, 3.4167e-09, 1.267, 3.588369e-02],
    [4326.1, 9.8282e-02, 1.2360e+03, 1.4909, 6.4320e-03, 4.3550e-09, 1.267, 4.632059e-02],
    [4371.3, 1.2657e-01, 1.5911e+03, 1.4919, 7.9394e-03, 5.5482e-09, 1.267, 5.972400e-02],
    [4416.3, 1.6281e-01, 2.0469e+03, 1.4931, 9.8049e-03, 7.0649e-09, 1.267, 7.692905e-02],
    [4461.0, 2.0918e-01, 2.6317e+03, 1.4947, 1.2113e-02, 8.9925e-09, 1.267, 9.900418e-02],
    [4504.9, 2.6833e-01, 3.3817e+03, 1.4970, 1.4973e-02, 1.1443e-08, 1.267, 1.273167e-01],
    [4549.5, 3.4404e-01, 4.3432e+03, 1.5001, 1.8515e-02, 1.4553e-08, 1.267, 1.625695e-01],
    [4593.5, 4.4056e-01, 5.5753e+03, 1.5044, 2.2903e-02, 1.8503e-08, 1.268, 2.077444e-01],
    [4637.8, 5.6371e-01, 7.1537e+03, 1.5105, 2.8338e-02, 2.3516e-08, 1.268, 2.656148e-01],
    [4682.9, 7.2109e-01, 9.1751e+03, 1.5192, 3.5079e-02, 2.9872e-08, 1.268, 3.397254e-01],
    [4729.9, 9.2301e-01, 1.1763e+04, 1.5319, 4.3442e-02, 3.7917e-08, 1.268, 4.345910e-01],
    [4780.9, 1.1840e+00, 1.5074e+04, 1.5506, 5.3822e-02, 4.8075e-08, 1.268, 5.559725e-01],
    [4838.3, 1.5251e+00, 1.9307e+04, 1.5784, 6.6750e-02, 6.0848e-08, 1.268, 7.111556e-01],
    [4905.9, 1.9786e+00, 2.4714e+04, 1.6198, 8.2871e-02, 7.6819e-08, 1.268, 9.093570e-01],
    [4988.1, 2.5945e+00, 3.1610e+04, 1.6822, 1.0308e-01, 9.6639e-08, 1.268, 1.162120e+00],
    [5088.6, 3.4525e+00, 4.0385e+04, 1.7762, 1.2859e-01, 1.2103e-07, 1.268, 1.483720e+00],
    [5216.8, 4.7142e+00, 5.1496e+04, 1.9189, 1.6168e-01, 1.5053e-07, 1.268, 1.890813e+00],
    [5382.5, 6.7372e+00, 6.5369e+04, 2.1359, 2.0777e-01, 1.8519e-07, 1.268, 2.399004e+00],
    [5597.1, 1.0474e+01, 8.2062e+04, 2.4682, 2.8216e-01, 2.2354e-07, 1.268, 3.010575e+00],
    [5875.7, 1.8744e+01, 1.0058e+05, 2.9803, 4.2714e-01, 2.6094e-07, 1.267, 3.689868e+00],
    [6235.2, 4.0062e+01, 1.1865e+05, 3.7770, 7.4540e-01, 2.9001e-07, 1.267, 4.354890e+00],
    [6694.8, 1.0098e+02, 1.3399e+05, 5.0275, 1.4907e+00, 3.0486e-07, 1.266, 4.920834e+00],
    [7314.8, 3.0484e+02, 1.4523e+05, 6.9905, 3.5340e+00, 3.0199e-07, 1.265, 5.337411e+00],
    [7876.9, 7.2951e+02, 1.5296e+05, 9.4596, 7.3207e+00, 2.9458e-07, 1.261, 5.624648e+00],
    [8290.4, 1.2998e+03, 1.5959e+05, 11.803, 1.2243e+01, 2.9101e-07, 1.257, 5.868536e+00],
    [8620.2, 1.9943e+03, 1.6628e+05, 13.888, 1.8243e+01, 2.9048e-07, 1.252, 6.113838e+00],
    [8903.8, 2.8264e+03, 1.7366e+05, 15.838, 2.5489e+01, 2.9243e-07, 1.247, 6.389028e+00],
    [9168.5, 3.8577e+03, 1.8218e+05, 17.811, 3.4543e+01, 2.9644e-07, 1.240, 6.705387e+00],
    [9424.6, 5.1514e+03, 1.9224e+05, 19.890, 4.5965e+01, 3.0257e-07, 1.233, 7.078444e+00],
    [9678.4, 6.7920e+03, 2.0431e+05, 22.122, 6.0427e+01, 3.1105e-07, 1.225, 7.525328e+00],
    [9934.3, 8.8917e+03, 2.1892e+05, 24.556, 7.8748e+01, 3.2224e-07, 1.216, 8.066432e+00],
])  # fmt: skip
SUN_LOG_TAU = np.linspace(-5.0, 2.0, len(SUN))

# ATLAS9 ODFNEW (Castelli & Kurucz 2003), file ap00k2odfnew.dat, cut after five layers.
ATLAS_CARDS = """\
TEFF   5750.  GRAVITY 4.50000 LTE
TITLE  [0.0] VTURB=2  L/H=1.25 NOVER NEW ODF
 OPACITY IFOP 1 1 1 1 1 1 1 1 1 1 1 1 1 0 1 0 0 0 0 0
 CONVECTION ON   1.25 TURBULENCE OFF  0.00  0.00  0.00  0.00
ABUNDANCE SCALE   1.00000 ABUNDANCE CHANGE 1 0.92040 2 0.07834
 ABUNDANCE CHANGE  3 -10.94  4 -10.64  5  -9.49  6  -3.52  7  -4.12  8  -3.21
 ABUNDANCE CHANGE  9  -7.48 10  -3.96 11  -5.71 12  -4.46 13  -5.57 14  -4.49
 ABUNDANCE CHANGE 15  -6.59 16  -4.71 17  -6.54 18  -5.64 19  -6.92 20  -5.68
 ABUNDANCE CHANGE 21  -8.87 22  -7.02 23  -8.04 24  -6.37 25  -6.65 26  -4.54
 ABUNDANCE CHANGE 87 -20.00 88 -20.00 89 -20.00 90 -11.95 91 -20.00 92 -12.54
 ABUNDANCE CHANGE 93 -20.00 94 -20.00 95 -20.00 96 -20.00 97 -20.00 98 -20.00
 ABUNDANCE CHANGE 99 -20.00
"""
ATLAS_HEAD = "READ DECK6 {:2d} RHOX,T,P,XNE,ABROSS,ACCRAD,VTURB, FLXCNV,VCONV,VELSND\n"
ATLAS_END = "PRADK 1.4601E+00\nBEGIN                    ITERATION  15 COMPLETED\n"
ATLAS_DWARF = (
    ATLAS_CARDS
    + ATLAS_HEAD.format(5)
    + """\
 5.56174690E-04   3628.5 1.759E+01 2.865E+09 2.398E-04 5.536E-02 2.000E+05 0.000E+00 0.000E+00 6.632E+05
 7.25706868E-04   3656.7 2.295E+01 3.681E+09 2.849E-04 6.136E-02 2.000E+05 0.000E+00 0.000E+00 6.569E+05
 9.15709699E-04   3685.1 2.896E+01 4.598E+09 3.394E-04 6.764E-02 2.000E+05 0.000E+00 0.000E+00 6.533E+05
 1.12829120E-03   3715.2 3.568E+01 5.632E+09 4.047E-04 7.353E-02 2.000E+05 0.000E+00 0.000E+00 6.515E+05
 1.36606923E-03   3746.0 4.320E+01 6.798E+09 4.834E-04 7.980E-02 2.000E+05 0.000E+00 0.000E+00 6.508E+05
"""
    + ATLAS_END
)


def marcs_file(log_tau, mass, temperature, electron_pressure, pressure) -> str:
    """The solar header, and these layers."""
    n = len(mass)
    head = MARCS_SUN[: MARCS_SUN.index("   5 Number")] + f"{n:4d} Number of depth points\nModel structure\n"
    names = [line for line in MARCS_SUN.splitlines() if line.startswith(" k lgTauR")]
    first = [
        f"{k + 1:3d}{log_tau[k]:6.2f}{log_tau[k]:8.4f}{0:11.3E}{temperature[k]:8.1f}"
        f"{electron_pressure[k]:12.4E}{pressure[k]:12.4E}{0:12.4E}{0:12.4E}"
        for k in range(n)
    ]
    second = [
        f"{k + 1:3d}{log_tau[k]:6.2f}{1:12.4E}{1e-7:12.4E}{1.26:6.3f}{0:11.3E}{0:8.5f}{mass[k]:14.6E}"
        for k in range(n)
    ]
    return head + "\n".join([names[0], *first, names[1], *second]) + "\n"


def atlas_file(mass, temperature, pressure, electrons) -> str:
    """The cards of the dwarf, and these layers."""
    rows = [
        f"{m:15.8E}{t:9.1f}{p:10.3E}{e:10.3E}{1:10.3E}{0:10.3E}{2e5:10.3E}{0:10.3E}{0:10.3E}{0:10.3E}\n"
        for m, t, p, e in zip(mass, temperature, pressure, electrons, strict=True)
    ]
    return ATLAS_CARDS + ATLAS_HEAD.format(len(rows)) + "".join(rows) + ATLAS_END


def moog_file(kind: str, rows: np.ndarray, wavelength: bool, end: str = "") -> str:
    """Any type of MOOG's; microturbulence 1.5 km/s and [M/H] = -0.25 by default."""
    lines = [kind, "a comment", f"NTAU      {len(rows):6d}", *(["5000.0"] if wavelength else [])]
    lines += [" ".join(f"{x:14.7E}" for x in row) for row in rows]
    end = end or "    1.500e+00\nNATOMS        1   -0.25\n   3.00    3.30\nNMOL          1\n   101.0\n"
    return "\n".join(lines) + "\n" + end
