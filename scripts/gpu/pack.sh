#!/usr/bin/env bash
# Packs everything that scripts/gpu/run.sh needs on a GPU machine without Node and registries, in parts small enough to carry one by
# one: scripts/gpu/pack.sh FOLDER [MIB of a part, default 30]. Run it in a clone of the commit that the other machine has, on a
# machine with registries and the same processor architecture; it needs no GPU. Takes minutes and 4 GB in /tmp.
#
# FOLDER gets kernels.tar.xz, with which `run.sh --only 'smi kernels'` works by itself; rest.tar.xz.000, .001, ... (Node,
# node_modules, the compiled sources, TensorFlow's two libraries without their symbols, all that set-up builds); SHA256SUMS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "Usage: scripts/gpu/pack.sh FOLDER [MIB]" >&2
  exit 2
fi
mkdir -p "$1"
to=$(cd "$1" && pwd)
part=${2:-30}
readonly root=/tmp/sparsevila-gpu # as in run.sh
readonly cache=${SPARSEVILA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sparsevila}

echo "building in $root"
rm -rf "$root/app" "$root/node" "$root/kernels"
mkdir -p "$root/app" "$root/node/bin" "$root/cache"
for name in libtensorflow cuda; do # what is fetched already
  for found in "$cache/$name"-*; do
    if [ -d "$found" ] && [ ! -e "$root/cache/${found##*/}" ]; then cp -r "$found" "$root/cache/"; fi
  done
done
SPARSEVILA_CACHE="$root/cache" node scripts/bootstrap.mjs cli setup --gpu
chmod -R u+w "$root/cache"
strip --strip-unneeded "$root"/cache/libtensorflow-*/lib/*.so.2

echo "packing"
cp "$(readlink -f "$(command -v node)")" "$root/node/bin/node"
strip "$root/node/bin/node"
# Types, maps, and tfjs built for browsers are not needed at run time.
tar -c --exclude='*.map' --exclude='*.d.ts' --exclude='*.min.js' --exclude='*.fesm.js' --exclude='*es2017*.js' \
  --exclude='node_modules/@biomejs' --exclude='node_modules/@typescript' --exclude='node_modules/typescript' \
  --exclude='node_modules/@tensorflow/*/src' --exclude='node_modules/@tensorflow/tfjs*/node_modules/.cache' \
  node_modules dist | tar -x -C "$root/app"
mkdir "$root/kernels"
cp "$root"/cache/gpu-*/*.so "$root/kernels/"
rm -f "$to"/kernels.tar.xz "$to"/rest.tar.xz.* "$to"/SHA256SUMS
readonly compress=(xz -T0 --x86 '--lzma2=preset=6,dict=64MiB')
tar -c -C "$root" kernels | "${compress[@]}" >"$to/kernels.tar.xz"
tar -c -C "$root" --exclude='cache/build-*' --exclude='cache/cuda-*' --exclude='cache/libtensorflow-*/include' node app cache |
  "${compress[@]}" | split -b "${part}M" -d -a 3 - "$to/rest.tar.xz."
(cd "$to" && sha256sum -- *.tar.xz* >SHA256SUMS)

du -ch "$to"/*
cat <<TEXT
On the GPU machine, in a clone of $(git rev-parse --short HEAD): for each trip put some of these files, and SHA256SUMS, into a folder there and run
  scripts/gpu/run.sh --take FOLDER
then, when all are there,
  scripts/gpu/run.sh
TEXT
