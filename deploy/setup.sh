#!/usr/bin/env bash
# Installs what a job needs from Debian's packages, and only what is missing.
#   setup.sh build   to build the native addons of npm packages
#   setup.sh run     to run the daemon and the demo
#   setup.sh test    to run the tests
#   setup.sh bench   to run the bench
#   setup.sh hosts   to run the demo and the chaos series of several hosts
#   setup.sh deb     to build the Debian package
#   setup.sh testdeb to try it on a clean Debian root
#   setup.sh callers to try libvirt's hook, bridges of their managers, and the alert rules
#   setup.sh image   to build and run the container's image
#   setup.sh vm      to run real guests and the bench's peers: their kernel is downloaded by the guest kit, not installed
set -euo pipefail

case "${1:-}" in
  build) want=(g++ make python3 libpcap-dev) ;;
  run)   want=(iproute2 nftables libbpf1 libpcap0.8 ethtool iperf3 tcpdump iputils-ping procps kmod util-linux) ;;
  test)  want=(clang libbpf-dev tshark openssl curl sockperf openmpi-bin netpipe-openmpi etcd-server etcd-client chromium) ;;
  bench) want=(sockperf openmpi-bin netpipe-openmpi hpcc) ;;
  vm)    want=(qemu-system-x86 ipxe-qemu gcc libc6-dev dpkg busybox-static iptables) ;;
  hosts) want=(etcd-server etcd-client nftables gcc libc6-dev strace) ;;
  deb)   want=(dpkg rsync binutils lintian) ;;
  testdeb) want=(debootstrap python3-seccomp systemd iproute2 util-linux) ;;
  callers) want=(libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 ifupdown bridge-utils systemd network-manager dbus prometheus iproute2) ;;
  image) want=(debootstrap buildah podman crun iproute2 util-linux) ;;
  *) echo "usage: $0 build|run|test|bench|hosts|vm|deb|testdeb|image|callers" >&2; exit 2 ;;
esac

node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if [ "$node_major" -lt 20 ]; then
  echo "sluice: Node 20 or later is needed, found $(node --version 2>/dev/null || echo none): install it from nodejs.org" >&2
  exit 1
fi

missing=()
for package in "${want[@]}"; do
  case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" in
    'install ok installed') ;;
    *) missing+=("$package") ;;
  esac
done
# A library or tool that came another way is as good as its package.
have() { case "$1" in
  g++|make|python3|clang|tshark|chromium|ethtool|iperf3|tcpdump|openssl|curl) command -v "$1" ;;
  *) return 1 ;; esac; }
need=()
for package in "${missing[@]}"; do have "$package" >/dev/null 2>&1 || need+=("$package"); done
[ "${#need[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "sluice: install these packages and try again: ${need[*]}" >&2; exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "sluice: not root, so please run: apt-get install ${need[*]}" >&2; exit 1
fi
echo "sluice: installing ${need[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get install -y --no-install-recommends "${need[@]}" >"$log" 2>&1 ||
       { apt-get update >"$log" 2>&1 && apt-get install -y --no-install-recommends "${need[@]}" >>"$log" 2>&1; }; }; then
  tail -20 "$log" >&2
  echo "sluice: the packages above could not be installed" >&2
  exit 1
fi
