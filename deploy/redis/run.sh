#!/bin/sh
# Starts the herd on Redis on this machine, for `make run-redis`, which sets BIN, the virtual environment's programs.
# Parts that run already stay as they are, so it can be run again.
set -eu

config=deploy/redis/herd.toml
folder=var/redis
ports="7001 7002 7003 7004 7005 7006 7007 7008 7009"
nodes=$(printf '127.0.0.1:%s ' $ports)

fail() {
	echo "make run-redis: $*" >&2
	exit 1
}

install_redis() {
	! command -v redis-server >/dev/null || return 0
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "Installing redis-server"
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server; } >/dev/null 2>&1 || true
	fi
	command -v redis-server >/dev/null || fail "there is no redis-server; on Debian: apt-get install redis-server"
}

check_ports() {
	# shellcheck disable=SC2086 # words
	$BIN/python - $ports <<-'END' || exit 1
		import socket
		import sys

		for port in [*map(int, sys.argv[1:]), *(int(one) + 10000 for one in sys.argv[1:])]:
		    try:
		        socket.create_server(("127.0.0.1", port)).close()
		    except OSError as error:
		        sys.exit(f"make run-redis: port {port}: {error.strerror}; ss -ltnp tells whose it is")
	END
}

herd() {
	PROXYHERD_TYPED='make run-redis' $BIN/python -m proxyherd.local "$@"
}

umask 027
herd prepare
install_redis
for port in $ports; do
	mkdir -p $folder/$port
done
deploy/redis/make-users.sh $folder
herd is-up || check_ports
herd start deploy/redis/supervisord.conf
# shellcheck disable=SC2086 # words
REDISCLI_AUTH=$(cat $folder/admin-password) deploy/redis/create-cluster.sh $nodes ||
	fail "the Redis Cluster is not whole; see also: $BIN/supervisorctl status"
herd wait $config
cat <<END

The herd is up, on a Redis Cluster of nine. Next, for example:
  nc 127.0.0.1 10003      and type there:
    IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503
    WHATSAT kiwi.cs.ucla.edu 10 5
  http://127.0.0.1:10300/ in a browser: report where it is, and see what is around
  $BIN/proxyherd whatsat kiwi.cs.ucla.edu 10 5 --server Bailey --config $config
  $BIN/proxyherd status --config $config
  REDISCLI_AUTH=\$(cat $folder/admin-password) redis-cli --user admin -p 7001 cluster nodes
  $BIN/supervisorctl restart redis:7001
  make stop
END
