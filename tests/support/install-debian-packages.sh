#!/bin/sh
# Installs the Debian packages of debian-packages.txt whose programs are missing, for those who are root on Debian;
# for others the tests say what they miss. No service of theirs is started, now or at a boot: the tests start their own.
# Whenever this is killed, the next run takes away what it has left.
set -eu
[ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null || exit 0
PATH="$PATH:/usr/sbin:/sbin"
list="$(dirname "$0")/debian-packages.txt"
policy=/usr/sbin/policy-rc.d # invoke-rc.d(8): 101 forbids to start services
mark='# Of the tests of proxyherd, while they install packages.'

is_there() {
	case $1 in
	*:*) PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${1%%:*}" -c "import ${1#*:}" 2>/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing() {
	sed 's/#.*//' "$list" | while read -r program package; do
		[ -z "$program" ] || is_there "$program" </dev/null || echo "$package"
	done | sort -u | tr '\n' ' '
}

is_left() {
	[ -e "$policy" ] && grep -qxF "$mark" "$policy"
}

# Enabled by packages that were not there before, as Debian enables whatever it installs.
disable_services() {
	for package; do
		[ "$package" != systemd ] || continue # its units are what boots a system
		units=$(dpkg -L "$package" 2>/dev/null | sed -nE 's,^(/usr)?/lib/systemd/system/([^/@]+\.(service|socket|timer))$,\2,p')
		[ -z "$units" ] || systemctl --quiet disable $units
	done
}

take_away() {
	disable_services $new >"$log" 2>&1 || tail -n 5 "$log" >&2
	rm -f "$log"
	! is_left || rm "$policy"
}

[ -n "$(missing)" ] || is_left || exit 0
exec 9<"$(dirname "$policy")" # which apt-get inherits: a killed run lasts until that ends
flock -w 600 9 || {
	echo "make test: what needs $(missing)is skipped: another process installs packages for tests" >&2
	exit 0
}
log=$(mktemp)
if is_left; then
	new=$(sed -n 's/^# New: //p' "$policy")
	take_away
fi
missing=$(missing)
new=
for package in $missing; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || new="$new $package"
done
trap take_away EXIT
trap 'exit 1' HUP INT TERM
[ -n "$missing" ] || exit 0
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\n%s\n# New: %s\nexit 101\n' "$mark" "$new" >"$log"
	install -m 755 "$log" "$policy"
fi

# apt-get waits for dpkg's lock, but not for that of its lists.
update() {
	for _ in $(seq 60); do
		apt-get -qq update >"$log" 2>&1 && return
		grep -q /lists/lock "$log" || return
		sleep 5
	done
	return 1
}

echo "Installing $missing"
if ! { update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends \
	install $missing >"$log" 2>&1; } </dev/null; then
	tail -n 5 "$log" >&2
	echo "make test: what needs ${missing}is skipped: they could not be installed" >&2
fi
