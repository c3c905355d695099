#!/bin/sh
# Loads the function that servers call into all masters of a Redis Cluster: load-function.sh HOST:PORT, any node of it
#
# Servers may call functions but not load them, because a function can stop a master. Run this once for a new cluster
# (create-cluster.sh does), and before you upgrade servers to a version that needs another function. The old function
# stays, so servers of both versions work. You can run this again without harm. The environment:
#   REDISCLI_AUTH   the password of the user admin
#   REDIS_CLI       redis-cli --user admin; with TLS: redis-cli --user admin --tls --cacert ca.pem
set -eu

: "${REDIS_CLI:=redis-cli --user admin}"
file=$(dirname "$0")/../../proxyherd/engines/redis/function.lua

fail() {
	echo "load-function.sh: $*" >&2
	exit 1
}

ask() { # HOST:PORT COMMAND...
	address=$1
	shift
	# shellcheck disable=SC2086 # words of a command
	$REDIS_CLI --no-auth-warning -h "${address%:*}" -p "${address##*:}" "$@" 2>&1
}

[ $# -eq 1 ] || fail "usage: load-function.sh HOST:PORT"
[ -r "$file" ] || fail "there is no $file; run this in a checkout of proxyherd"
nodes=$(ask "$1" CLUSTER NODES) || fail "$1 says: $nodes"
masters=$(printf '%s\n' "$nodes" | awk '$3 ~ /master/ && $3 !~ /fail|noaddr|handshake/ { sub(/@.*/, "", $2); print $2 }')
[ -n "$masters" ] || fail "$1 knows no master: $nodes"
for master in $masters; do
	case $master in :*) master=$1 ;; esac # a node that has not been told its own host
	answer=$(ask "$master" -x FUNCTION LOAD REPLACE <"$file") || true
	case $answer in
		proxyherd_*) ;;
		*) fail "$master says: $answer" ;;
	esac
done
