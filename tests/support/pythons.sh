#!/bin/sh
# Runs the tests on several Pythons, for `make test-pythons`; PYTEST_ARGS is quoted as in a shell. Each argument is one of
#     3.12                 python3.12 from the path, or else from pyenv
#     /opt/bin/python3     this interpreter
#     trixie               the one of this suite of Debian, in a bare root of its own, for root with mmdebstrap
# Each gets a copy of this checkout, with a virtual environment, in a folder that is thrown away. What is not there is
# skipped, and said. In a bare root, so are tests that need programs which it does not have.
set -eu
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
PATH="$PATH:/usr/sbin:/sbin"

copy_checkout() { # FOLDER
	mkdir -p "$1"
	tar -cf - --exclude=__pycache__ --exclude='./.*_cache' --exclude='./*.egg-info' \
		$(printf -- '--exclude=./%s ' .git .venv .hypothesis var build dist) . | tar -C "$1" -xf -
}

test_script='cd "$1" && make --no-print-directory .venv/test.stamp PYTHON="$2" &&
	eval "exec .venv/bin/pytest -q -n 4 --dist loadgroup ${PYTEST_ARGS-}"'

find_python() { # VERSION
	for python in "$(command -v "python$1" || true)" "$HOME/.pyenv/versions/$1".*/bin/python3; do
		# A shim of pyenv is there also for a version that is not chosen.
		! "$python" -c '' 2>/dev/null || { echo "$python" && return; }
	done
}

# It ends with all that it has started and mounted.
in_root() { # ROOT
	for file in /etc/pip.conf /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
		[ ! -e "$file" ] || install -D -m 644 "$file" "$1$file"
	done
	unshare --mount --propagation private --pid --fork --kill-child sh -euc '
		mount -t proc proc "$1/proc"
		mount --rbind /dev "$1/dev"
		exec chroot "$1" env -u PIP_FIND_LINKS HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$2" sh /herd python3
	' sh "$1" "$test_script"
}

note() { # PYTHON WHAT_BECAME_OF_IT
	echo "$1: $2" >>"$folder/notes"
}

code=1 # until one has passed
for python; do
	copy=$folder/$(echo "$python" | tr / _)
	case $python in
		*/*) found=$(command -v "$python" || true) missing="there is no such interpreter" ;;
		[0-9]*) found=$(find_python "$python") missing="neither the path nor pyenv has python$python" ;;
		*)
			found=$(command -v mmdebstrap || true) missing="a bare root is made by root, with mmdebstrap"
			[ "$(id -u)" = 0 ] || found= ;;
	esac
	if [ -z "$found" ]; then
		note "$python" "skipped, $missing"
		continue
	fi
	echo "Testing on $python"
	passed=no
	case $python in
		*/* | [0-9]*)
			copy_checkout "$copy"
			! sh -c "$test_script" sh "$copy" "$found" || passed=yes ;;
		*)
			mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
				--include=python3,python3-venv,make,ca-certificates,procps,iproute2,openssl,curl "$python" "$copy" || {
				note "$python" "skipped, its root could not be made"
				continue
			}
			copy_checkout "$copy/herd"
			! in_root "$copy" || passed=yes ;;
	esac
	if [ "$passed" = yes ]; then
		note "$python" passed
		[ -n "${failed-}" ] || code=0
	else
		note "$python" failed
		failed=yes code=1
	fi
	rm -rf "$copy"
done
cat "$folder/notes"
exit "$code"
