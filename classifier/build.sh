#!/bin/sh
# Builds classify.bpf.o from classify.bpf.c and the headers beside it. The same sources and compiler give the same
# bytes wherever the checkout lies; the object carries the sources' sha256 and the compiler's
# version, by which a test proves that the committed object is of these sources.
#   build.sh [OUTPUT]
set -eu
cd "$(dirname "$0")"
out=${1:-classify.bpf.o}
sum=$(cat abi.h maps.bpf.h frame.bpf.h wire.bpf.h tunnel.bpf.h hold.bpf.h lane.bpf.h guard.bpf.h deliver.bpf.h arrive.bpf.h classify.bpf.c | sha256sum | cut -d' ' -f1)
version=$(clang --version | sed -n 's/.*clang version \([0-9][0-9.]*\).*/\1/p;q')
clang -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Wno-unused-parameter -Werror \
  -idirafter "/usr/include/$(uname -m)-linux-gnu" \
  -fdebug-compilation-dir=/sluice/classifier \
  -DSLUICE_SOURCE_SHA256="\"sha256:$sum clang:$version\"" \
  -c classify.bpf.c -o "$out"
llvm-strip -g "$out"
