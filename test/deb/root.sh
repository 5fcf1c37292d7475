#!/usr/bin/env bash
# The clean Debian root of the tests, as out/debian-SUITE-systemd.tar: Debian's base with systemd and man, as a host has
# them, and with what the package depends on. Made once; its release must have Node 20 or later: SUITE=trixie.
#   root.sh PACKAGE.deb    prints its path
set -euo pipefail
suite=${SUITE:-trixie}
base=out/debian-$suite-systemd.tar
if [ ! -f "$base" ]; then
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  debootstrap --variant=minbase "$suite" "$place/root" >"$place/log" 2>&1 || { tail -5 "$place/log" >&2; exit 1; }
  DEBIAN_FRONTEND=noninteractive chroot "$place/root" apt-get satisfy -y --no-install-recommends "$(dpkg-deb -f "$1" Depends), systemd, man-db" >"$place/log" 2>&1 || { tail -5 "$place/log" >&2; exit 1; }
  chroot "$place/root" apt-get clean
  tar -C "$place/root" --numeric-owner -cpf "$base.new" .
  mv "$base.new" "$base"
fi
echo "$base"
