#!/bin/sh
# Makes the folder ready: the pinned Bun as .tools/bun, and the dependencies of the frozen lock file.
# Needs npm or any Bun; fetches nothing that is there already.
set -eu
cd "$(dirname "$0")/.."
want=$(cat .bun-version)

# at_least HAVE WANT: true when version HAVE is WANT or newer
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$2" ]
}
# works PATH: true when PATH runs and is new enough
works() {
  [ -x "$1" ] && have=$("$1" --version 2>/dev/null) && at_least "$have" "$want"
}
# link PATH: PATH becomes .tools/bun
link() {
  mkdir -p .tools
  ln -sf "$1" .tools/bun
}

if ! works .tools/bun; then
  on_path=$(command -v bun || true)
  if [ -n "$on_path" ] && works "$on_path"; then
    link "$on_path"
  else
    mkdir -p .tools
    if command -v npm >/dev/null 2>&1; then
      echo "setup: installing bun $want with npm into .tools" >&2
      npm install --prefix .tools --no-save --no-audit --no-fund --loglevel=error "bun@$want" >&2
    elif [ -n "$on_path" ]; then
      echo "setup: installing bun $want with the older bun into .tools" >&2
      [ -f .tools/package.json ] || printf '{"private":true}\n' > .tools/package.json
      (cd .tools && "$on_path" add "bun@$want" >&2)
    else
      echo "setup: neither npm nor bun is on the PATH; install one of them (Debian: apt-get install npm) and try again" >&2
      exit 1
    fi
    # Where install scripts are switched off, bun's own launcher is a placeholder; the executable lies in the platform's package.
    for found in "$PWD"/.tools/node_modules/bun/bin/bun.exe "$PWD"/.tools/node_modules/@oven/*/bin/bun "$PWD"/.tools/node_modules/bun/node_modules/@oven/*/bin/bun; do
      if works "$found"; then
        link "$found"
        break
      fi
    done
    works .tools/bun || { echo "setup: bun $want was installed but does not run on this machine" >&2; exit 1; }
  fi
fi

if [ ! -f node_modules/.installed ] || ! cmp -s bun.lock node_modules/.installed; then
  .tools/bun install --frozen-lockfile >&2
  cp bun.lock node_modules/.installed
fi
