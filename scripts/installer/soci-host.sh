#!/bin/sh
# The critical section of an install, on the node itself: swap the staged files, restart containerd once, verify,
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
# reserve (room for the way back); apply adds old/, log and result.
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
TAB=$(printf '\t')
step=start steps=''

say() { printf '%s\n' "$*"; }
die() {
  say "$*" >&2
  exit 1
}

# A daemon that accepts and never answers must not keep the way back from its end. `timeout` runs the program.
ctr() { timeout -k 1 60 ctr "$@"; }

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

# Milliseconds since boot; the kernel's clock, which no time service can move.
now_ms() {
  read -r uptime _ </proc/uptime
  say $((${uptime%.*} * 1000 + 1${uptime#*.}0 - 1000))
}

sha() {
  if [ -f "$1" ]; then
    sum=$(sha256sum <"$1")
    say "${sum%% *}"
  else
    say absent
  fi
}

# enter STEP: what is at work now, and when it began.
enter() {
  step=$1
  steps="$steps $1:$(now_ms)"
}

# put SOURCE TARGET MODE OWNER: TARGET becomes SOURCE in one step: wholly old or wholly new, also after a power cut.
# A failure on the way leaves TARGET as it was, also where the shell does not end at one.
put() {
  folder=$(dirname "$2")
  temporary=$2.soci-cluster-new
  mkdir -p "$folder" && cp "$1" "$temporary" && chmod "$3" "$temporary" && chown "$4" "$temporary" &&
    label "$2" "$temporary" && sync "$temporary" && mv -fT "$temporary" "$2" && sync "$folder"
}

# label TARGET FILE: the SELinux label of TARGET, or of a new file in its place.
label() {
  [ -e /sys/fs/selinux/enforce ] || return 0
  if [ -e "$1" ]; then chcon --reference="$1" "$2"; else chcon --reference="$(dirname "$1")" "$2"; fi
}

drop() {
  if [ -e "$1" ]; then
    rm -f "$1" && sync "$(dirname "$1")"
  fi
}

# journal STATE: the one fact that a later boot trusts.
journal() {
  printf 'state=%s\ntransaction=%s\nsnapshotter_was=%s\nkubelet_was=%s\n' \
    "$1" "$transaction" "$snapshotter_was" "$kubelet_was" >"$STATE/journal.next" &&
    put "$STATE/journal.next" "$STATE/journal" 0600 0:0 &&
    rm -f "$STATE/journal.next"
}

# read_plan DIR: what the agent decided; plain key=value lines, never run as code.
read_plan() {
  snapshotter_action=none containerd_restart=0 pause_image='' pause_archive='' deadline_seconds=400
  slot=soci slot_is_new=0 is_switch=0 containerd_program='' containerd_config='' containerd_dump=''
  while IFS='=' read -r key value; do
    case $key in
      snapshotter_action) snapshotter_action=$value ;;
      containerd_restart) containerd_restart=$value ;;
      containerd_address) CONTAINERD_ADDRESS=$value ;;
      path) PATH=$value ;;
      pause_image) pause_image=$value ;;
      pause_archive) pause_archive=$value ;;
      deadline_seconds) deadline_seconds=$value ;;
      slot) slot=$value ;;
      slot_is_new) slot_is_new=$value ;;
      is_switch) is_switch=$value ;;
      containerd_program) containerd_program=$value ;;
      containerd_config) containerd_config=$value ;;
      containerd_dump) containerd_dump=$value ;;
    esac
  done <"$1/plan.env"
  export CONTAINERD_ADDRESS PATH
  slot "$slot"
}

read_journal() {
  state='' transaction='' snapshotter_was='' kubelet_was=''
  if [ -f "$STATE/journal" ]; then
    while IFS='=' read -r key value; do
      case $key in
        state) state=$value ;;
        transaction) transaction=$value ;;
        snapshotter_was) snapshotter_was=$value ;;
        kubelet_was) kubelet_was=$value ;;
      esac
    done <"$STATE/journal"
  fi
}

# each_file DIR COMMAND: COMMAND runs for every line of the manifest, with its fields as variables.
each_file() {
  while IFS="$TAB" read -r group path mode owner old new name; do
    "$2" "$1"
  done <"$1/files"
}

# restore_files DIR: the old files back, in reverse: containerd's own file first, and what starts `boot` after it,
# so that a power cut on the way back finds either something that resumes, or nothing that matters.
restore_files() {
  [ -s "$1/files" ] || return 1
  failed=0
  while IFS="$TAB" read -r group path mode owner old new name; do
    restore "$1" || failed=1
  done <<END
$(tac "$1/files")
END
  return $failed
}

check_unchanged() {
  [ "$(sha "$ROOT$path")" = "$old" ] || die "$path changed while the install was being prepared"
}

save_old() {
  [ "$old" = absent ] || put "$ROOT$path" "$1/old/$name" 0600 0:0
  # The node's own version of a file is kept once, at the first install, for the uninstall.
  if ! cut -f1 "$STATE/originals/files" 2>/dev/null | grep -qxF "$path"; then
    mkdir -p "$STATE/originals"
    remember_folders "$(dirname "$path")"
    [ "$old" = absent ] || put "$ROOT$path" "$STATE/originals/$name" 0600 0:0
    { cat "$STATE/originals/files" 2>/dev/null || :
      printf '%s\t%s\t%s\t%s\t%s\n' "$path" "$mode" "$owner" "$old" "$name"; } >"$STATE/originals/files.next"
    sync "$STATE/originals/files.next"
    mv -fT "$STATE/originals/files.next" "$STATE/originals/files"
  else
    note_foreign_change
  fi
}

# What others wrote between two of our installs is in the file that we change now, but not in the original.
note_foreign_change() {
  [ -e "$STATE/current/files" ] || return 0
  ! is_generated || return 0
  installed=$(awk -F "$TAB" -v path="$path" '$2 == path { print $6 }' "$STATE/current/files")
  # Of a slot that was not in use the current manifest knows nothing; what begins with our words is ours.
  [ -n "$installed" ] || ! is_ours "$path" || return 0
  case $old in "$installed" | "$(original_sum)") return 0 ;; esac
  say "$path" >>"$STATE/originals/changed-by-others"
  sync "$STATE/originals/changed-by-others"
}

