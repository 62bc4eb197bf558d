#!/bin/busybox sh
# Process 1 of the guest: mounts what a Linux system has, runs /command on the
# second serial port, reports its exit status there, and restarts, which ends
# the virtual machine. The host puts NONCE and NOW in place.
export PATH=/procid:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
ip link set lo up
while read -r module; do insmod "/modules/$module"; done </modules/order
date -s @NOW >/dev/null
stty -F /dev/ttyS1 raw -echo
printf '\036NONCE boot 0\n' >/dev/ttyS1
cd /root
/command </dev/null >/dev/ttyS1 2>&1
printf '\036NONCE exit %s\n' $? >/dev/ttyS1
reboot -f
