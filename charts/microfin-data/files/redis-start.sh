#!/bin/sh
# Writes the users' rights and this node's current address, and then runs redis-server.
set -eu
. /etc/redis/common.sh
umask 077

password() {
    printf '#'
    printf %s "$1" | sha256sum | cut -d ' ' -f 1
}

# The worker caches accounts and publishes answers. The API also stores sessions, notes on keys and counts
# of failed sign-ins, and listens for answers and ended sessions. A client of a cluster needs the other
# commands.
connect='+ping +command +cluster|slots +cluster|info +client|setinfo +asking'
cache='+get +set +eval +evalsha'
cat > /run/redis/users.acl <<END
user default reset
user microfin_admin reset on $(password "$REDISCLI_AUTH") ~* &* +@all
user microfin_worker reset on $(password "$WORKER_PASSWORD") $connect ~account:* $cache &replies:* +spublish
user microfin_api reset on $(password "$API_PASSWORD") $connect ~account:* ~session:* ~key:* ~rate:* $cache +del +incr +expire &replies:* &sessions-ended +spublish +ssubscribe +sunsubscribe
END

# This user reads figures, and no keys. It exists only if there is an exporter.
if [ -n "${METRICS_PASSWORD:-}" ]; then
    cat >> /run/redis/users.acl <<END
user microfin_metrics reset on $(password "$METRICS_PASSWORD") +ping +info +cluster|info
END
fi

# Puts a word in double quotes, as a settings file needs it.
quoted=$(printf %s "$REDISCLI_AUTH" | sed 's/["\\]/\\&/g')
cat > /run/redis/redis.conf <<END
include /etc/redis/redis.conf
masteruser microfin_admin
masterauth "$quoted"
cluster-announce-ip $POD_IP
cluster-announce-hostname $(host_of "$ORDINAL")
END

# Nodes recognise each other by their certificates: the bus asks both sides for one of the authority.
# Clients show their passwords, and no certificates. They get names, because a certificate has no
# addresses of pods.
if [ -n "$TLS" ]; then
    cat >> /run/redis/redis.conf <<END
port 0
tls-port 6379
tls-cluster yes
tls-replication yes
tls-auth-clients no
tls-protocols "TLSv1.2 TLSv1.3"
tls-cert-file "$TLS/tls.crt"
tls-key-file "$TLS/tls.key"
tls-ca-cert-file "$TLS/ca.crt"
cluster-preferred-endpoint-type hostname
END
fi

# nodes.conf contains this node's id. The address in it is that of an earlier pod.
if [ -s /data/nodes.conf ]; then
    sed -E "/ myself,|,myself | myself /s/ [0-9a-fA-F.:]*:6379@/ $POD_IP:6379@/" /data/nodes.conf > /data/nodes.conf.new
    mv /data/nodes.conf.new /data/nodes.conf
fi

unset REDISCLI_AUTH WORKER_PASSWORD API_PASSWORD METRICS_PASSWORD
exec sh /etc/redis/run.sh