# nodeadm writes containerd's file anew at each boot, with the keys of our NodeConfig: nobody's work is in it.
is_generated() { [ "$group" = containerd ] && cut -f2 "$STATE/current/files" | grep -qxF /etc/eks/nodeadm.d/50-soci-cluster.yaml; }

original_sum() { awk -F "$TAB" -v path="$path" '$1 == path { print $4 }' "$STATE/originals/files"; }

# What the first install finds besides files: the state of the system's own daemon, and which directories there are.
record_node() {
  [ ! -e "$STATE/current" ] || return 0
  mkdir -p "$STATE/originals"
  (for each in $SLOTS; do
    slot "$each"
    remember_folders "$data"
    remember_folders "$runtime_directory"
  done)
  say "$snapshotter_was" >"$STATE/originals/snapshotter-was"
  sync "$STATE/originals/snapshotter-was"
}

# Directories that do not exist yet will be ours to remove.
remember_folders() {
  [ -d "$ROOT$1" ] && return
  if ! grep -qxF "$1" "$STATE/originals/folders" 2>/dev/null; then
    say "$1" >>"$STATE/originals/folders"
    sync "$STATE/originals/folders"
  fi
  remember_folders "$(dirname "$1")"
}

swap() {
  [ "$group" = "$wanted" ] || return 0
  [ "$old" != "$new" ] || return 0
  check_unchanged
  if [ "$new" = absent ]; then drop "$ROOT$path"; else put "$1/new/$name" "$ROOT$path" "$mode" "$owner"; fi
}

# restore DIR: the transaction's old file. What another installer wrote into containerd's meanwhile stays, unless it was
# made from ours.
restore() {
  [ "$old" != "$new" ] || return 0
  rm -f "$ROOT$path.soci-cluster-new"
  found=$(sha "$ROOT$path")
  if [ "$group" = containerd ] && [ "$found" != "$new" ] && [ "$found" != "$old" ] && [ "$found" != absent ] &&
    ! grep -qF /run/soci-snapshotter "$ROOT$path"; then
    say "$path was changed by someone else meanwhile and is left as it is" >&2
    return
  fi
  restore_from "$1/old"
}

# restore_from FOLDER: the file of the current line as it was; FOLDER has its content.
restore_from() {
  rm -f "$ROOT$path.soci-cluster-new" # of a put that was cut short
  if [ "$old" = absent ]; then
    drop "$ROOT$path"
  elif [ "$(sha "$ROOT$path")" != "$old" ]; then
    put "$1/$name" "$ROOT$path" "$mode" "$owner"
  fi
}

# Another tool may have written an imported file, which no checksum here covers: containerd has the last word.
check_effect() {
  [ -n "$containerd_dump" ] || return 0
  dump=$("$containerd_program" --config "$ROOT$containerd_config" config dump | grep -v '^imports = ' | sha256sum)
  [ "${dump%% *}" = "$containerd_dump" ] ||
    die "containerd's configuration changed while the install was being prepared: look for a new file among its imports"
}

# What another tool wrote up to the restart may stay, as long as ours is in effect with it.
check_snapshotter() {
  [ -n "$containerd_dump" ] || return 0
  found=$("$containerd_program" --config "$ROOT$containerd_config" config dump | snapshotter_in_dump)
  [ "$found" = "$snapshotter" ] ||
    die "another tool changed containerd's configuration meanwhile: its snapshotter is ${found:-the default}"
}

# The mounts of containers that have a layer served by the slot's daemon; a restart of it breaks them for good.
lazy_users() {
  awk -v data="$data" '
    $0 ~ " - fuse.rawBridge " { lazy[$5] = 1 }
    $0 ~ " - overlay " && index($0, "upperdir=" data "/") { target[++n] = $5; options[n] = $NF }
    END {
      for (i = 1; i <= n; i++) {
        is_lazy = 0
        count = split(options[i], option, ",")
        for (j = 1; j <= count; j++) {
          # lowerdir=A:B, or in newer kernels lowerdir+=A,lowerdir+=B
          if (!sub(/^lowerdir\+?=/, "", option[j])) continue
          layers = split(option[j], layer, ":")
          for (k = 1; k <= layers; k++) {
            path = layer[k]
            if (path !~ /^\//) path = data "/snapshotter/snapshots/" path
            if (path in lazy) is_lazy = 1
          }
        }
        if (is_lazy) print target[i]
      }
    }' "${MOUNTINFO:-/proc/self/mountinfo}" | sort -u
}

# The layers that the slot's daemon serves.
lazy_layers() {
  awk -v data="$data" '$0 ~ " - fuse.rawBridge " && index($5, data "/") == 1 { print $5 }' \
    "${MOUNTINFO:-/proc/self/mountinfo}"
}

# A restarted daemon mounts its layers again, which takes the registry and its credentials. Of an image of whose layers
# one is missing no container could start any more.
lazy_layers_are_back() {
  lazy_layers >"$directory/lazy-layers-now"
  ! grep -qvxF -f "$directory/lazy-layers-now" "$directory/lazy-layers"
}

# The mounts of all containers whose files are in the slot's directory, lazily served or not.
all_users() {
  awk -v data="$data" '$0 ~ " - overlay " && index($0, "upperdir=" data "/") { print $5 }' \
    "${MOUNTINFO:-/proc/self/mountinfo}" | sort -u
}

users() {
  for name in ${1:-$SLOTS}; do
    slot "$name"
    if [ "${2:-}" = all ]; then all_users; else lazy_users; fi
  done
}

restart_containerd() {
  started=$(now_ms)
  containerd_restarts=$((containerd_restarts + 1))
  timeout 90 systemctl restart containerd.service || {
    [ $? -ne 124 ] || die "containerd did not stop and start within 90 s: $(systemctl show containerd.service -p SubState)"
    die "containerd did not start: $(last_words containerd.service)"
  }
  restarted=$(now_ms)
  tries=0
  until cri_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || die "containerd is active but its CRI plugin did not load"
    sleep 0.1
    restarted=$(now_ms)
  done
  containerd_down_ms=$((restarted - started))
}

containerd_answers() { timeout 5 ctr --connect-timeout 2s version >/dev/null 2>&1; }

# containerd reports itself started also when its CRI plugin failed to load.
cri_answers() {
  ctr plugins ls 2>/dev/null | awk '
    $1 == "io.containerd.grpc.v1" && $2 == "cri" || $1 == "io.containerd.cri.v1" { seen = 1; if ($NF != "ok") bad = 1 }
    END { exit !seen || bad }'
}

# A gRPC call, not only an open socket: with socket activation systemd accepts before the daemon is there.
# A daemon that has no snapshot yet answers with an error of its own.
snapshotter_answers() {
  answer=$(timeout 5 ctr --connect-timeout 1s --address "$socket" --namespace k8s.io snapshots ls 2>&1) && return
  case $answer in *"bucket does not exist"*) return 0 ;; esac
  return 1
}

