#!/bin/sh
# Open MPI's remote shell without a shell on the other side: starts the daemon in the network
# namespace of a member, under a host name of its own, so that it is a node of its own.
#   mpi-agent.sh <namespace prefix> <address 10.81.0.N> <command ...>
prefix=$1; address=$2; shift 2
number=${address##*.}
exec nsenter --net="/run/netns/$prefix$number" unshare --uts sh -c "hostname m$number && $*"
