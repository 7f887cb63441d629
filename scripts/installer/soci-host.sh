#!/bin/sh
# The critical section of an install, on the node itself: swap the staged files, restart containerd once, verify,
# and put everything back when anything fails. It needs systemd, coreutils, util-linux' flock and containerd's ctr.
# Started by systemd-run, so neither the end of the installer's pod nor containerd's restart ends it.
#
#   soci-host.sh apply DIR        commit the staged transaction DIR, or leave the node as it was
#   soci-host.sh rollback ID      undo the transaction ID unless it is committed (the dead man's timer calls it)
#   soci-host.sh boot             before every start of containerd: end in one of the two good states
#   soci-host.sh remove [--force] uninstall: the node's own files back byte for byte, everything of ours gone
#   soci-host.sh status           what is installed and what is running
#   soci-host.sh users [SLOT [all]] mounts of containers that the slot's daemon serves lazily; or of all its containers
#   soci-host.sh retire SLOT      take away the daemon that the other slot's replaced, once no container needs it
#
# A slot is one of the two places for a daemon: `soci` and `soci-b`, see agent/slots.py.
# A transaction DIR holds plan.env, files (the manifest) and new/ (the staged files); apply adds old/, log and result.
# Manifest: one line a file, tab separated: group path mode owner old-sha256 new-sha256 name; "absent" for no file.
# Every managed file is listed, also an unchanged one: the committed manifest is the whole desired state.
set -eu

ROOT=${ROOT:-} # a directory in place of /, for tests
STATE=$ROOT/var/lib/soci-cluster
PROGRAM=$ROOT/opt/soci-cluster
SLOTS='soci soci-b'
TAB=$(printf '\t')
step=start

say() { printf '%s\n' "$*"; }
die() {
  say "$*" >&2
  exit 1
}

# slot NAME: what the daemon of that slot has for itself. NAME is also the snapshotter's name in containerd.
slot() {
  case " $SLOTS " in *" $1 "*) ;; *) die "there is no slot $1, only $SLOTS" ;; esac
  snapshotter=$1
  suffix=${1#soci}
  unit=soci-snapshotter$suffix.service
  unit_file=/etc/systemd/system/$unit
  adoption=$unit_file.d/50-soci-cluster.conf
  config_file=/etc/soci-snapshotter-grpc$suffix/config.toml
  socket=/run/soci-snapshotter-grpc$suffix/soci-snapshotter-grpc.sock
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

# put SOURCE TARGET MODE OWNER: TARGET becomes SOURCE in one step: wholly old or wholly new, also after a power cut.
put() {
  folder=$(dirname "$2")
  temporary=$2.soci-cluster-new
  mkdir -p "$folder"
  cp "$1" "$temporary"
  chmod "$3" "$temporary"
  chown "$4" "$temporary"
  if [ -e /sys/fs/selinux/enforce ]; then
    if [ -e "$2" ]; then chcon --reference="$2" "$temporary"; else chcon --reference="$folder" "$temporary"; fi
  fi
  sync "$temporary"
  mv -fT "$temporary" "$2"
  sync "$folder"
}

drop() {
  if [ -e "$1" ]; then
    rm -f "$1"
    sync "$(dirname "$1")"
  fi
}

# journal STATE: the one fact that a later boot trusts.
journal() {
  printf 'state=%s\ntransaction=%s\nsnapshotter_was=%s\n' "$1" "$transaction" "$snapshotter_was" >"$STATE/journal.next"
  put "$STATE/journal.next" "$STATE/journal" 0600 0:0
  rm -f "$STATE/journal.next"
}

# read_plan DIR: what the agent decided; plain key=value lines, never run as code.
read_plan() {
  snapshotter_action=none containerd_restart=0 pause_image='' pause_archive='' deadline_seconds=400
  slot=soci slot_is_new=0 is_switch=0
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
    esac
  done <"$1/plan.env"
  export CONTAINERD_ADDRESS PATH
  slot "$slot"
}

read_journal() {
  state='' transaction='' snapshotter_was=''
  if [ -f "$STATE/journal" ]; then
    while IFS='=' read -r key value; do
      case $key in
        state) state=$value ;;
        transaction) transaction=$value ;;
        snapshotter_was) snapshotter_was=$value ;;
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
  tac "$1/files" >"$1/files.reversed"
  while IFS="$TAB" read -r group path mode owner old new name; do
    restore_from "$1/old"
  done <"$1/files.reversed"
}

check_unchanged() {
  [ "$(sha "$ROOT$path")" = "$old" ] || die "$path changed while the install was being prepared"
}

