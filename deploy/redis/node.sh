#!/bin/sh
# Runs one node of the cluster: node.sh PORT FOLDER FILES [MORE OF REDIS-SERVER...]
#   FOLDER  what this node stores
#   FILES   the folder with local.conf and users.acl, which other nodes of the host read too
# redis.conf stands beside this script.
#
# A node that ended as a master may lack answered reports, which its replicas had but its own file had not. If it
# served again, its replicas would copy its data, and those reports would be lost. So a master starts closed: it takes
# part in the cluster and votes, but neither servers nor replicas can log in, only the user admin. Then this script
# asks its replicas, and takes the first case that applies:
#   1. Another node is the master now: this one opens, as its replica.
#   2. A replica has gone on without it: the one that has received most becomes the master, by an election.
#   3. A replica does not answer, and none has gone on: it waits, since that one may have more. The log says for whom.
#      An operator who gives that one up creates the file FOLDER/serve-anyway.
#   4. All replicas have been started anew too: none is ahead of it, and it opens as the master.
# Replicas that the node had seen fail before it ended do not count: they have nothing that it lacks.
set -eu

port=$1 folder=$(cd "$2" && pwd) files=$(cd "$3" && pwd) conf=$(cd "$(dirname "$0")" && pwd)/redis.conf
shift 3
nodes_file=$folder/nodes.conf
newline='
'
users=$folder/users-now.acl # what redis-server reads: closed, or a link to FILES/users.acl

setting() { # NAME: its value in the configuration; local.conf has the last word
	cat "$conf" "$files/local.conf" | sed -n "s/^[[:space:]]*$1[[:space:]]\{1,\}//p" | tail -n 1 | tr -d '"'
}

say() { # MESSAGE, once until it changes
	[ "$1" = "${said:-}" ] || echo "node.sh: $1" >&2
	said=$1
}

ask() { # HOST:PORT USER PASSWORD COMMAND...
	address=$1 user=$2 password=$3
	shift 3
	# shellcheck disable=SC2086 # words of a command
	REDISCLI_AUTH=$password timeout 3 redis-cli $tls --no-auth-warning --user "$user" \
		-h "${address%:*}" -p "${address##*:}" "$@" 2>&1 | tr -d '\r' || true
}

# Replicas of the node with slots that calls itself a master, in CLUSTER NODES or nodes.conf: id, address, and whether it
# is `failed` or `there`.
replicas() {
	awk '
		$3 ~ /myself/ && $3 ~ /master/ && NF > 8 { me = $1 }
		{ id[NR] = $1; address[NR] = $2; flags[NR] = "," $3 ","; master[NR] = $4 }
		END {
			for (n = 1; n <= NR; n++) if (me != "" && master[n] == me) {
				sub(/@.*/, "", address[n])
				print id[n], address[n], (flags[n] ~ /,(fail|noaddr),/ ? "failed" : "there")
			}
		}'
}

open() {
	ln -sfn "$files/users.acl" "$users"
	answer=$(ask "$own" "$login" "$secret" ACL LOAD)
	[ "$answer" = OK ] && rm -f "$folder/serve-anyway" && say "$1" && return
	say "$files/users.acl cannot be loaded, so nobody can log in: $answer"
	return 1
}

# Sets best, the replica that has gone on and received most, and waits_for, those of which that is not known.
ask_replicas() {
	best='' most=1 waits_for='' # offset 1: it has received nothing since its start
	while read -r id address state; do
		case $counted in *" $id "*) ;; *) continue ;; esac
		if [ "$state" = failed ]; then
			lost="$lost $address (failed)"
			continue
		fi
		answer=$(ask "$address" "$replication_user" "$replication_password" INFO replication </dev/null)
		case $answer in
			*role:slave*"master_port:$port$newline"*)
				offset=$(printf '%s\n' "$answer" | sed -n 's/^slave_repl_offset://p')
				[ "$offset" -le "$most" ] || { best=$address most=$offset; }
				;;
			*role:*) waits_for="$waits_for $address (has another master)" ;;
			*NOPERM*) waits_for="$waits_for $address (its users.acl lacks +info and +cluster|failover for $replication_user)" ;;
			*) waits_for="$waits_for $address ($(printf '%s' "$answer" | head -n 1))" ;;
		esac
	done <<-END
		$(printf '%s\n' "$nodes" | replicas)
	END
}

# Returns 0 when the node is open.
try_to_open() {
	nodes=$(ask "$own" "$login" "$secret" CLUSTER NODES)
	case $nodes in
		*myself,slave*) open "another node is the master now, and this one its replica" && return ;;
		*myself,master*) ;;
		*) return 1 ;; # it reads its file
	esac
	if [ -e "$folder/serve-anyway" ]; then
		open "serves as master, as $folder/serve-anyway tells it to" && return
		return 1
	fi
	lost=''
	ask_replicas
	if [ -n "$best" ] && [ -z "$waits_for" ]; then
		say "$best has gone on without this node, and is to be the master"
		# Two shards that hold an election at the same instant get half of the votes each, and must wait.
		sleep "0.$(od -An -N1 -tu1 /dev/urandom | tr -d ' ')"
		answer=$(ask "$best" "$replication_user" "$replication_password" CLUSTER FAILOVER FORCE)
		[ "$answer" = OK ] || say "$best does not become the master: $answer"
		sleep 1
	elif [ -n "$waits_for$lost" ]; then
		say "is closed, and waits for:$waits_for$lost. What they have may be ahead of this node's file. Start them; to give up what only they have: touch $folder/serve-anyway"
	else
		open "serves as master: its replicas have nothing that it lacks" && return
	fi
	return 1
}

open_when_safe() { # PID of the node
	while kill -0 "$1" 2>/dev/null; do
		! try_to_open || return 0
		sleep 0.2
	done
}

counted=''
if [ -e "$nodes_file" ]; then
	counted=$(replicas <"$nodes_file" | sed -n 's/^\([^ ]*\) .* there$/ \1 /p' | tr -d '\n')
fi
listen="--port $port" tls=''
if [ "$(setting tls-cluster)" = yes ]; then
	listen="--port 0 --tls-port $port"
	tls="--tls --cacert $(setting tls-ca-cert-file)"
	tls="$tls --cert $(setting tls-cert-file) --key $(setting tls-key-file)"
fi
rm -f "$users"
if [ -z "$counted" ]; then
	ln -s "$files/users.acl" "$users"
else
	host=$(setting bind | sed 's/^-//; s/ .*//')
	case $host in '' | '*' | 0.0.0.0) host=127.0.0.1 ;; esac
	own=$host:$port
	login=node.sh secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	replication_user=$(setting masteruser) replication_password=$(setting masterauth)
	(
		umask 077
		{
			# Off, so nobody can be it, but with all rights: Redis reads its own file as this user.
			echo 'user default off ~* &* +@all'
			echo "user $login on #$(printf %s "$secret" | sha256sum | cut -d ' ' -f 1) +acl|load +cluster|nodes"
			grep '^user admin ' "$files/users.acl" || true
		} >"$users"
	)
	# Not a child of the node, which does not expect one.
	(open_when_safe $$ &)
fi
# shellcheck disable=SC2086 # words of a command
exec redis-server "$conf" $listen --dir "$folder" --aclfile "$users" --include "$files/local.conf" "$@"
