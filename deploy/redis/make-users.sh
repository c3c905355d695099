#!/bin/sh
# Makes the passwords and users of a Redis Cluster, in a folder: make-users.sh /etc/proxyherd/redis
#
# The folder then has users.acl and local.conf, which every node reads; password, for the servers; and admin-password,
# for the operator. All hosts of the cluster need the same files, so run this once and copy them. The rules: existing
# files are never overwritten, and no other user may read these.
set -eu
umask 077

folder=${1:?"usage: make-users.sh FOLDER"}
example=$(dirname "$0")/users.acl.example

make_password() { # FILE, written aside and renamed: an empty one would be kept, and be everybody's password
	[ ! -e "$1" ] || return 0
	od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
	[ "$(wc -c <"$1.new")" -eq 64 ] || exit 1
	mv "$1.new" "$1"
}

hash_of() { # FILE
	sha256sum <"$1" | cut -d ' ' -f 1
}

mkdir -p "$folder"
for name in password admin-password replication-password; do
	make_password "$folder/$name"
done
if [ ! -e "$folder/users.acl" ]; then
	sed -e "s/#SHA256-OF-PASSWORD/#$(hash_of "$folder/password")/" \
		-e "s/#SHA256-OF-ADMIN-PASSWORD/#$(hash_of "$folder/admin-password")/" \
		-e "s/#SHA256-OF-REPLICATION-PASSWORD/#$(hash_of "$folder/replication-password")/" \
		"$example" >"$folder/users.acl.new"
	mv "$folder/users.acl.new" "$folder/users.acl"
fi
if [ ! -e "$folder/local.conf" ]; then
	cat >"$folder/local.conf.new" <<-END
		# What this host and this cluster have of their own; the rest is in redis.conf.
		masteruser replication
		masterauth $(cat "$folder/replication-password")
	END
	mv "$folder/local.conf.new" "$folder/local.conf"
fi
