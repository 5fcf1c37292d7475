#!/usr/bin/env bash
# Builds out/sluice_VERSION_ARCH.deb from what `make build` made; needs no root and no network.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(node -p 'require("./package.json").version')
arch=$(dpkg --print-architecture)
root=out/deb
rm -rf "$root"
lib=$root/usr/lib/sluice
install -d "$lib" "$root"/etc/{sluice,logrotate.d} "$root"/usr/{bin,lib/sysctl.d} "$root"/lib/systemd/system \
  "$root"/usr/share/{man/man1,man/man8,bash-completion/completions,doc/sluice/examples,lintian/overrides} "$root/DEBIAN"

# The program, and of its packages those that run time needs, as the lock file says.
cp -r dist bin package.json "$lib"
rm -f "$lib/dist/.built"
install -Dm644 classifier/classify.bpf.o "$lib/classifier/classify.bpf.o"
node -e '
  const { packages } = require("./package-lock.json");
  for (const [path, one] of Object.entries(packages)) if (path !== "" && !one.dev && !one.devOptional) console.log(path);
' | while read -r path; do
  [ -d "$path" ] || continue # of another platform
  mkdir -p "$lib/$(dirname "$path")"
  rsync -a --exclude node_modules --exclude .github --exclude test --exclude tests --exclude build/Release/obj.target --exclude '*.o' --exclude '*.d' --exclude '*.md' --exclude '*.html' --exclude '*.markdown' --exclude '.eslintrc*' --exclude .npmignore --exclude .husky --exclude integration --exclude examples --exclude docs --exclude scripts --exclude 'musl_*' "$path/" "$lib/$path/"
done
# What only a build of the addons reads.
rm -rf "$lib"/node_modules/nan "$lib"/node_modules/*/node_modules/nan "$lib"/node_modules/*/build/*.mk "$lib"/node_modules/*/build/{Makefile,config.gypi,node_gyp_bins} "$lib"/node_modules/*/build/Release/.deps "$lib"/node_modules/*/deps
find "$lib" -name .git\* -delete
find "$lib" -type f -exec chmod 644 {} +
chmod 755 "$lib"/bin/sluice "$lib"/bin/sluiced
find "$lib" -name '*.node' -exec strip --strip-unneeded {} +
ln -s ../lib/sluice/bin/sluiced "$root/usr/bin/sluiced"
ln -s ../lib/sluice/bin/sluice "$root/usr/bin/sluice"

install -m644 deploy/sluiced.service "$root/lib/systemd/system/sluiced.service"
install -m644 deploy/sysctl.conf "$root/usr/lib/sysctl.d/50-sluice.conf"
install -m644 deploy/logrotate.conf "$root/etc/logrotate.d/sluice"
install -m644 deploy/sluice.example.yaml "$root/etc/sluice/sluice.yaml"
install -m644 deploy/group.example.yaml deploy/tokens.example "$root/usr/share/doc/sluice/examples/"
node deploy/words.mjs out/words
gzip -9nc out/words/sluice.1 >"$root/usr/share/man/man1/sluice.1.gz"
gzip -9nc out/words/sluiced.8 >"$root/usr/share/man/man8/sluiced.8.gz"
install -m644 out/words/sluice.bash "$root/usr/share/bash-completion/completions/sluice"
printf 'sluice (%s) unstable; urgency=medium\n\n  * As the repository of this version says.\n\n -- Sluice <sluice@localhost>  %s\n' "$version" "$(date -R)" | gzip -9nc >"$root/usr/share/doc/sluice/changelog.gz"
cat >"$root/usr/share/doc/sluice/copyright" <<'TEXT'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: the authors of Sluice
License: GPL-2
 On Debian systems the text of the licence is in /usr/share/common-licenses/GPL-2.

Files: usr/lib/sluice/node_modules/*
Copyright: their authors; each directory has its own licence file
License: as-each-says
 See the LICENSE file and package.json of each directory.
TEXT

sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f1)/" deploy/debian/control >"$root/DEBIAN/control"
printf '/etc/sluice/sluice.yaml\n/etc/logrotate.d/sluice\n' >"$root/DEBIAN/conffiles"
install -m755 deploy/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
install -m644 deploy/debian/lintian-overrides "$root/usr/share/lintian/overrides/sluice"
chmod -R u=rwX,go=rX "$root"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs -d '\n' md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zxz --build "$root" "out/sluice_${version}_${arch}.deb"
rm -rf "$root" out/words
