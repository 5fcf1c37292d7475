#!/bin/busybox sh
# Process 1 of the lab guest: the host's own file system (9p, read-only, changes stay in memory) as
# root, the guest kernel's modules in it, then the agent, whose lines are the second serial port's.
# Arguments come as the kernel's: sluice_modules= sluice_node= sluice_agent=. Its end is the guest's.
b=/bin/busybox
for module in /modules/*.ko; do $b insmod "$module"; done
$b mount -t tmpfs tmpfs /changes && $b mkdir /changes/upper /changes/work
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /host
$b mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work overlay /root
cd /root
$b mount -t proc proc proc
$b mount -t sysfs sysfs sys
$b mount -t devtmpfs dev dev
$b mkdir -p dev/shm lib/modules
$b mount -t tmpfs tmpfs dev/shm
$b mount -t tmpfs tmpfs run
$b mount -t bpf bpf sys/fs/bpf
$b mount --bind "/host$sluice_modules" lib/modules
$b ip link set lo up
$b stty -F dev/ttyS1 raw -echo
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec $b chroot /root /bin/sh -c "modprobe tun; cat /dev/ttyS1 | $sluice_node $sluice_agent 2>/dev/ttyS0 | cat >/dev/ttyS1"
