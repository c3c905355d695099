#!/bin/sh
# Installs proxyherd on this system, and uninstalls it, for `make install` and `make uninstall`, which set PYTHON,
# PREFIX and DESTDIR. The rules:
#   - A server that crashes while this runs, or after it was cut short, comes up with the old version or the new one,
#     whole: each version has a folder of its own, and the launcher names one; renaming the launcher is the switch.
#     The version before stays, and so does every one that still runs, since servers load modules from it.
#   - What is below /etc and there already is the operator's: it is never written over. Data is never taken away.
#   - This checkout is only read: it need not be root's.
set -eu
umask 022

program=$PREFIX/lib/proxyherd
launcher=$PREFIX/bin/proxyherd
shared=$PREFIX/share/proxyherd
case $PREFIX in
	/usr | /usr/local) systemd=$PREFIX/lib ;; # where systemd looks, besides below /etc
	*) systemd=/etc ;;
esac
units=$systemd/systemd/system
unit_names="proxyherd@.service proxyherd.target proxyherd-gazetteer.service"

fail() {
	echo "make $command: $*" >&2
	exit 1
}

check_folders() {
	case $PREFIX/ in
		*[!A-Za-z0-9/._+-]* | *//* | */../* | */./* | [!/]*)
			fail "PREFIX='$PREFIX' must be an absolute path, without . and .. and a slash at its end," \
				"of A-Z a-z 0-9 / . _ + -" ;;
		/root/* | /home/* | /run/user/* | /tmp/* | /var/tmp/*)
			fail "PREFIX=$PREFIX: the units' sandbox hides home folders and /tmp; take /usr/local, /opt/NAME or the like" ;;
	esac
	case $DESTDIR in
		'' | /*) ;;
		*) fail "DESTDIR='$DESTDIR' must be an absolute path" ;;
	esac
}

# systemd takes one file of a name, and it need not be the one that is put now.
refuse_units_of_another_prefix() { # FOLDER...
	for folder in "$@"; do
		unit=$DESTDIR$folder/systemd/system/proxyherd@.service
		[ -f "$unit" ] || continue # a masked one is none
		other=$(sed -n 's|^ExecStart=\(/[^ ]*\)/bin/proxyherd .*|\1|p' "$unit")
		[ -z "$other" ] || [ "$other" = "$PREFIX" ] ||
			fail "$unit is of PREFIX=$other; give that PREFIX, or first take that one away, which leaves" \
				"configuration and data: make uninstall PREFIX=$other (or its package, if it came by one)"
	done
}

# What stands in the launcher, and what packages are compiled for: the interpreter itself, behind all links.
find_interpreter() {
	interpreter=$("$PYTHON" -c '
import os, sys
if sys.version_info < (3, 11):
    sys.exit("Python %d.%d at %s is too old" % (sys.version_info[0], sys.version_info[1], sys.executable))
print(os.path.realpath(sys._base_executable))') ||
		fail "PYTHON=$PYTHON must be Python 3.11 or newer; name one that is: make $command PYTHON=/usr/bin/python3"
	case $interpreter in
		/root/* | /home/* | /run/user/* | /tmp/* | /var/tmp/*)
			fail "PYTHON=$PYTHON is $interpreter, and the units' sandbox hides home folders and /tmp;" \
				"take the system's: make $command PYTHON=/usr/bin/python3" ;;
	esac
}

# A virtual environment of its own brings the pip that fits the interpreter.
pip_install() {
	"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
}

# Their authors leave symbols in them, which only a debugger reads: a third of the program.
strip_libraries() { # FOLDER
	if command -v strip >/dev/null; then
		find "$1" -name '*.so' -exec strip --strip-unneeded {} +
	else
		echo "make $command: without strip the program takes 25 MB more; on Debian: apt-get install binutils" >&2
	fi
}

build() {
	rm -rf "$1"
	mkdir -p "$1" || fail "run it as root, or with DESTDIR=FOLDER"
	mkdir "$work/source"
	cp -R proxyherd pyproject.toml setup.py README.md LICENSE "$work/source"
	find "$work/source" -name __pycache__ -type d -prune -exec rm -rf {} +
	"$interpreter" -m venv "$work/venv" || fail "$interpreter has no venv; on Debian: apt-get install python3-venv"
	pip_install --require-hashes --target "$1" -r deploy/requirements.txt
	isolation=
	if [ "${PROXYHERD_COMPILED-}" != 1 ]; then # else the compiler comes too, which has no lock file
		isolation=--no-build-isolation
		pip_install --require-hashes -r deploy/requirements-build.txt
	fi
	rm -rf "$1/bin" # of libraries; pip would warn about it
	pip_install $isolation --no-deps --target "$1" "$work/source"
	rm -rf "$1/bin" "$1"/proxyherd-*.dist-info/direct_url.json # they name folders of this build
	strip_libraries "$1"
	# Services may not write here. Their tracebacks and this check are to name the files where they will be.
	"$interpreter" -m compileall -q -j 0 -s "$1" -p "$program/$version" "$1"
	"$interpreter" -IS -c 'import sys; sys.path.append(sys.argv[1]); from proxyherd import cli; from proxyherd.server import daemon' "$1" ||
		fail "what was built does not start; what was installed before is as it was"
}

# The unit of the gazetteer has no network, and takes GeoNames' places from this file. One that is there stays.
build_places() { # FOLDER of the program
	mkdir -p "$DESTDIR$shared"
	if pip_install --require-hashes -r deploy/requirements-gazetteer.txt && PYTHONPATH=$1 PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" -P -m proxyherd \
		--config deploy/herd.toml gazetteer build "$DESTDIR$shared/gazetteer.dat"; then
		chmod 644 "$DESTDIR$shared/gazetteer.dat"
	else
		echo "make $command: goes on without offline places; type it again for them" >&2
	fi
	rm -f "$DESTDIR$shared/gazetteer.dat.lock"
}

# Written aside and renamed: nobody ever reads a half of it.
put() { # MODE FILE, its text on stdin
	mkdir -p "$DESTDIR${2%/*}"
	cat >"$DESTDIR$2.new"
	chmod "$1" "$DESTDIR$2.new"
	mv -f "$DESTDIR$2.new" "$DESTDIR$2"
}

put_launcher() {
	put 755 "$launcher" <<-END
		#!$interpreter -IS
		# Made by make install. Isolated: neither the environment nor other packages of this system have a say.
		import sys

		sys.path.append("$program/$version")
		from proxyherd.cli import main

		main()
	END
}

put_units() {
	for unit in $unit_names; do
		sed "s|/usr/local/bin/proxyherd|$launcher|; s|/usr/local/share/proxyherd|$shared|" "systemd/$unit" | put 644 "$units/$unit"
	done
	put 644 "$systemd/sysusers.d/proxyherd.conf" <deploy/systemd/sysusers.conf
	put 644 "$systemd/tmpfiles.d/proxyherd.conf" <deploy/systemd/tmpfiles.conf
}

put_configuration() { # FILE_HERE NAME_OF_THE_DEFAULT FILE
	put 644 "$shared/$2" <"$1"
	if [ ! -e "$DESTDIR$3" ]; then
		put 644 "$3" <"$1"
	elif ! cmp -s "$1" "$DESTDIR$3"; then
		echo "Kept $DESTDIR$3; the default is in $DESTDIR$shared/$2"
	fi
}

previous_version() { # the folder that the launcher names
	[ ! -e "$DESTDIR$launcher" ] || sed -n "s|^sys.path.append(\"$program/\(.*\)\")\$|\1|p" "$DESTDIR$launcher"
}

# A server that was not restarted since the install before this one runs an older version. Each has compiled modules
# mapped.
is_running() { # FOLDER
	grep -qsF "$1/" /proc/[0-9]*/maps
}

