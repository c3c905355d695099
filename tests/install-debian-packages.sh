#!/bin/sh
# Installs the Debian packages of debian-packages.txt whose programs are missing, for those who are root on Debian;
# for others the tests say what they miss. No service of theirs is started: the tests start their own.
set -eu
missing=$(sed 's/#.*//' "$(dirname "$0")/debian-packages.txt" | while read -r program package; do
	[ -z "$program" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || echo "$package"
done | sort -u | tr '\n' ' ')
[ -n "$missing" ] && [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null || exit 0

policy=/usr/sbin/policy-rc.d # invoke-rc.d(8): 101 forbids to start services
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
echo "Installing $missing"
log=$(mktemp)
if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing; } \
	>"$log" 2>&1 </dev/null; then
	tail -n 5 "$log" >&2
	echo "make test: what needs ${missing}is skipped: they could not be installed" >&2
fi
rm -f "$log"
