#!/bin/sh
# Makes the lock files for `make lock`: the versions that `make install` installs, with the hashes of their files.
# requirements.txt is what the program needs, requirements-build.txt what builds it, and requirements-gazetteer.txt the
# places of which the gazetteer is made. They hold for each Python that pyproject.toml names, on Linux; on x86-64 and
# aarch64 nothing must be compiled, which is checked here.
#
#     make lock                                             only what pyproject.toml has changed
#     make lock LOCK_ARGS='--upgrade-package aiohttp'       and the newest aiohttp
#     make lock LOCK_ARGS=--upgrade                         the newest of everything
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv
uv="$work/venv/bin/uv --quiet --no-config"

pythons=$(sed -n 's/^ *"Programming Language :: Python :: \(3\.[0-9]*\)",$/\1/p' pyproject.toml)
oldest=$(sed -n 's/^requires-python = ">=\(.*\)"$/\1/p' pyproject.toml)
sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml >"$work/build.in"
sed -n 's/^gazetteer = \["\([^"]*\)"\].*$/\1/p' pyproject.toml >"$work/gazetteer.in"

lock() { # INPUT FILE CONTENT
	file=deploy/$2 content=$3
	[ ! -e "$file" ] || cp "$file" "$work/$2" # versions that are kept
	$uv pip compile --universal --python-version "$oldest" --generate-hashes --no-annotate --no-header ${LOCK_ARGS-} \
		--output-file "$work/$2" "$1" >/dev/null
	for python in $pythons; do
		for machine in x86_64 aarch64; do
			$uv pip install --dry-run --target "$work/none" --only-binary :all: --require-hashes --requirements "$work/$2" \
				--python-version "$python" --python-platform "$machine-unknown-linux-gnu"
		done
	done
	{ printf '# %s, made by make lock: do not edit.\n' "$content" && cat "$work/$2"; } >"$work/whole"
	cp "$work/whole" "$file"
}

lock pyproject.toml requirements.txt "What the program needs"
lock "$work/build.in" requirements-build.txt "What builds the program"
lock "$work/gazetteer.in" requirements-gazetteer.txt "GeoNames' places"
