#!/bin/sh
# Makes a Redis Cluster of running, empty nodes: create-cluster.sh HOST:PORT HOST:PORT ...
#
# Each master has two replicas, so nine nodes are three masters and six replicas. If there are enough hosts, redis-cli
# puts a master and its replicas on different ones. If there is a cluster already, the script leaves it as it is and
# waits for it. Then it loads the function that servers call (load-function.sh). The environment:
#   REDISCLI_AUTH   the password of the user admin
#   REDIS_CLI       redis-cli --user admin; with TLS: redis-cli --user admin --tls --cacert ca.pem
#   REPLICAS        2
#   SECONDS_TO_WAIT 60
set -eu

: "${REDIS_CLI:=redis-cli --user admin}" "${REPLICAS:=2}" "${SECONDS_TO_WAIT:=60}"
deadline=$(($(date +%s) + SECONDS_TO_WAIT))

fail() {
	echo "create-cluster.sh: $*" >&2
	exit 1
}

ask() { # HOST:PORT COMMAND...
	address=$1
	shift
	# shellcheck disable=SC2086 # words of a command
	$REDIS_CLI --no-auth-warning -h "${address%:*}" -p "${address##*:}" "$@" 2>&1 || true
}

wait_until() { # WHAT COMMAND...
	what=$1
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$deadline" ] || fail "not within $SECONDS_TO_WAIT s: $what. ${seen:-}"
		sleep 0.2
	done
}

answers() { # HOST:PORT
	seen=$(ask "$1" PING)
	case $seen in
		PONG) return 0 ;;
		WRONGPASS* | NOAUTH* | NOPERM* | *AUTH\ failed*) fail "$1 says: $seen. Is REDISCLI_AUTH the password of its user admin?" ;;
	esac
	return 1
}

is_whole() { # HOST:PORT
	seen="$1 says: $(ask "$1" CLUSTER INFO | grep -E 'cluster_(state|slots_ok|known_nodes):' | tr '\r\n' '  ')"
	case $seen in
		*"cluster_state:ok"*"cluster_slots_ok:16384"*) ;;
		*) return 1 ;;
	esac
	replication=$(ask "$1" INFO replication)
	case $replication in
		*"master_link_status:down"*)
			seen="$1 has not got its master's table yet"
			return 1
			;;
	esac
}

known_nodes() { # HOST:PORT
	ask "$1" CLUSTER INFO | sed -n 's/^cluster_known_nodes:\([0-9]*\).*/\1/p'
}

[ $# -gt 0 ] || fail "usage: create-cluster.sh HOST:PORT HOST:PORT ..."
for node in "$@"; do
	wait_until "$node answers" answers "$node"
done

[ "$(known_nodes "$1")" != "" ] || fail "$1 is not in cluster mode; start it with deploy/redis/redis.conf"
if [ "$(known_nodes "$1")" -eq 1 ]; then
	for node in "$@"; do
		[ "$(known_nodes "$node")" -eq 1 ] ||
			fail "$node is in a cluster already, and $1 is not. If that was a creation that broke off: stop the nodes," \
				"remove what is in their folders, start them, and run this again"
	done
	# It would wait for ever for nodes that do not reach each other.
	# shellcheck disable=SC2086 # words of a command
	created=$(timeout "$SECONDS_TO_WAIT" $REDIS_CLI --no-auth-warning --cluster create "$@" \
		--cluster-replicas "$REPLICAS" --cluster-yes 2>&1) ||
		fail "redis-cli says: $created. Do nodes reach each other, at these ports and 10000 above? Then stop them," \
			"remove what is in their folders, start them, and run this again"
fi
for node in "$@"; do
	wait_until "$node has all slots, and its master's table" is_whole "$node"
done
"$(dirname "$0")/load-function.sh" "$1"
