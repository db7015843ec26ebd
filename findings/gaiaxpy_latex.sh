#!/usr/bin/env bash
# Importing GaiaXPy switches matplotlib to LaTeX for the whole process: every figure made afterwards, by whatever
# program, fails where no TeX is installed.
#
# Seen with gaiaxpy 2.1.5 and matplotlib 3.10.8 (gaiaxpy/plotter/plotter.py sets rcParams["text.usetex"] at
# import). Exits 0 while it behaves so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q "gaiaxpy==2.1.5" "matplotlib==3.10.8"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import matplotlib

before = matplotlib.rcParams["text.usetex"]
import gaiaxpy

after = matplotlib.rcParams["text.usetex"]
print(f"text.usetex before import gaiaxpy: {before}, after: {after}")
raise SystemExit(0 if (before, after) == (False, True) else 1)
PYTHON
