#!/bin/sh
# Starts one node of the cluster for trying it out: node.sh PORT, from the folder of the checkout.
#
# A node that was killed left its pid file behind. It waits until a replica has taken its place: as master still, it would
# make its replicas forget what had not come to its own file yet, and that may have been answered.
set -eu
port=$1
here=$(dirname "$0")
folder=$(pwd)/var/redis/$port
if [ -e "$folder/redis.pid" ]; then
    sleep 6
fi
exec redis-server "$here/redis.conf" --port "$port" --dir "$folder" --pidfile "$folder/redis.pid" \
    --aclfile "$(pwd)/var/redis/users.acl" --include "$(pwd)/var/redis/local.conf"
