#!/usr/bin/env bash
# JAX 0.10.2: a persistent compilation cache with a size limit stops storing for good after one interrupted write.
#
# With `jax_compilation_cache_max_size` set, each program is stored as two files, NAME-cache and, after it,
# NAME-atime. A process that ends between the two leaves a NAME-cache alone. From then on every attempt of any
# process to store another program reads all -atime files first, meets the one that is missing, and gives up with
# the warning "Error writing persistent compilation cache entry ... FileNotFoundError": nothing is cached any more,
# and nothing repairs it but deleting the file by hand. Without a limit there are no -atime files and no such state.
#
# Expected from the documentation: an entry that is not complete is written again or evicted.
# jaxspec therefore leaves the limit off and removes the oldest files itself (jaxspec.runs.prune).
#
# Exits 0 while JAX behaves so, and 1 when it no longer does.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check "jax==0.10.2" "jaxlib==0.10.2" "filelock==3.20.0"

cat > "$work/compile.py" <<'PY'
import sys
import jax, jax.numpy as jnp

jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_compilation_cache_max_size", 100_000_000)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
n = int(sys.argv[2])
jax.jit(lambda x: jnp.sin(x) * n)(jnp.ones(n)).block_until_ready()
PY

entries() { find "$work/cache" -name '*-cache' | wc -l; }

"$work/env/bin/python" "$work/compile.py" "$work/cache" 3 2> "$work/first"
first="$(entries)"
"$work/env/bin/python" "$work/compile.py" "$work/cache" 4 2> "$work/second"
second="$(entries)"
# As a process leaves it that ended between the two writes.
rm "$(find "$work/cache" -name '*-atime' | sort | head -n 1)"
"$work/env/bin/python" "$work/compile.py" "$work/cache" 5 2> "$work/third"
third="$(entries)"
warnings="$(grep -c 'Error writing persistent compilation cache entry' "$work/third" || true)"

echo "entries after the first program $first, the second $second; after a lost -atime file and a third $third;" \
     "$warnings warnings"
[ "$first" -gt 0 ] && [ "$second" -gt "$first" ] && [ "$third" -eq "$second" ] && [ "$warnings" -gt 0 ]