start_snapshotter() {
  if [ "$snapshotter_action" != none ]; then
    timeout 300 systemctl "$snapshotter_action" "$unit" || die "$unit did not start: $(last_words "$unit")"
  fi
  give_up=$(($(now_ms) + 60000))
  until snapshotter_answers; do
    [ "$(now_ms)" -lt "$give_up" ] || die "$unit does not answer on its socket: $(last_words "$unit")"
    sleep 0.1
  done
}

# SIGINT, unlike systemd's SIGTERM, makes the daemon unmount what it served.
stop_snapshotter() {
  systemctl kill --signal=INT "$unit" 2>/dev/null || :
  timeout 60 systemctl stop "$unit" 2>/dev/null || :
  systemctl reset-failed "$unit" 2>/dev/null || :
}

# last_words UNIT: the last line that its own processes wrote, not what systemd says about them.
# With --since, journalctl's own -n 1 is the first line, and what a process wrote right before it died is still on
# its way to the journal.
last_words() {
  journalctl --sync 2>/dev/null || :
  journalctl _SYSTEMD_UNIT="$1" --since=-120s -o cat 2>/dev/null | tail -n 1 | cut -c1-300
}

# snapshots_of SNAPSHOTTER ARGUMENT...
snapshots_of() {
  of=$1
  shift
  ctr --namespace k8s.io snapshots --snapshotter "$of" "$@"
}

# carry_over DIR: images whose blobs are gone from the content store get their unpacked layers copied to soci.
# Until an image refers to them, ctr's own label keeps the new snapshots from containerd's garbage collection.
carry_over() {
  [ -s "$1/layers" ] || return 0
  for key in $(snapshots_of "$snapshotter" ls | awk '$1 ~ /^soci-cluster-carry-/ { print $1 }'); do snapshots_of "$snapshotter" rm "$key"; done
  while read -r config chains; do carry_image; done <"$1/layers"
  sync -f "$ROOT$data"
  while read -r config chains; do
    for chain in $chains; do
      snapshots_of "$snapshotter" label "$chain" containerd.io/gc.root= >/dev/null
    done
  done <"$1/layers"
}

carry_image() {
  key=soci-cluster-carry-$transaction
  parent='' there=$(snapshots_of "$snapshotter" ls | awk '{ print $1 }')
  mount=$(snapshots_of overlayfs view --target / "$key" "${chains##* }") || die "no layers to carry over: ${chains##* }"
  snapshots_of overlayfs rm "$key" 2>/dev/null || : # garbage collection may have been faster
  sources=$(say "$mount" | mount_folders lowerdir) # separated by colons, the lowest last
  for chain in $chains; do
    if ! printf '%s\n' "$there" | grep -qxF "$chain"; then
      mount=$(snapshots_of "$snapshotter" prepare --target / "$key" ${parent:+"$parent"}) || die "soci takes no layer on ${parent:-nothing}"
      target=$(say "$mount" | mount_folders upperdir)
      # Hard links need no space and no time, but work within one file system only. Lower layers never change.
      cp -al "${sources##*:}/." "$target" 2>/dev/null ||
        cp -a --remove-destination "${sources##*:}/." "$target" ||
        die "the layer $chain was not copied to $target"
      snapshots_of "$snapshotter" commit "$chain" "$key"
    fi
    parent=$chain sources=${sources%:*}
  done
  ctr --namespace k8s.io content label "$config" "containerd.io/gc.ref.snapshot.$snapshotter=$parent" >/dev/null
}

# mount_folders OPTION: the directories of a snapshot, from ctr's mount command; one without parent is a bind mount.
mount_folders() { sed -n -e 's/^mount -t bind \([^ ]*\) .*/\1/p' -e "s/.*[ ,]$1=\([^, ]*\).*/\1/p"; }

# containerd's client waits up to 3 s before it connects to a restarted daemon again, and fails every call meanwhile.
await_connection() {
  tries=0
  until ctr --namespace k8s.io snapshots --snapshotter "$snapshotter" ls >/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || die "containerd does not reach the snapshotter $snapshotter"
    sleep 0.1
  done
}

verify() {
  [ "$containerd_restarts" -gt 0 ] || cri_answers || die "containerd's CRI plugin did not load"
  await_connection
  enter images
  carry_over "$directory"
  enter verify
  if [ -n "$pause_archive" ]; then
    ctr --namespace k8s.io images import --local --snapshotter "$snapshotter" --discard-unpacked-layers=false "$pause_archive" >/dev/null
    ctr --namespace k8s.io images label "$pause_image" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null
  fi
  run_canary "$snapshotter"
}

# run_canary SNAPSHOTTER: unpack the pause image there, if it is not, and run it: what each new sandbox is going to need.
run_canary() {
  canary=soci-cluster-canary-$transaction
  timeout 60 ctr --namespace k8s.io run --detach --null-io --snapshotter "$1" "$pause_image" "$canary" >/dev/null ||
    die "a container of $pause_image does not start under $1"
  ctr --namespace k8s.io tasks ls | grep -q "^$canary .*RUNNING" || die "the canary of $pause_image ended at once"
}

clear_canary() {
  ctr --namespace k8s.io tasks rm --force "soci-cluster-canary-$transaction" >/dev/null 2>&1 || :
  ctr --namespace k8s.io containers rm "soci-cluster-canary-$transaction" >/dev/null 2>&1 || :
}

