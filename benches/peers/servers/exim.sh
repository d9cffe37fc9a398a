# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# Exim: syncs its spool files, and leaves the message in the queue.

exim4=$peers/exim4-daemon-light/usr/sbin/exim4
if [ -e "$exim4" ]; then
    register exim 25253 Exim "$(cat "$peers/exim4-daemon-light.version")" "on stable storage" "stays in the queue" \
        "GnuTLS $(dpkg-query --show --showformat '${Version}' libgnutls30 | sed 's/-.*//')" "tickets (tls_resumption_hosts)"
fi

start_exim() {
    local base=$run/exim tls ports=${port[exim]}
    mkdir -p "$base/spool/input"
    tls="tls_advertise_hosts ="
    if [ -n "$certificate" ]; then
        cp "$certificate" "$base/server.crt"
        cp "$certificate_key" "$base/server.key"
        ports+=" : ${tls_port[exim]}"
        # Nothing in these is expanded: so they are loaded once, by the daemon.
        tls="tls_advertise_hosts = *
tls_on_connect_ports = ${tls_port[exim]}
tls_certificate = $base/server.crt
tls_privatekey = $base/server.key
tls_resumption_hosts = *
tls_dhparam = none"
    fi
    chown -R Debian-exim:Debian-exim "$base"
    cat >"$run/exim.conf" <<END
primary_hostname = mail.$domain
spool_directory = $base/spool
# There is none here: nothing is logged.
log_file_path = syslog
daemon_smtp_ports = $ports
local_interfaces = 127.0.0.1
keep_environment =
# Mail is taken, synced and left in the queue.
queue_only
# Its files over many folders, as the documentation advises for long queues; no log for each message,
# no look at the free space.
split_spool_directory
message_logs = false
check_spool_space = 0
check_spool_inodes = 0
check_log_space = 0
check_log_inodes = 0
# Room for all of the load's sessions and for all their messages.
smtp_accept_max = 200
smtp_accept_reserve = 0
smtp_accept_max_per_host = 200
smtp_accept_max_per_connection = 0
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1024
# No DNS, no ident, no filter.
host_lookup =
rfc1413_hosts =
$tls
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept domains = $domain
END
    launch exim "$exim4" -C "$run/exim.conf" -bdf -oP "$base/exim.pid"
}
kept_exim() { # a header and a data file for each message
    local headers data
    headers=$(find "$run/exim/spool/input" -name '*-H' | wc -l)
    data=$(find "$run/exim/spool/input" -name '*-D' -size +1k | wc -l)
    [ "$headers" -eq "$data" ] || die "Exim has $headers header files and $data data files"
    echo "$headers"
}
empty_exim() { find "$run/exim/spool/input" -type f -delete; }