save_old() {
  [ "$old" = absent ] || put "$ROOT$path" "$1/old/$name" 0600 0:0
  # The node's own version of a file is kept once, at the first install, for the uninstall.
  if ! cut -f1 "$STATE/originals/files" 2>/dev/null | grep -qxF "$path"; then
    mkdir -p "$STATE/originals"
    [ "$old" = absent ] || put "$ROOT$path" "$STATE/originals/$name" 0600 0:0
    { cat "$STATE/originals/files" 2>/dev/null || :
      printf '%s\t%s\t%s\t%s\t%s\n' "$path" "$mode" "$owner" "$old" "$name"; } >"$STATE/originals/files.next"
    sync "$STATE/originals/files.next"
    mv -fT "$STATE/originals/files.next" "$STATE/originals/files"
    remember_folders "$(dirname "$path")"
  fi
}

# Directories that do not exist yet will be ours to remove.
remember_folders() {
  [ -d "$ROOT$1" ] && return
  say "$1" >>"$STATE/originals/folders"
  remember_folders "$(dirname "$1")"
}

swap() {
  [ "$group" = "$wanted" ] || return 0
  [ "$old" != "$new" ] || return 0
  if [ "$new" = absent ]; then drop "$ROOT$path"; else put "$1/new/$name" "$ROOT$path" "$mode" "$owner"; fi
}

# restore_from FOLDER: the file of the current line as it was; FOLDER has its content.
restore_from() {
  if [ "$old" = absent ]; then
    drop "$ROOT$path"
  elif [ "$(sha "$ROOT$path")" != "$old" ]; then
    put "$1/$name" "$ROOT$path" "$mode" "$owner"
  fi
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
  timeout 90 systemctl restart containerd.service || die "containerd did not start: $(last_words containerd.service)"
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

containerd_answers() { ctr --connect-timeout 2s version >/dev/null 2>&1; }

# containerd reports itself started also when its CRI plugin failed to load.
cri_answers() {
  ctr plugins ls 2>/dev/null | awk '
    $1 == "io.containerd.grpc.v1" && $2 == "cri" || $1 == "io.containerd.cri.v1" { seen = 1; if ($NF != "ok") bad = 1 }
    END { exit !seen || bad }'
}

# A gRPC call, not only an open socket: with socket activation systemd accepts before the daemon is there.
# A daemon that has no snapshot yet answers with an error of its own.
snapshotter_answers() {
  answer=$(ctr --connect-timeout 1s --address "$socket" --namespace k8s.io snapshots ls 2>&1) && return
  case $answer in *"bucket does not exist"*) return 0 ;; esac
  return 1
}

start_snapshotter() {
  if [ "$snapshotter_action" != none ]; then
    timeout 150 systemctl "$snapshotter_action" "$unit" || die "$unit did not start: $(last_words "$unit")"
  fi
  tries=0
  until snapshotter_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || die "$unit does not answer on its socket: $(last_words "$unit")"
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
last_words() { journalctl _SYSTEMD_UNIT="$1" --since=-120s -n 1 -o cat 2>/dev/null | cut -c1-300; }

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
  if [ -n "$pause_archive" ]; then
    ctr --namespace k8s.io images import --local --snapshotter "$snapshotter" --discard-unpacked-layers=false "$pause_archive" >/dev/null
    ctr --namespace k8s.io images label "$pause_image" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null
  fi
  # Unpacks the pause image for the snapshotter, if it is not, and runs it: what each new sandbox is going to need.
  canary=soci-cluster-canary-$transaction
  timeout 60 ctr --namespace k8s.io run --detach --null-io --snapshotter "$snapshotter" "$pause_image" "$canary" >/dev/null ||
    die "a container of $pause_image does not start under $snapshotter"
  ctr --namespace k8s.io tasks ls | grep -q "^$canary .*RUNNING" || die "the canary of $pause_image ended at once"
}

clear_canary() {
  ctr --namespace k8s.io tasks rm --force "soci-cluster-canary-$transaction" >/dev/null 2>&1 || :
  ctr --namespace k8s.io containers rm "soci-cluster-canary-$transaction" >/dev/null 2>&1 || :
}

arm() {
  systemd-run --quiet --collect --on-active="$deadline_seconds" --unit="soci-cluster-deadman-$transaction" \
    "$PROGRAM/soci-host.sh" rollback "$transaction"
}

disarm() { systemctl stop "soci-cluster-deadman-$transaction.timer" >/dev/null 2>&1 || :; }

report() {
  {
    say "outcome=$1"
    say "step=$step"
    say "cause=$2"
    say "containerd_down_ms=$containerd_down_ms"
    say "containerd_restarts=$containerd_restarts"
  } >"$directory/result.next"
  sync "$directory/result.next"
  mv -fT "$directory/result.next" "$directory/result"
}