arm() {
  systemd-run --quiet --collect --on-active="$deadline_seconds" --unit="soci-cluster-deadman-$transaction" \
    "$PROGRAM/soci-host.sh" rollback "$transaction" deadline
}

disarm() { systemctl stop "soci-cluster-deadman-$transaction.timer" >/dev/null 2>&1 || :; }

# The agent staged a file of zeros: room for the way back and the result, should the disk run full meanwhile.
free_reserved() { rm -f "$1/reserve"; }

report() {
  if {
    say "outcome=$1"
    say "step=$step"
    say "cause=$2"
    say "containerd_down_ms=$containerd_down_ms"
    say "containerd_restarts=$containerd_restarts"
    say "steps=$steps end:$(now_ms)"
  } >"$directory/result.next" && sync "$directory/result.next"; then
    mv -fT "$directory/result.next" "$directory/result"
  fi
}

# undo: the node's old files and daemons back. Called with the journal read and the lock held.
# When a file cannot be put back, the journal goes on to say so, and the timer, a boot or the next install tries again.
undo() {
  free_reserved "$directory"
  # Once containerd does not know the snapshotter any more, or its daemon is stopped again, it cannot delete what was
  # created under it meanwhile.
  if [ "$state" = restarting ] && containerd_answers && snapshotter_answers &&
    { [ "$slot_is_new" = 1 ] || { [ "$is_switch" = 1 ] && [ "$snapshotter_was" != active ]; }; }; then
    remove_containers
    remove_snapshots
  fi
  restore_files "$directory" || return 1
  systemctl daemon-reload || :
  if [ "$state" = restarting ]; then restart_containerd; fi
  case $snapshotter_was in
    active)
      # Back to the old daemon, unless containers came to depend on the new one meanwhile.
      if [ "$snapshotter_action" = restart ] && [ -z "$(lazy_users)" ]; then
        systemctl restart "$unit" || :
      fi
      ;;
    *)
      # containerd depended on it already: it was between two starts.
      if [ "$is_switch" = 0 ]; then
        systemctl --no-block restart "$unit" || :
      else
        stop_snapshotter
      fi
      # A directory that was not there before this first install.
      if [ ! -e "$STATE/current" ] && grep -qxF "$data" "$STATE/originals/folders" 2>/dev/null; then remove_data || :; fi
      ;;
  esac
  forget_originals
  state=rolled-back
  journal $state
}

# After a failed first install nothing of ours is in place: the next one looks at the node afresh.
forget_originals() {
  if [ ! -L "$STATE/current" ]; then
    remove_folders "$STATE"
    rm -rf "$STATE/originals"
  fi
}

# remove_folders STATE-DIRECTORY
remove_folders() {
  [ -f "$1/originals/folders" ] || return 0
  while read -r folder; do rmdir "$ROOT$folder" 2>/dev/null || :; done <"$1/originals/folders"
}

finish() {
  status=$?
  trap - EXIT
  set +e
  [ "$status" -ne 0 ] || exit 0
  cause=$(tail -n 1 "$directory/log")
  if [ -z "$cause" ] && ! say >>"$directory/log"; then cause="no space is left in $STATE"; fi
  free_reserved "$directory"
  outcome=unchanged
  if [ "$state" != '' ]; then
    clear_canary
    outcome=rolled-back
    if (undo); then disarm; else outcome=broken; fi
    [ "$state" != restarting ] || containerd_restarts=$((containerd_restarts + 1))
  fi
  report $outcome "${cause:-ended with status $status}"
  exit 1
}

apply() {
  directory=$1
  transaction=${directory##*/}
  containerd_down_ms=0 containerd_restarts=0 state=''
  trap finish EXIT
  trap 'exit 143' TERM INT
  exec 2>>"$directory/log"
  read_plan "$directory"

  enter lock
  exec 9>"$STATE/lock"
  flock -w 120 9 || die "another install holds $STATE/lock"
  each_file "$directory" check_unchanged
  if [ "$snapshotter_action" = restart ]; then
    users=$(lazy_users | tr '\n' ' ')
    [ -z "$users" ] || die "busy: $users"
  fi
  read_journal
  # Whatever has not ended is not ours to undo: from here on the state is that of this transaction.
  found=$state state=''
  case $found in
    armed | restarting) die "the transaction $transaction has not ended" ;;
    removing | restoring | cleaning) die "an uninstall has not ended" ;;
    committed) make_current "$STATE/txn/$transaction" ;;
  esac
  transaction=${directory##*/}

  enter journal
  snapshotter_was=$(systemctl is-active "$unit" || :)
  mkdir -p "$directory/old"
  # Without a committed install, what an earlier try recorded before it was cut short may be incomplete.
  if [ ! -e "$STATE/current" ]; then
    [ ! -L "$STATE/current" ] || die "the record of what is installed, $(readlink "$STATE/current"), is gone: replace the node"
    rm -rf "$STATE/originals"
  fi
  record_node
  each_file "$directory" save_old
  arm
  state=armed
  journal $state

  enter snapshotter
  incomplete_images >"$directory/images-to-pull-again"
  lazy_layers >"$directory/lazy-layers"
  wanted=soci
  each_file "$directory" swap
  systemctl daemon-reload
  start_snapshotter
  if [ "$snapshotter_action" = restart ] && ! lazy_layers_are_back; then
    await_connection
    forget_images
    # The daemon would not even try to fetch those again; without them it starts afresh.
    [ -n "$(lazy_users)" ] || start_snapshotter
  fi

  if [ "$containerd_restart" = 1 ]; then
    enter swap
    wanted=containerd
    # Just before the restart: what is pulled later is pulled by the new daemon.
    incomplete_images >"$directory/images-to-pull-again"
    each_file "$directory" swap
    check_effect
    enter restart
    journal restarting
    state=restarting
    restart_containerd
    check_snapshotter
  fi

  enter verify
  verify

  enter commit
  [ "$is_switch" = 0 ] || forget_images
  journal committed
  trap - EXIT TERM INT # nothing is undone any more
  free_reserved "$directory"
  report committed ''
  clear_canary
  sweep
  disarm
}

