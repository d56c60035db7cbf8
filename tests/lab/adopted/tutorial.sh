# Sets up one host as the tutorial says, step by step, with what its distribution has: $ROLE is db, etcd or haproxy,
# $HOST the host's name, $ADDRESS its address, $DATABASES the databases' names and addresses (name=address ...), $ETCD
# the address of etcd, and $HAPROXY that of HAProxy.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
members() { for m in $DATABASES; do printf '%s %s\n' "${m%%=*}" "${m#*=}"; done; }

# 2. /etc/hosts
{
  members | while read -r n a; do echo "$a  $n"; done
  echo "$ETCD  node4"
  echo "$HAPROXY  haproxy"
} >>/etc/hosts

case $ROLE in
db)
  v=$(basename /usr/lib/postgresql/*)
  # 3. The package makes a cluster of its own, and the tutorial stops it.
  pg_createcluster "$v" main >/dev/null
  # 4.
  ln -s /usr/lib/postgresql/"$v"/bin/* /usr/sbin 2>/dev/null || true
  # 5. `pip install` puts the same packages there; the image has them in a venv, so that nothing is downloaded.
  cp -r /opt/patroni/lib/python3*/site-packages/. "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib", "posix_local"))')"
  for p in patroni patronictl; do
    case $p in patroni) m=patroni.__main__ f=main ;; *) m=patroni.ctl f=ctl ;; esac
    printf '#!/usr/bin/python3\nimport sys\nfrom %s import %s\nif __name__ == "__main__":\n    sys.exit(%s())\n' \
      $m $f $f >/usr/local/bin/$p
    chmod 755 /usr/local/bin/$p
  done
  # 9. to 11.
  {
    cat <<YAML
scope: postgres
namespace: /db/
name: $HOST
restapi:
  listen: $ADDRESS:8008
  connect_address: $ADDRESS:8008
etcd:
  host: $ETCD:2379
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
    use_pg_rewind: true
  initdb:
    - encoding: UTF8
    - data-checksums
  pg_hba:
    - host replication replicator   127.0.0.1/32 md5
YAML
    members | while read -r _ a; do echo "    - host replication replicator   $a/0   md5"; done
    cat <<YAML
    - host all all   0.0.0.0/0   md5
  users:
    admin:
       password: admin
       options:
       - createrole
       - createdb
postgresql:
   listen: $ADDRESS:5432
   connect_address: $ADDRESS:5432
   data_dir:     /data/patroni
   pgpass:     /tmp/pgpass
   authentication:
    replication:
      username:   replicator
      password:     "A1qaz2wsx3edc"
    superuser:
      username:   postgres
      password:     "B1qaz2wsx3edc"
      parameters:
      unix_socket_directories:  '.'
tags:
   nofailover:   false
   noloadbalance:   false
   clonefrom:   false
   nosync:   false
YAML
  } >/etc/patroni.yml
  # 12.
  mkdir -p /data/patroni
  chown postgres:postgres /data/patroni/
  chmod 700 /data/patroni/
  # 13.
  cat >/etc/systemd/system/patroni.service <<'UNIT'
[Unit]
Description=Patroni Orchestration
After=syslog.target network.target
[Service]
Type=simple
User=postgres
Group=postgres
ExecStart=/usr/local/bin/patroni /etc/patroni.yml
KillMode=process
TimeoutSec=30
Restart=no
[Install]
WantedBy=multi-user.targ
UNIT
  # 14.
  systemctl daemon-reload
  systemctl start patroni
  ;;
etcd)
  # A host of EC2 has a name of its own, which etcd takes.
  hostname ip-192-168-0-179
  systemctl daemon-reload
  # 6. The package starts it with its defaults.
  systemctl start etcd
  systemctl stop etcd
  # 8. The member that the package has made is there already, so the initial settings say nothing.
  cat >/etc/default/etcd <<ENV
ETCD_LISTEN_PEER_URLS  =  "http://$ETCD:2380,http://$ETCD:7001"
ETCD_LISTEN_CLIENT_URLS  =  "http://127.0.0.1:2379, http://$ETCD:3379, http://$ETCD:2379"
ETCD_INITIAL_ADVERTISE_PEER_URLS  =  "http://$ETCD:2380"
ETCD_INITIAL_CLUSTER  =  "etcd0=http://$ETCD:2380"
ETCD_ADVERTISE_CLIENT_URLS  =  "http://$ETCD:2379"
ETCD_INITIAL_CLUSTER_TOKEN  =  "node1"
ETCD_INITIAL_CLUSTER_STATE  =  "new"
DAEMON_ARGS = "--enable-v2=true"
ENV
  systemctl daemon-reload
  systemctl enable --quiet etcd
  systemctl restart etcd
  ;;
haproxy)
  # 15.
  {
    cat <<'CFG'
global
      maxconn 100
defaults
      log global
      mode tcp
      retries 2
      timeout client 30m
      timeout connect 4s
      timeout server 30m
      timeout   check   5s
listen stats
      mode http
      bind *:7000
      stats enable
      stats uri /
listen postgres
      bind *:5000
      option httpchk
      http-check expect status 200
      default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
CFG
    members | while read -r n a; do echo "      server $n $a:5432 maxconn 100   check   port 8008"; done
  } >/etc/haproxy/haproxy.cfg
  # 16.
  systemctl enable --quiet haproxy
  systemctl restart haproxy
  ;;
esac
