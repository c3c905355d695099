#!/bin/sh
# The benchmarks on another release of Debian, with its Python, Node.js and Redis, in a root of its own: var/bench/SUITE.
#
#     bench/debian.sh trixie                              all of it, and docs/report.md anew
#     bench/debian.sh trixie --only "one open 5000"       options of bench/compare.py
#
# Type it as root; it needs mmdebstrap. The kernel and its loopback are this machine's. What is mounted goes with it.
set -eu
cd "$(dirname "$0")/.."
suite=$1 root=var/bench/$1
shift
if [ ! -e "$root/made" ]; then
	rm -rf "$root"
	mkdir -p var/bench
	mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
		--include=python3,python3-venv,gcc,libc6-dev,make,nodejs,redis-server,ca-certificates "$suite" "$root"
	touch "$root/made"
fi
for file in /etc/pip.conf /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
	[ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
done
mkdir -p "$root/src"
git ls-files -z | xargs -0 tar -cf - | tar -C "$root/src" -xf -
unshare --mount --propagation private --pid --fork --kill-child sh -euc '
	root=$1
	shift
	mount -t proc proc "$root/proc"
	for folder in /dev /sys; do mount --rbind "$folder" "$root$folder"; done
	exec chroot "$root" env -u PIP_FIND_LINKS HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -euc "
		cd /src
		make --no-print-directory .venv/test.stamp
		exec .venv/bin/python bench/compare.py \"\$@\"" sh "$@"
' sh "$root" "$@"
[ $# -gt 0 ] || { cp "$root/src/docs/report.md" docs && cp -R "$root/src/docs/bench" docs; }