# make_current DIR: the committed transaction is the one to look at from now on. The journal comes first: when it says
# so and this was cut short, whoever takes the lock next does it.
make_current() {
  ln -sfn "$1" "$STATE/current.next" && mv -fT "$STATE/current.next" "$STATE/current"
}

# sweep: what the committed transaction replaced. When it is cut short, the dead man's timer or a boot does it again.
sweep() {
  make_current "$directory"
  for entry in "$STATE"/txn/*; do
    # One without a result belongs to another installer that waits for the lock, or is about to.
    [ "$entry" = "$directory" ] || [ ! -e "$entry/result" ] || rm -rf "$entry"
  done
  # A removal that was not synced is undone by a power cut.
  free_reserved "$directory"
  rm -f "$STATE"/*.next "$directory"/*.next
  forget_versions
}

# Images whose content is not on the node, neither in containerd's store nor, therefore, to be unpacked by another
# snapshotter: their layers were loaded lazily, or discarded once they were unpacked.
incomplete_images() {
  ctr --namespace k8s.io images check 2>/dev/null | awk '$4 == "incomplete" { print $1 }'
}

# The kubelet takes such an image for present, but no container of it can be made any more: it has to be pulled anew.
# Those are meant that were incomplete before the change already; later ones were pulled by the new daemon. At a switch
# what was carried over is unpacked for the new snapshotter and stays.
forget_images() {
  images=$(ctr --namespace k8s.io images check --snapshotter "$snapshotter" 2>/dev/null |
    awk -v is_switch="$is_switch" '$4 == "incomplete" && !(is_switch && $NF == "true") { print $1 }' |
    grep -xF -f "$directory/images-to-pull-again") || return 0
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $images >/dev/null || :
}

# The programs that no daemon's unit names any more. Not those that no process runs from: a daemon may be about to
# be started again.
forget_versions() {
  # The names with a dot are what an agent was unpacking when it was killed.
  for folder in "$PROGRAM"/versions/* "$PROGRAM"/versions/.[0-9]*; do
    is_used=0
    for name in $SLOTS; do
      slot "$name"
      for file in "$unit_file" "$adoption"; do
        if grep -qsF "/versions/${folder##*/}/" "$ROOT$file"; then is_used=1; fi
      done
    done
    [ "$is_used" = 1 ] || rm -rf "$folder"
  done
}

rollback() {
  read_journal
  [ "$transaction" = "$1" ] || die "the journal is about ${transaction:-nothing}, not about $1"
  systemctl kill --signal=KILL "soci-cluster-txn-$1.service" 2>/dev/null || :
  exec 9>"$STATE/lock"
  flock -w 30 9 || die "another install or an uninstall is at work"
  read_journal
  directory=$STATE/txn/$1 step=${2:-interrupted} containerd_down_ms=0 containerd_restarts=0
  case $state in armed | restarting | committed) ;; *) return 0 ;; esac
  read_plan "$directory"
  if [ "$state" = committed ]; then
    sweep
    return
  fi
  undo
  disarm
  report rolled-back "the install was cut short, or did not end in $deadline_seconds seconds"
}

reapply_if_original() {
  [ "$group" = containerd ] && [ "$new" != absent ] || return 0
  found=$(sha "$ROOT$path")
  [ "$found" != "$new" ] || return 0
  if [ "$found" = "$(original_sum)" ]; then
    say "soci-cluster: $path was written back to the node's original; the installed one is put in place"
    put "$1/new/$name" "$ROOT$path" "$mode" "$owner"
  else
    say "soci-cluster: $path was changed since the install and is left as it is"
  fi
}

boot() {
  if [ ! -d "$STATE" ]; then
    [ ! -d "$REMOVED" ] || leave_nothing
    return 0
  fi
  exec 9>"$STATE/lock"
  # Held by an install or uninstall: its own restart of containerd is why we run. By anything else: it ends soon.
  if ! flock -n 9; then
    read_journal
    case $state in committed | rolled-back) flock -w 20 9 || return 0 ;; *) return 0 ;; esac
  fi
  read_journal
  case $state in
    armed | restarting)
      say "soci-cluster: the transaction $transaction was cut short; its files are put back"
      free_reserved "$STATE/txn/$transaction"
      restore_files "$STATE/txn/$transaction"
      forget_originals
      journal rolled-back
      systemctl daemon-reload || :
      ;;
    removing)
      say "soci-cluster: an uninstall was cut short; it goes on once containerd runs"
      start_removal --no-block --property=After=containerd.service
      ;;
    restoring | cleaning)
      say "soci-cluster: an uninstall was cut short; the node's own files are put back, the rest follows"
      restore_originals
      systemctl daemon-reload || :
      start_removal --no-block --property=After=containerd.service
      ;;
    committed)
      directory=$STATE/txn/$transaction
      each_file "$directory" reapply_if_original
      read_plan "$directory"
      sweep
      ;;
    *) if [ -e "$STATE/current/files" ]; then each_file "$STATE/current" reapply_if_original; fi ;;
  esac
}

# In reverse, too: containerd's own file first. What calls `boot` stays to the very end: it is what finishes an
# uninstall that was cut short.
restore_originals() {
  tac "$STATE/originals/files" >"$STATE/originals/files.reversed"
  while IFS="$TAB" read -r path mode owner old name; do
    case $path in "$BOOT_UNIT" | "$BOOT_HOOK") ;; *) restore_from "$STATE/originals" ;; esac
  done <"$STATE/originals/files.reversed"
}

# restore_original PATH: one file as it was before the first install.
restore_original() {
  while IFS="$TAB" read -r path mode owner old name; do
    [ "$path" != "$1" ] || restore_from "$STATE/originals"
  done <"$STATE/originals/files"
}

# --- uninstall ---------------------------------------------------------------------------------------------------
#
# The journal says how far it is; each state is repeated as a whole by whoever goes on (systemd after a kill, `boot`
# after a power cut, the next call):
#   removing    containers, images and snapshots of soci go; the node's files are as installed
#   restoring   the node's own files come back, containerd is restarted once and checked
#   cleaning    containerd runs on the node's own configuration; directories go, and last what would go on at boot

# The containers that were created under the slot's snapshotter; fails when containerd does not answer.
containers() {
  all=$(ctr --namespace k8s.io containers ls -q) || return
  for container in $all; do
    if ctr --namespace k8s.io containers info "$container" 2>/dev/null | grep -q "^    \"Snapshotter\": \"$snapshotter\""; then
      say "$container"
    fi
  done
}