# undo: the node's old files and daemons back. Called with the journal read and the lock held.
undo() {
  # Once containerd does not know the snapshotter any more it cannot delete what was created under it meanwhile.
  if [ "$slot_is_new" = 1 ] && [ "$state" = restarting ] && containerd_answers; then
    remove_containers
    remove_snapshots
  fi
  restore_files "$directory"
  systemctl daemon-reload || :
  if [ "$state" = restarting ]; then restart_containerd; fi
  case $snapshotter_was in
    active)
      # Back to the old daemon, unless containers came to depend on the new one meanwhile.
      if [ "$snapshotter_action" = restart ] && [ -z "$(lazy_users)" ]; then
        systemctl restart "$unit" || :
      fi
      ;;
    *) stop_snapshotter ;;
  esac
  forget_originals
  state=rolled-back
  journal $state
}

# After a failed first install nothing of ours is in place: the next one looks at the node afresh.
forget_originals() {
  if [ ! -e "$STATE/current" ]; then
    remove_folders
    rm -rf "$STATE/originals"
  fi
}

remove_folders() {
  [ -f "$STATE/originals/folders" ] || return 0
  while read -r folder; do rmdir "$ROOT$folder" 2>/dev/null || :; done <"$STATE/originals/folders"
}

finish() {
  status=$?
  trap - EXIT
  set +e
  [ "$status" -ne 0 ] || exit 0
  cause=$(tail -n 1 "$directory/log")
  outcome=unchanged
  if [ "$state" != '' ]; then
    clear_canary
    outcome=rolled-back
    (undo) || outcome=broken
    [ "$state" != restarting ] || containerd_restarts=$((containerd_restarts + 1))
    disarm
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

  step=lock
  exec 9>"$STATE/lock"
  flock -w 120 9 || die "another install holds $STATE/lock"
  each_file "$directory" check_unchanged
  if [ "$snapshotter_action" = restart ]; then
    users=$(lazy_users | tr '\n' ' ')
    [ -z "$users" ] || die "busy: $users"
  fi
  read_journal
  case $state in armed | restarting) die "the transaction $transaction has not ended" ;; esac
  state='' transaction=${directory##*/}

  step=journal
  snapshotter_was=$(systemctl is-active "$unit" || :)
  mkdir -p "$directory/old"
  each_file "$directory" save_old
  arm
  state=armed
  journal $state

  step=snapshotter
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
    step=swap
    wanted=containerd
    # Just before the restart: what is pulled later is pulled by the new daemon.
    incomplete_images >"$directory/images-to-pull-again"
    each_file "$directory" swap
    step=restart
    state=restarting
    journal $state
    restart_containerd
  fi

  step=verify
  verify

  step=commit
  [ "$is_switch" = 0 ] || forget_images
  ln -sfn "$directory" "$STATE/current.next"
  mv -fT "$STATE/current.next" "$STATE/current"
  state=committed
  journal $state
  disarm
  report committed ''
  clear_canary
  forget_all_but "$directory" "$STATE"/txn/*
  forget_versions
}

# Images whose content is not on the node, neither in containerd's store nor, therefore, to be unpacked by another
# snapshotter: their layers were loaded lazily, or discarded once they were unpacked.
incomplete_images() {
  ctr --namespace k8s.io images check 2>/dev/null | awk '/incomplete/ { print $1 }'
}

# The kubelet takes such an image for present, but no container of it can be made any more: it has to be pulled anew.
# Those are meant that were incomplete before the change already; later ones were pulled by the new daemon.
forget_images() {
  images=$(incomplete_images | grep -xF -f "$directory/images-to-pull-again") || return 0
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $images >/dev/null || :
}

# The programs that no daemon's unit names any more. Not those that no process runs from: a daemon may be about to
# be started again.
forget_versions() {
  for folder in "$PROGRAM"/versions/*; do
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

# forget_all_but KEPT ENTRY...: delete the entries other than KEPT.
forget_all_but() {
  kept=$1
  shift
  for entry; do [ "$entry" = "$kept" ] || rm -rf "$entry"; done
}

rollback() {
  read_journal
  [ "$transaction" = "$1" ] || die "the journal is about ${transaction:-nothing}, not about $1"
  systemctl kill --signal=KILL "soci-cluster-txn-$1.service" 2>/dev/null || :
  exec 9>"$STATE/lock"
  flock -w 30 9
  read_journal
  case $state in committed | rolled-back) return ;; esac
  directory=$STATE/txn/$1 step=interrupted containerd_down_ms=0 containerd_restarts=0
  read_plan "$directory"
  undo
  disarm
  report rolled-back "the install was cut short, or did not end in $deadline_seconds seconds"
}

reapply_if_original() {
  [ "$group" = containerd ] && [ "$new" != absent ] || return 0
  found=$(sha "$ROOT$path")
  [ "$found" != "$new" ] || return 0
  original=$(awk -F "$TAB" -v path="$path" '$1 == path { print $4 }' "$STATE/originals/files")
  if [ "$found" = "$original" ]; then
    say "soci-cluster: $path was written back to the node's original; the installed one is put in place"
    put "$1/new/$name" "$ROOT$path" "$mode" "$owner"
  else
    say "soci-cluster: $path was changed since the install and is left as it is"
  fi
}

boot() {
  [ -d "$STATE" ] || return 0
  exec 9>"$STATE/lock"
  # Held: an install is at work, and its own restart of containerd is why we run.
  flock -n 9 || return 0
  read_journal
  case $state in
    armed | restarting)
      say "soci-cluster: the transaction $transaction was cut short; its files are put back"
      restore_files "$STATE/txn/$transaction"
      forget_originals
      journal rolled-back
      systemctl daemon-reload || :
      ;;
    removing)
      say "soci-cluster: an uninstall was cut short; run it again to finish it"
      restore_originals
      ;;
    *) if [ -e "$STATE/current/files" ]; then each_file "$STATE/current" reapply_if_original; fi ;;
  esac
}

# In reverse, too: containerd's own file first.
restore_originals() {
  tac "$STATE/originals/files" >"$STATE/originals/files.reversed"
  while IFS="$TAB" read -r path mode owner old name; do
    restore_from "$STATE/originals"
  done <"$STATE/originals/files.reversed"
}

# restore_original PATH: one file as it was before the first install.
restore_original() {
  while IFS="$TAB" read -r path mode owner old name; do
    [ "$path" != "$1" ] || restore_from "$STATE/originals"
  done <"$STATE/originals/files"
}

# --- uninstall ---------------------------------------------------------------------------------------------------

# The containers that were created under the slot's snapshotter; fails when containerd does not answer.
containers() {
  all=$(ctr --namespace k8s.io containers ls -q) || return
  for container in $all; do
    if ctr --namespace k8s.io containers info "$container" 2>/dev/null | grep -q "\"Snapshotter\": \"$snapshotter\""; then
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

check_not_drifted() {
  found=$(sha "$ROOT$path")
  original=$(awk -F "$TAB" -v path="$path" '$1 == path { print $4 }' "$STATE/originals/files")
  case $found in "$new" | "$original") return 0 ;; esac
  die "$path was changed by someone since the install; compare it with $STATE/originals, then use --force"
}

remove() {
  [ -d "$STATE" ] || die "nothing is installed"
  force=${1:-}
  exec 9>"$STATE/lock"
  flock -w 60 9 || die "an install is at work"
  read_journal
  if [ "$force" != --force ]; then
    users=$(users | tr '\n' ' ')
    [ -z "$users" ] || die "lazily loaded containers are running; drain the node first, or use --force: $users"
    [ ! -e "$STATE/current/files" ] || each_file "$STATE/current" check_not_drifted
  fi
  kubelet=$(systemctl is-active kubelet.service || :)
  [ "$kubelet" != active ] || systemctl stop kubelet.service
  for name in $SLOTS; do
    slot "$name"
    remove_containers
  done
  for image in $(incomplete_images); do ctr --namespace k8s.io images rm --sync "$image" >/dev/null 2>&1 || :; done
  for name in $SLOTS; do
    slot "$name"
    remove_snapshots
  done
  journal removing
  own_slots=
  for name in $SLOTS; do
    slot "$name"
    [ -e "$ROOT$adoption" ] || own_slots="$own_slots $name"
  done
  restore_originals
  for name in $SLOTS; do
    slot "$name"
    stop_snapshotter
  done
  systemctl daemon-reload
  timeout 90 systemctl restart containerd.service
  [ "$kubelet" != active ] || systemctl start kubelet.service
  remove_folders
  for name in $own_slots; do
    slot "$name"
    rm -rf "$ROOT${socket%/*}"
    remove_data || say "$data is still in use; delete it after a reboot"
  done
  rm -rf "$STATE" "$PROGRAM"
  say "removed; containerd runs on the node's own configuration"
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
  find "$ROOT$data" -xdev -mindepth 1 -delete 2>/dev/null || return
  rmdir "$ROOT$data" 2>/dev/null || :
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
  case $state in committed | rolled-back) ;; *) die "the transaction $transaction has not ended" ;; esac
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
  remove_folders
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
  [ "$file" = "$adoption" ] || rm -rf "$ROOT${socket%/*}"
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
  apply | boot | rollback | remove | status | users | retire) "$verb" "$@" ;;
  *) die "usage: soci-host.sh apply DIR | boot | rollback ID | remove [--force] | status | users [SLOT [all]] | retire SLOT" ;;
esac