remove_versions_but() {
	for folder in "$DESTDIR$program"/*; do
		case " $* " in
			*" ${folder##*/} "*) ;;
			*) is_running "$folder" || rm -rf "$folder" ;;
		esac
	done
}

has_systemd() {
	command -v systemd-sysusers >/dev/null
}

set_up_this_system() {
	if ! has_systemd; then
		echo "There is no systemd here, and so no user proxyherd: run proxyherd serve under a user of your own"
		return
	fi
	systemd-sysusers "$systemd/sysusers.d/proxyherd.conf"
	systemd-tmpfiles --create "$systemd/tmpfiles.d/proxyherd.conf" # a secret that others can read is refused
	"$launcher" secret new /etc/proxyherd/secret --if-missing
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
}

install() {
	refuse_units_of_another_prefix /etc /usr/local/lib /usr/lib
	find_interpreter
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM
	version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)-$(date -u +%Y%m%d%H%M%S)
	echo "Installing into $DESTDIR$PREFIX, for $interpreter"
	build "$DESTDIR$program/.new"
	mv "$DESTDIR$program/.new" "$DESTDIR$program/$version"
	build_places "$DESTDIR$program/$version"
	previous=$(previous_version)
	put_launcher
	remove_versions_but "$version" "$previous"
	put_units
	put_configuration deploy/herd.toml herd.toml /etc/proxyherd/herd.toml
	if [ -n "$DESTDIR" ] || has_systemd; then # the rules name the user that systemd-sysusers makes
		put_configuration deploy/logrotate/proxyherd logrotate /etc/logrotate.d/proxyherd
	fi
	if [ -n "$DESTDIR" ]; then
		return
	fi
	set_up_this_system
	if [ -n "$previous" ]; then
		echo "Servers that run go on with the version before; restart one after another: docs/operations.md, Upgrade"
		return
	fi
	cat <<-END
		Installed. Next, as root:
		  edit /etc/proxyherd/herd.toml, unless the default herd will do
		  copy /etc/proxyherd/secret of one host to all others, where there are several
		  systemctl enable --now proxyherd.target proxyherd@NAME ...   for the servers of this host
		  proxyherd status --config /etc/proxyherd/herd.toml --wait 30
	END
}