# containerd cannot delete them once the snapshotter is gone; the kubelet makes them anew.
remove_containers() {
  for container in $(containers); do
    ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :
    ctr --namespace k8s.io containers rm "$container" >/dev/null 2>&1 || :
  done
}

# remove [--force]: neither the end of the caller's pod or session nor a kill of the script leaves it half done.
remove() {
  case ${1:-} in '' | --force) ;; *) die "usage: soci-host.sh remove [--force]" ;; esac
  check_recorded
  start_removal "$@" || die "an uninstall is at work already, or systemd cannot start one"
  while :; do
    case $(systemctl is-active "$REMOVAL_UNIT.service" || :) in
      active | activating | deactivating | reloading) sleep 0.2 ;;
      *) break ;;
    esac
  done
  if [ -d "$STATE" ]; then
    # A refusal is the caller's to read; without one the unit was stopped.
    die "$(cat "$STATE/removal" 2>/dev/null || say "the uninstall was interrupted; it goes on at the next boot or call")"
  fi
  say "removed; containerd runs on the node's own configuration"
}

# start_removal [SYSTEMD-RUN OPTION...] [--force]
start_removal() {
  for argument; do
    shift
    case $argument in --force) force=--force ;; *) set -- "$@" "$argument" ;; esac
  done
  systemd-run --quiet --collect --unit="$REMOVAL_UNIT" --property=Restart=on-abnormal --property=RestartSec=1 "$@" \
    "$PROGRAM/soci-host.sh" remove-now ${force:+"$force"}
}

remove_now() {
  force=${1:-}
  check_recorded
  if [ ! -d "$STATE" ]; then
    leave_nothing
    return
  fi
  state='' transaction='' kubelet_was=''
  trap removal_ended EXIT
  trap 'exit 143' TERM INT
  rm -f "$STATE/removal"
  exec 2>"$STATE/removal.log"

  look_at_installation
  case $state in
    none) ;;
    removing | restoring | cleaning) ;; # it was decided before
    *)
      check_removable
      kubelet_was=$(systemctl is-active kubelet.service || :)
      # After a rollback the journal names the change that failed, not what is installed.
      transaction=$(readlink "$STATE/current") transaction=${transaction##*/}
      state=removing
      journal $state
      ;;
  esac

  if [ "$state" = removing ]; then
    take_away_containers
    state=restoring
    journal $state
  fi
  if [ "$state" = restoring ]; then
    restore_originals
    systemctl daemon-reload
    # Its failure is not passed over: what was installed is put in place again, and the caller is told.
    (restart_containerd && check_old_in_effect) || put_back
    forget_containers
    state=cleaning
    journal $state
  fi
  if [ "$state" = cleaning ]; then
    [ "$kubelet_was" != active ] || systemctl start kubelet.service
    for name in $SLOTS; do clean_up "$name"; done
    remove_folders "$STATE"
  fi
  rm -rf "$REMOVED"
  mv -T "$STATE" "$REMOVED" # one step: a half deleted journal would tell lies
  trap - EXIT
  leave_nothing
}

removal_ended() {
  status=$?
  trap - EXIT
  set +e
  if [ "$status" -ne 143 ]; then # else the node is being shut down: it goes on at the next boot
    tail -n 1 "$STATE/removal.log" >"$STATE/removal.next"
    mv -fT "$STATE/removal.next" "$STATE/removal"
    cat "$STATE/removal"
    # As long as no file was touched the node is simply still installed.
    [ "$state" != removing ] || journal committed
  fi
  clear_canary
  [ "$kubelet_was" != active ] || systemctl start kubelet.service
  exit "$status"
}

# Without the record there is nothing to go back to, and what is in place still needs its programs.
check_recorded() {
  [ -d "$STATE" ] || [ -d "$REMOVED" ] || [ ! -e "$ROOT$BOOT_HOOK" ] ||
    die "SOCI is installed, but $STATE with the node's own files is gone: replace the node"
}

# leave_nothing: the last step, also for a boot or a call that comes after a cut in it.
leave_nothing() {
  if [ -d "$REMOVED" ] || [ -e "$ROOT$BOOT_HOOK" ] || [ -e "$ROOT$BOOT_UNIT" ]; then
    drop "$ROOT$BOOT_HOOK"
    drop "$ROOT$BOOT_UNIT"
    remove_folders "$REMOVED"
    systemctl daemon-reload || :
  fi
  # This script last: as long as anything else is left, it is there to be called again.
  rm -rf "$PROGRAM/versions" "$REMOVED" "$PROGRAM"
}

# removable [--force]: refuse in words what `remove` would refuse.
removable() {
  force=${1:-}
  [ -d "$STATE" ] || return 0
  look_at_installation
  case $state in none | removing | restoring | cleaning) ;; *) check_removable ;; esac
}

# Called first: takes the lock, undoes an install that was cut short, and learns what there is to go back to.
# The state is then `none` when no install was ever committed.
look_at_installation() {
  exec 9>"$STATE/lock"
  flock -w 120 9 || die "an install is at work"
  read_journal
  [ "$state" != committed ] || make_current "$STATE/txn/$transaction"
  case $state in
    armed | restarting)
      rollback "$transaction"
      read_journal
      ;;
  esac
  if [ ! -e "$STATE/current/files" ] || [ ! -e "$STATE/originals/files" ]; then
    [ ! -e "$ROOT$BOOT_HOOK" ] || die "SOCI is installed, but its record in $STATE is incomplete: replace the node"
    state=none
    return
  fi
  read_plan "$STATE/current"
  containerd_restarts=0
  containerd=$(systemctl show containerd.service --property=ExecStart | sed -n 's/.*path=\([^ ;]*\).*/\1/p')
  config=$(awk -F "$TAB" '$1 == "containerd" { print $2 }' "$STATE/current/files")
  original_dump=$(dump_original) || die "containerd refuses the node's own $config: $(dump_original 2>&1 | tail -n 1)"
  previous=$(say "$original_dump" | snapshotter_in_dump)
  previous=${previous:-overlayfs}
}

