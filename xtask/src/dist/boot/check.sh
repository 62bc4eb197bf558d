#!/bin/bash
# What must hold inside the machine; the host looks at what has left it. The host
# puts NONCE in place.
exec >/dev/ttyS1 2>&1 </dev/null
peer=10.0.2.2

finish() {
    printf '\036NONCE exit %s\n' "$1"
    sync
    systemctl poweroff --force --force
    exit
}

fail() {
    echo "check: $*"
    systemctl status --no-pager --full procid
    journalctl --no-pager --lines 40 --unit procid
    finish 1
}

# Waits until "$@" succeeds.
await() {
    local turn
    for turn in {1..600}; do
        "$@" 2>/dev/null && return
        sleep 0.2
    done
    fail "in vain: $*"
}

# Whether the kernel refuses a datagram to port $1.
refused() {
    local error
    error=$( { echo check >"/dev/udp/$peer/$1"; } 2>&1)
    case $error in *'not permitted'*) return 0 ;; *) return 1 ;; esac
}

many_allowed() { [ "$(cat /run/sender/allowed)" -ge 10 ]; }
main_pid() { systemctl show --property MainPID --value procid; }
is_new() { [ "$(systemctl is-active procid)" = active ] && [ "$(main_pid)" != "$1" ]; }

await many_allowed
if grep -q systemd.mask=procid.service /proc/cmdline; then
    finish 0
fi

[ "$(systemctl is-active procid)" = active ] || fail "procid does not run"
[ "$(cat /run/sender/denied)" -gt 0 ] || fail "the sender was never denied"
procid status >/run/status || { cat /run/status; fail "procid is not healthy"; }
sed -n 2,3p /run/status
systemd-analyze security --no-pager procid | tail -n 1
refused 9003 || fail "9003 is not denied"

# Killed, with a network that is up: nothing is let through until it is back.
before=$(main_pid) tries=0
kill -KILL "$before"
until is_new "$before"; do
    refused 9001 || fail "let through when killed, try $tries"
    [ $((++tries)) -lt 5000 ] || fail "it does not come back"
done
echo "check: killed as $before, back as $(main_pid), refused $tries times meanwhile"
refused 9001 || fail "let through by the next agent"

before=$(main_pid)
systemctl restart procid &
while kill -0 $! 2>/dev/null; do refused 9001 || fail "let through at a restart"; done
await is_new "$before"

systemctl stop procid
refused 9001 || fail "let through when stopped"
echo "check: denied $(cat /run/sender/denied) times by now"

# Without the package nothing is left in force, and nothing of it on the disk.
systemctl stop sender
dpkg --purge procid >/run/purge || fail "cannot be purged"
refused 9003 && fail "purged, and 9003 still denied"
[ -e /var/lib/procid ] && fail "purged, and /var/lib/procid still there"
[ -e /etc/procid/procid.toml ] && fail "purged, and its settings still there"
finish 0