refuse_while_servers_run() {
	running=$(systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating \
		'proxyherd@*.service' proxyherd-gazetteer.service | cut -d ' ' -f 1 | tr '\n' ' ')
	[ -z "$running" ] || fail "${running}still runs; stop the servers first: systemctl stop 'proxyherd@*.service'"
}

uninstall() {
	refuse_units_of_another_prefix "$systemd"
	booted=$([ -n "$DESTDIR" ] || [ ! -d /run/systemd/system ] || echo yes)
	[ -z "$booted" ] || refuse_while_servers_run
	if [ -z "$DESTDIR" ] && command -v systemctl >/dev/null && [ -e "$units/proxyherd.target" ]; then
		systemctl --quiet disable proxyherd.target proxyherd@.service
	fi
	if cmp -s "$DESTDIR$shared/logrotate" "$DESTDIR/etc/logrotate.d/proxyherd"; then
		rm -f "$DESTDIR/etc/logrotate.d/proxyherd"
	fi
	for unit in $unit_names; do
		rm -f "$DESTDIR$units/$unit"
	done
	rm -f "$DESTDIR$systemd/sysusers.d/proxyherd.conf" "$DESTDIR$systemd/tmpfiles.d/proxyherd.conf" "$DESTDIR$launcher"
	rm -rf "$DESTDIR$program" "$DESTDIR$shared"
	[ -z "$booted" ] || systemctl daemon-reload
	for left in /etc/logrotate.d/proxyherd /etc/proxyherd /var/lib/proxyherd /var/log/proxyherd; do
		[ ! -e "$DESTDIR$left" ] || echo "Left: $DESTDIR$left"
	done
	[ -n "$DESTDIR" ] || ! grep -q '^proxyherd:' /etc/passwd || echo "Left: the user proxyherd"
}

command=${1-}
check_folders
case $command in
	install | uninstall) "$command" ;;
	*) fail "is not a thing to do; type make install or make uninstall" ;;
esac