# What containerd makes of the node's own file, read at its place: imports may be relative.
dump_original() {
  name=$(awk -F "$TAB" -v path="$config" '$1 == path { print $5 }' "$STATE/originals/files")
  if [ -e "$STATE/originals/$name" ] && [ -e "$ROOT$config" ]; then
    # shellcheck disable=SC2016 # the inner shell's parameters
    unshare -m sh -c 'mount --bind "$2" "$3" && exec "$1" --config "$3" config dump' dump \
      "$containerd" "$STATE/originals/$name" "$ROOT$config"
  else
    "$containerd" config default
  fi
}

snapshotter_in_dump() {
  awk '{ gsub(/["'\'']/, "") }
    $1 ~ /^\[/ { found = $1 == "[plugins.io.containerd.cri.v1.images]" || $1 == "[plugins.io.containerd.grpc.v1.cri.containerd]" }
    found && $1 == "snapshotter" { print $3 }'
}

check_removable() {
  if [ "$force" != --force ]; then
    users=$(users)
    [ -z "$users" ] || die "lazily loaded containers are running: $(pods_of "$users")"
    each_file "$STATE/current" check_not_drifted
  fi
  [ "$previous" != "$slot" ] || return 0
  (run_canary "$previous") || (bring_pause && run_canary "$previous") ||
    die "the sandbox image $pause_image does not start under $previous and is not to be had"
  clear_canary
}

# Out of the EKS archive, or from its registry.
bring_pause() {
  clear_canary
  if [ -e "$ROOT$EKS_PAUSE_ARCHIVE" ]; then
    ctr --namespace k8s.io images import --local --snapshotter "$previous" --discard-unpacked-layers=false \
      "$ROOT$EKS_PAUSE_ARCHIVE" >/dev/null
  else
    hosts=$(say "$original_dump" | awk '$1 == "config_path" && length($3) > 2 { gsub(/["'\'']/, "", $3); print $3; exit }')
    hosts=${hosts%%:*}
    timeout 120 ctr --namespace k8s.io content fetch ${hosts:+--hosts-dir "$hosts"} "$pause_image" >/dev/null
  fi
}

check_not_drifted() {
  ! is_generated || return 0
  found=$(sha "$ROOT$path")
  if ! grep -qxF "$path" "$STATE/originals/changed-by-others" 2>/dev/null; then
    case $found in "$new" | "$(original_sum)") return 0 ;; esac
  fi
  die "$path was changed by someone since the install; compare it with the node's own in $STATE/originals"
}

# pods_of MOUNTS: namespace/name of the pods whose containers have these root directories.
pods_of() {
  for mount in $1; do
    container=${mount%/rootfs}
    container=${container##*/}
    ctr --namespace k8s.io containers info "$container" 2>/dev/null | awk -F '"' -v otherwise="$container" '
      $2 == "io.kubernetes.pod.namespace" { namespace = $4 }
      $2 == "io.kubernetes.pod.name" { name = $4 }
      END { print name == "" ? otherwise : namespace "/" name }'
  done | sort -u | tr '\n' ' '
}

# The containers that were created under a slot's snapshotter. containerd cannot delete them once that is gone.
soci_containers() {
  for name in $(our_slots); do
    slot "$name"
    containers || die "containerd does not answer"
  done
}

# The node's own configuration may name a snapshotter of that name already, and goes on doing so.
our_slots() {
  for name in $SLOTS; do [ "$name" = "$previous" ] || say "$name"; done
}

# Everything in containerd that is of soci, as long as the snapshotter is there to delete it with. The records of the
# containers stay: by them the kubelet takes the pods' networks down.
take_away_containers() {
  [ "$previous" != "$slot" ] || return 0
  [ "$kubelet_was" != active ] || systemctl stop kubelet.service
  containers=$(soci_containers)
  for container in $containers; do ctr --namespace k8s.io tasks kill "$container" >/dev/null 2>&1 || :; done
  tries=0
  while some_run "$containers" && [ "$tries" -lt $((STOP_SECONDS * 5)) ]; do
    tries=$((tries + 1))
    sleep 0.2
  done
  for container in $containers; do ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :; done
  for name in $(our_slots); do
    slot "$name"
    left=$(all_users)
    [ -z "$left" ] || die "containers did not end: $(pods_of "$left")"
  done
  forget_images_of_soci
  for name in $(our_slots); do
    slot "$name"
    # containerd must forget the snapshots before their directory goes, and for that it needs the daemon.
    if { [ -e "$ROOT$unit_file" ] || [ -e "$ROOT$adoption" ]; } && ! snapshotter_answers; then
      snapshotter_action=start
      (start_snapshotter) || say "$unit does not start: containerd keeps the records of its snapshots" >&2
    fi
    remove_snapshots
  done
}

# some_run CONTAINERS
some_run() {
  running=$(ctr --namespace k8s.io tasks ls 2>/dev/null | awk '$NF == "RUNNING" { print $1 }')
  for container in $1; do
    case "
$running
" in *"
$container
"*) return 0 ;; esac
  done
  return 1
}

# Images whose layers exist only as snapshots of soci, as their blobs were never downloaded, or not kept: the kubelet
# takes them for present and would not pull them again. The last column says: unpacked under the previous snapshotter.
forget_images_of_soci() {
  incomplete=$(ctr --namespace k8s.io images check --snapshotter "$previous" 2>/dev/null | awk -v pause="$pause_image" '
    $4 == "incomplete" && $NF == "false" && $1 != pause { print $1 }')
  # shellcheck disable=SC2086 # a list
  [ -z "$incomplete" ] || ctr --namespace k8s.io images rm --sync $incomplete >/dev/null
}

# Children first: a snapshot with a child cannot be removed, so go round until nothing is left or nothing moves.
remove_snapshots() {
  while :; do
    moved=0
    for key in $(snapshots 2>/dev/null); do
      if ctr --namespace k8s.io snapshots --snapshotter "$snapshotter" rm "$key" >/dev/null 2>&1; then moved=1; fi
    done
    [ "$moved" = 1 ] || return 0
  done
}

snapshots() {
  listed=$(ctr --namespace k8s.io snapshots --snapshotter "$snapshotter" ls) || return
  say "$listed" | awk 'NR > 1 { print $1 }'
}

# The directory itself may be a mount point of the node, such as a fast local disk.
remove_data() {
  [ -d "$ROOT$data" ] || return 0
  find "$ROOT$data" -xdev -mindepth 1 -delete 2>/dev/null
}

# The old configuration is in effect, not only on disk: the daemon runs without soci, and a sandbox starts.
check_old_in_effect() {
  [ "$previous" != "$slot" ] || return 0
  case $original_dump in
    *'[proxy_plugins.soci]'*) ;; # the node's own
    *)
      ctr plugins ls | awk '$1 == "io.containerd.snapshotter.v1" && $2 ~ /^soci(-b)?$/ { found = 1 } END { exit found }' ||
        die "containerd was restarted and still runs with soci"
      ;;
  esac
  run_canary "$previous"
  clear_canary
}

