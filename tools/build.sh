#!/bin/sh
# Compiles ./aisix. The executable reads only its own --config: no .env, no bunfig.toml of the folder it is started in.
# --max-http-header-size: 64 KiB of headers instead of Bun's 16 KiB (larger ones are answered with 431).
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
out=${1:-aisix}
.tools/bun build src/main.ts src/ledger/worker.ts src/budgets/worker.ts src/resources-file/worker.ts src/backup/worker.ts --compile --minify --bytecode --format=esm \
  --no-compile-autoload-dotenv --no-compile-autoload-bunfig \
  --compile-exec-argv="--max-http-header-size=65536" \
  --define "AISIX_COMMIT=\"$commit\"" --outfile "$out.new" >/dev/null
# A running gateway keeps the file it was started from.
mv -f "$out.new" "$out"
