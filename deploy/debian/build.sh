#!/bin/sh
# Builds a Debian package into dist/, for `make deb`: what `make install` puts below PREFIX=/usr, and what Debian wants
# besides. It is for the release of Debian on which it is built: the libraries in it are compiled for that Python.
#
# dpkg-deb packs the same folders that `make install` makes, so there is one way to install and not two. dh-virtualenv
# would bring a virtual environment, whose libraries a running server would lose at an upgrade.
set -eu
umask 022
cd "$(dirname "$0")/../.."
here=deploy/debian
root=build/deb/root
doc=usr/share/doc/proxyherd

for program in dpkg-deb dpkg-query strip; do
	command -v $program >/dev/null || {
		echo "make deb: there is no $program; build the package on the Debian that it is for, with dpkg and binutils" >&2
		exit 1
	}
done
. /etc/os-release
release=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
version=$release-1+deb${VERSION_ID:-$VERSION_CODENAME}
architecture=$(dpkg --print-architecture)
libc=$(dpkg-query -W -f '${Version}' libc6)

rm -rf build/deb
mkdir -p "$root/DEBIAN" dist
PYTHON=/usr/bin/python3 PREFIX=/usr DESTDIR=$PWD/$root sh deploy/install.sh install
[ -s "$root/usr/share/proxyherd/gazetteer.dat" ] || exit 1 # it has been said why
python=$(sed -n '1s|^#!/usr/bin/\(python3[0-9.]*\) .*|\1|p' "$root/usr/bin/proxyherd")
program=$(echo "$root"/usr/lib/proxyherd/*)

gzipped() { # FILE below the root; its text on stdin
	mkdir -p "$root/${1%/*}"
	gzip -9n >"$root/$1"
}

# The files that belong to Debian.
mkdir -p "$root/$doc" "$root/usr/share/lintian/overrides"
{
	cat LICENSE - $here/copyright <<-END

	END
	"/usr/bin/$python" -IS $here/pages.py licences "$program"
} >"$root/$doc/copyright"
gzipped $doc/changelog.gz <CHANGELOG.md
gzipped $doc/changelog.Debian.gz <<-END
	proxyherd ($version) ${VERSION_CODENAME:-unstable}; urgency=medium

	  * Release $release; /usr/share/doc/proxyherd/changelog.gz says what has changed.

	 -- The proxyherd authors <proxyherd@users.noreply.github.com>  $(LC_ALL=C date -R -u -r CHANGELOG.md)
END
"/usr/bin/$python" -IS $here/pages.py man "$program" | gzipped usr/share/man/man1/proxyherd.1.gz
cp $here/README.Debian "$root/$doc/README.Debian"
cp $here/lintian-overrides "$root/usr/share/lintian/overrides/proxyherd"
# Debian compiles where a package is installed.
find "$program" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$program" -type f -exec chmod 644 {} +

# What dpkg reads.
for script in postinst prerm postrm; do
	sed "s|@PYTHON@|/usr/bin/$python|" $here/$script >"$root/DEBIAN/$script"
	chmod 755 "$root/DEBIAN/$script"
done
printf '%s\n' /etc/proxyherd/herd.toml /etc/logrotate.d/proxyherd >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<-END
	Package: proxyherd
	Version: $version
	Architecture: $architecture
	Maintainer: The proxyherd authors <proxyherd@users.noreply.github.com>
	Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
	Depends: $python, libc6 (>= ${libc%%-*}), systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles
	Recommends: logrotate
	Section: net
	Priority: optional
	Homepage: $(sed -n 's/^Homepage = "\(.*\)"$/\1/p' pyproject.toml)
	Description: herd of servers that know where mobile clients are
	 Equal servers that take the locations that mobile clients report, flood them
	 to one another, and answer who and what is near. Each server is a process of
	 its own, with the whole table and a journal; systemd runs them.
	 .
	 The package has the libraries of the program in a folder of its own, and the
	 offline places of GeoNames.
END
sed -i '/^Homepage: $/d' "$root/DEBIAN/control"
(cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

# Quick: most of it are libraries that are compressed for one download.
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "dist/proxyherd_${version}_$architecture.deb" >/dev/null
rm -rf build/deb
ls "dist/proxyherd_${version}_$architecture.deb"
