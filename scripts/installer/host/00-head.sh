#!/bin/sh
# shellcheck shell=dash
# The host script, on the node as /opt/soci-cluster/soci-host.sh: one file, so that it changes as a whole, put together
# from the parts in scripts/installer/host (their names tell the order; see host_script in agent/transaction.py).
# It is the critical section of an install, on the node itself: swap the staged files, restart containerd once, verify
# the node, and roll everything back when anything fails. systemd-run starts it, so neither the end of the installer's
# pod nor containerd's restart ends it. It needs systemd, coreutils, util-linux, awk, grep, sed, find, and ctr.
#
#   soci-host.sh apply DIR        commit the staged transaction DIR, or leave the node as it was
#   soci-host.sh rollback ID      roll the transaction ID back unless it is committed (the dead man's timer calls it)
#   soci-host.sh boot             before every start of containerd: end in one of the two good states
#   soci-host.sh heal [--again]   after a start of a daemon: forget images that did not survive it, name what is broken
#   soci-host.sh verify           make the checks that only read, and print what came of them
#   soci-host.sh remove [--force] uninstall: the node's own files back byte for byte, everything of ours gone
#   soci-host.sh removable [--force]  whether `remove` would be refused, and why; as `remove`, it first rolls back a
#                                 transaction that was cut short, and changes nothing else
#   soci-host.sh status           what is installed and what is running
#   soci-host.sh mounts [SLOT [all]]  of containers that the slot's daemon serves lazily; or of all its containers
#   soci-host.sh retire SLOT      remove the daemon that the other slot's replaced, once no container needs it
#
# What units and the agent call, and people need not: remove-now, in the uninstall's unit; heal-later and mend-daemon, by a
# daemon's unit; clear-cut-pulls and clear-copies, by the agent, after a pull or an install that was cut short.
#
# A slot is one of the two places for a daemon: `soci` and `soci-b`, see agent/slots.py.
#
# A transaction DIR holds plan.env (what the agent decided), files (the manifest), script (this one's SHA-256), new/ (the staged
# files), carried (the images whose layers the agent copied) and reserve (room for the rollback). apply adds old/, log, result, and last-words
# of the daemons when it fails.
# Manifest: one line a file, tab separated: role path mode owner old-sha256 new-sha256 name; "absent" for no file.
# Every managed file is listed, also an unchanged one: the committed manifest is the whole desired state.
# The role says when a file is written, what a change of it restarts, and when it is restored:
#   recovery   finishes or rolls back at a boot what was cut short: written first, restored last, removed last of all.
#              Also what no daemon reads, since a change of it restarts nothing
#   daemon     read by the snapshotter's daemon
#   generator  read by a tool that writes containerd's configuration
#   shared     containerd's configuration, which others write, too: swapped once the daemon answers, then a restart
#   generated  the same, where a generator writes it anew at each boot: nobody's own work is in it
#
# The journal has the one fact that a later boot trusts. Its states, and who leaves each one:
#   (none)       no transaction was begun            apply -> armed
#   armed        files are being changed             apply -> restarting or committed; rollback (by apply itself, the
#                                                    timer, the next install or uninstall) or boot -> rolled-back
#   restarting   as armed, and containerd runs, or   apply -> committed; rollback or boot -> rolled-back
#                may run, the new configuration
#   committed    the node is installed               apply -> armed; remove -> removing
#   rolled-back  the node is as it was before that   apply -> armed; remove -> removing, or (none) at once where no
#                transaction                         transaction was ever committed
#   removing     containers, images and snapshots    remove-now -> restoring; when it fails, no file was changed
#                of ours are removed                 -> committed
#   restoring    the node's own files come back,     remove-now -> cleaning; when containerd does not run on them, or
#                containerd is restarted             a check of the node fails -> committed
#   cleaning     directories and records go          remove-now -> (none)
# An uninstall that was cut short is taken up by its unit after a kill, by the next call, and by boot, which puts the node's
# own files back, should it have come that far, and starts remove-now.
#
# Functions have their own variables as `local`. CAPITALS are what all of them share: constants, the selected slot, the
# plan, the journal as it was read or written last, what containerd was seen to have, the manifest's current line (FILE_*), and the step at work.
set -eu

ROOT=${ROOT:-} # a directory in place of /, for tests
STATE=$ROOT/var/lib/soci-cluster
PROGRAM=$ROOT/opt/soci-cluster
REMOVED=$STATE.removed
REMOVAL_UNIT=soci-cluster-remove
HEAL_UNIT=soci-cluster-heal
COLLECTING=soci-cluster-collecting # a lease of containerd, see collect_garbage
ASKING=soci-cluster # a namespace of containerd in which a registry is asked whether it answers
HELD_SECONDS='20 300' # the first and the longest pause between two restarts of a daemon for images that are held
# As in agent/pull_secret_files.py.
SECRETS=$ROOT/run/soci-cluster/pull-secrets # in memory: a file for each registry's host
SECRETS_READ=$SECRETS.read # when all of them were read, in hundredths of a second since the boot
SECRET_HOSTS=$STATE/pull-secret-hosts # on the disk: the hosts' names
STARTED=$ROOT/run/soci-cluster/started # a file for each invocation of a daemon that has come up
SECRETS_SECONDS=45 # for which a heal waits for them after a boot
SLOTS='soci soci-b'
BEFORE_RESTART='recovery daemon generator' # the roles in the order in which files are written
AFTER_DAEMON='shared generated'
STOP_SECONDS=10
COPIES=carried-by-soci-cluster # below a slot's data
COPY_UNIT=soci-cluster-copy.service # in which the agent's copies are made
TAB=$(printf '\t')
STEP=start STEPS='' CAUSE=''
HAS_AWAITED_SECRETS='' # this heal

# is_slot NAME: whether a snapshotter is of ours.
is_slot() { case " $SLOTS " in *" $1 "*) ;; *) return 1 ;; esac; }

# select_slot NAME: what the daemon of that slot has for itself. NAME is also the snapshotter's name in containerd.
# Only what then works with that slot to its end selects one; everybody else asks `in_slot`.
select_slot() {
  local suffix
  is_slot "$1" || die "there is no slot $1, only $SLOTS"
  suffix=${1#soci}
  SNAPSHOTTER=$1
  UNIT=soci-snapshotter$suffix.service
  UNIT_FILE=/etc/systemd/system/$UNIT
  ADOPTION=$UNIT_FILE.d/50-soci-cluster.conf
  RUNTIME_DIRECTORY=/run/soci-snapshotter-grpc$suffix
  SOCKET=$RUNTIME_DIRECTORY/soci-snapshotter-grpc.sock
  DATA=/var/lib/soci-snapshotter-grpc$suffix
}

# in_slot NAME COMMAND ARGUMENT...: the selected slot stays selected.
in_slot() (
  select_slot "$1"
  shift
  "$@"
)

# in_each_slot COMMAND ARGUMENT...
in_each_slot() {
  local name
  for name in $SLOTS; do in_slot "$name" "$@"; done
}
