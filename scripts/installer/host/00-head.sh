#!/bin/sh
# The host script, on the node as /opt/soci-cluster/soci-host.sh: one file, so that it changes as a whole, put together
# from the parts in scripts/installer/host (their names tell the order; see host_script in agent/transaction.py).
# It is the critical section of an install, on the node itself: swap the staged files, restart containerd once, verify,
# and put everything back when anything fails. It needs systemd, coreutils, util-linux, awk, grep, sed and find,
# and containerd's ctr.
# Started by systemd-run, so neither the end of the installer's pod nor containerd's restart ends it.
#
#   soci-host.sh apply DIR        commit the staged transaction DIR, or leave the node as it was
#   soci-host.sh rollback ID      undo the transaction ID unless it is committed (the dead man's timer calls it)
#   soci-host.sh boot             before every start of containerd: end in one of the two good states
#   soci-host.sh remove [--force] uninstall: the node's own files back byte for byte, everything of ours gone
#   soci-host.sh removable [--force]  whether `remove` would be refused, and why; changes nothing that runs
#   soci-host.sh status           what is installed and what is running
#   soci-host.sh users [SLOT [all]] mounts of containers that the slot's daemon serves lazily; or of all its containers
#   soci-host.sh retire SLOT      take away the daemon that the other slot's replaced, once no container needs it
#
# A slot is one of the two places for a daemon: `soci` and `soci-b`, see agent/slots.py.
# A transaction DIR holds plan.env, files (the manifest), new/ (the staged files), layers (images to carry over) and
# reserve (room for the way back); apply adds old/, log, result, and last-words of the daemons when it fails.
# `remove` starts `remove-now` as a unit of its own, for the same reason.
# Manifest: one line a file, tab separated: group path mode owner old-sha256 new-sha256 name; "absent" for no file.
# Every managed file is listed, also an unchanged one: the committed manifest is the whole desired state.
set -eu

ROOT=${ROOT:-} # a directory in place of /, for tests
STATE=$ROOT/var/lib/soci-cluster
PROGRAM=$ROOT/opt/soci-cluster
SLOTS='soci soci-b'
BOOT_UNIT=/etc/systemd/system/soci-cluster-boot.service
BOOT_HOOK=/etc/systemd/system/containerd.service.d/10-soci-cluster.conf
REMOVED=$STATE.removed
EKS_PAUSE_ARCHIVE=/etc/eks/pause.tar
REMOVAL_UNIT=soci-cluster-remove
STOP_SECONDS=10
COPIES=carried-by-soci-cluster # below a slot's data
TAB=$(printf '\t')
step=start steps=''

# slot NAME: what the daemon of that slot has for itself. NAME is also the snapshotter's name in containerd.
slot() {
  case " $SLOTS " in *" $1 "*) ;; *) die "there is no slot $1, only $SLOTS" ;; esac
  snapshotter=$1
  suffix=${1#soci}
  unit=soci-snapshotter$suffix.service
  unit_file=/etc/systemd/system/$unit
  adoption=$unit_file.d/50-soci-cluster.conf
  config_file=/etc/soci-snapshotter-grpc$suffix/config.toml
  runtime_directory=/run/soci-snapshotter-grpc$suffix
  socket=$runtime_directory/soci-snapshotter-grpc.sock
  data=/var/lib/soci-snapshotter-grpc$suffix
}