# put_back: containerd does not run on the node's own configuration, so what was installed comes back. Ends in failure.
put_back() {
  cause=$(tail -n 1 "$STATE/removal.log")
  each_file "$STATE/current" put_installed
  systemctl daemon-reload
  for name in $SLOTS; do
    slot "$name"
    if [ -e "$ROOT$unit_file" ] || [ -e "$ROOT$adoption" ]; then systemctl start "$unit"; fi
  done
  (restart_containerd) || die "$cause; and what was installed does not run either: $(tail -n 1 "$STATE/removal.log")"
  state=committed
  journal $state
  die "$cause; SOCI was put in place again"
}

put_installed() {
  if [ "$new" = absent ]; then
    drop "$ROOT$path"
  elif [ "$(sha "$ROOT$path")" != "$new" ]; then
    put "$1/new/$name" "$ROOT$path" "$mode" "$owner"
  fi
}

# Their snapshots are gone already; without them the kubelet's own clean-up of these pods succeeds.
forget_containers() {
  [ "$previous" != "$slot" ] || return 0
  containers=$(soci_containers)
  for container in $containers; do
    ctr --namespace k8s.io containers rm --keep-snapshot "$container" >/dev/null 2>&1 || :
  done
}

# clean_up SLOT: its daemon and its directories. A unit of the operating system goes back to what it was.
clean_up() {
  slot "$1"
  if grep -q "^$adoption$TAB" "$STATE/originals/files"; then
    case $(cat "$STATE/originals/snapshotter-was" 2>/dev/null || say active) in
      active) timeout 150 systemctl restart "$unit" || say "$unit does not start as the system's own; see journalctl -u $unit" ;;
      *) timeout 30 systemctl stop "$unit" || : ;;
    esac
    return
  fi
  stop_snapshotter
  awk -v data="$data/" 'index($5, data) == 1 { print $5 }' "${MOUNTINFO:-/proc/self/mountinfo}" | sort -r |
    while read -r mount; do umount --lazy "$mount" || :; done
  remove_data || die "$data is still in use"
  rm -rf "$ROOT$runtime_directory"
}

# --- retirement of the daemon that the other slot's has replaced --------------------------------------------------

# retire SLOT: each step can be done again, so what a kill or a power cut leaves undone, the next call does. The unit
# goes after the data: while it is there the snapshots may be, too, and containerd must forget them before their
# directory goes; it would take them for present when the slot is used again.
# The slot's proxy plugin stays in containerd's configuration: unused it is inert, and to remove it costs a restart.
retire() {
  exec 9>"$STATE/lock"
  flock -w 60 9 || die "an install is at work"
  read_journal
  case $state in
    committed) make_current "$STATE/txn/$transaction" ;;
    rolled-back) ;;
    *) die "the transaction $transaction has not ended" ;;
  esac
  [ -e "$STATE/current/plan.env" ] || die "nothing is installed"
  read_plan "$STATE/current"
  [ "$1" != "$slot" ] || die "new containers are created under $1"
  each_file "$STATE/current" check_in_effect
  slot "$1"
  count=$(all_users | wc -l)
  [ "$count" = 0 ] || die "$count containers are still on $1"
  left=$(containers) || die "containerd does not answer"
  [ -z "$left" ] || die "containerd has not deleted yet what ended on $1"
  for file in "$adoption" "$unit_file"; do
    if is_ours "$file"; then retire_daemon; fi
  done
  if is_ours "$config_file"; then restore_original "$config_file"; fi
  remove_folders "$STATE"
  forget_versions
  say "the daemon of $1 is retired"
}

# Somebody may have turned containerd back to the old daemon.
check_in_effect() {
  [ "$group" != containerd ] || grep -q "snapshotter *= *[\"']${slot}[\"']" "$ROOT$path" ||
    die "$path does not name the snapshotter $slot any more"
}

retire_daemon() {
  snapshotter_action=start
  start_snapshotter
  remove_snapshots
  left=$(snapshots) || die "containerd does not reach the snapshotter $snapshotter"
  [ -z "$left" ] || die "snapshots of $snapshotter are still in use"
  stop_snapshotter
  remove_data || die "$data is still in use"
  # A socket of the operating system's unit is systemd's.
  [ "$file" = "$adoption" ] || rm -rf "$ROOT$runtime_directory"
  restore_original "$file"
  systemctl daemon-reload
}

# Every file of a slot that is ours begins with the same words.
is_ours() { head -n 1 "$ROOT$1" 2>/dev/null | grep -q '^# Written by SociCluster'; }

status() {
  read_journal
  say "journal: ${state:-none} ${transaction}"
  say "files:"
  [ ! -e "$STATE/current/files" ] || cut -f2,6 "$STATE/current/files"
  for name in $SLOTS; do
    slot "$name"
    say "snapshotter $name: $(systemctl is-active "$unit" || :), lazily loaded containers: $(lazy_users | wc -l)"
  done
  say "containerd: $(systemctl is-active containerd.service || :)"
}

verb=${1:-status}
[ $# -eq 0 ] || shift
case $verb in
  apply | boot | rollback | remove | removable | status | users | retire) "$verb" "$@" ;;
  remove-now) remove_now "$@" ;;
  *) die "usage: soci-host.sh apply DIR | boot | rollback ID | remove [--force] | removable [--force] | status |
       users [SLOT [all]] | retire SLOT" ;;
esac
