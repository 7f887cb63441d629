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
#   soci-host.sh users            mounts of containers that the running daemon serves lazily
#
# A transaction DIR holds plan.env, files (the manifest) and new/ (the staged files); apply adds old/, log and result.
# Manifest: one line a file, tab separated: group path mode owner old-sha256 new-sha256 name; "absent" for no file.
# Every managed file is listed, also an unchanged one: the committed manifest is the whole desired state.
set -eu

ROOT=${ROOT:-} # a directory in place of /, for tests
STATE=$ROOT/var/lib/soci-cluster
PROGRAM=$ROOT/opt/soci-cluster
DATA=/var/lib/soci-snapshotter-grpc
SOCKET=/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock
TAB=$(printf '\t')
step=start

say() { printf '%s\n' "$*"; }
die() {
  say "$*" >&2
  exit 1
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
  snapshotter_action=none containerd_restart=0 pause_image='' pause_archive='' deadline_seconds=400 version=''
  while IFS='=' read -r key value; do
    case $key in
      snapshotter_action) snapshotter_action=$value ;;
      containerd_restart) containerd_restart=$value ;;
      containerd_address) CONTAINERD_ADDRESS=$value ;;
      path) PATH=$value ;;
      pause_image) pause_image=$value ;;
      pause_archive) pause_archive=$value ;;
      deadline_seconds) deadline_seconds=$value ;;
      version) version=$value ;;
    esac
  done <"$1/plan.env"
  export CONTAINERD_ADDRESS PATH
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
    restore "$1"
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

restore() {
  found=$(sha "$ROOT$path")
  [ "$found" != "$old" ] || return 0
  # Another installer may have written containerd's file meanwhile: that stays, unless it was made from ours.
  if [ "$group" = containerd ] && [ "$found" != "$new" ] && ! grep -qF "$SOCKET" "$ROOT$path"; then
    say "soci-cluster: $path was changed by someone else meanwhile and is left as it is" >&2
  elif [ "$old" = absent ]; then
    drop "$ROOT$path"
  else
    put "$1/old/$name" "$ROOT$path" "$mode" "$owner"
  fi
}

# lazy_users: container mounts whose layers are served by the running daemon; a restart of it breaks them for good.
lazy_users() {
  awk -v data="$DATA" '
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

# containerd reports itself started also when its CRI plugin failed to load.
cri_answers() {
  ctr plugins ls 2>/dev/null | awk '
    $1 == "io.containerd.grpc.v1" && $2 == "cri" || $1 == "io.containerd.cri.v1" { seen = 1; if ($NF != "ok") bad = 1 }
    END { exit !seen || bad }'
}

# A gRPC call, not only an open socket: with socket activation systemd accepts before the daemon is there.
# A daemon that has no snapshot yet answers with an error of its own.
snapshotter_answers() {
  answer=$(ctr --connect-timeout 1s --address "$SOCKET" --namespace k8s.io snapshots ls 2>&1) && return
  case $answer in *"bucket does not exist"*) return 0 ;; esac
  return 1
}

start_snapshotter() {
  case $snapshotter_action in
    none) ;;
    restart)
      timeout 150 systemctl restart soci-snapshotter.service || die "soci-snapshotter did not start: $(last_words soci-snapshotter.service)"
      ;;
    start) timeout 150 systemctl start soci-snapshotter.service || die "soci-snapshotter did not start: $(last_words soci-snapshotter.service)" ;;
  esac
  tries=0
  until snapshotter_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || die "soci-snapshotter does not answer on its socket: $(last_words soci-snapshotter.service)"
    sleep 0.1
  done
}

# last_words UNIT: the last line that its own processes wrote, not what systemd says about them.
# With --since, journalctl's own -n 1 is the first line, and what a process wrote right before it died is still on
# its way to the journal.
last_words() {
  journalctl --sync 2>/dev/null || :
  journalctl _SYSTEMD_UNIT="$1" --since=-120s -o cat 2>/dev/null | tail -n 1 | cut -c1-300
}

snapshots() {
  of=$1
  shift
  ctr --namespace k8s.io snapshots --snapshotter "$of" "$@"
}

# carry_over DIR: images whose blobs are gone from the content store get their unpacked layers copied to soci.
# Until an image refers to them, ctr's own label keeps the new snapshots from containerd's garbage collection.
carry_over() {
  [ -s "$1/layers" ] || return 0
  for key in $(snapshots soci ls | awk '$1 ~ /^soci-cluster-carry-/ { print $1 }'); do snapshots soci rm "$key"; done
  while read -r config chains; do carry_image; done <"$1/layers"
  sync -f "$ROOT$DATA"
  while read -r config chains; do
    for chain in $chains; do
      snapshots soci label "$chain" containerd.io/gc.root= >/dev/null
    done
  done <"$1/layers"
}

carry_image() {
  key=soci-cluster-carry-$transaction
  parent='' there=$(snapshots soci ls | awk '{ print $1 }')
  mount=$(snapshots overlayfs view --target / "$key" "${chains##* }") || die "no layers to carry over: ${chains##* }"
  snapshots overlayfs rm "$key" 2>/dev/null || : # garbage collection may have been faster
  sources=$(say "$mount" | mount_folders lowerdir) # separated by colons, the lowest last
  for chain in $chains; do
    if ! printf '%s\n' "$there" | grep -qxF "$chain"; then
      mount=$(snapshots soci prepare --target / "$key" ${parent:+"$parent"}) || die "soci takes no layer on ${parent:-nothing}"
      target=$(say "$mount" | mount_folders upperdir)
      # Hard links need no space and no time, but work within one file system only. Lower layers never change.
      cp -al "${sources##*:}/." "$target" 2>/dev/null ||
        cp -a --remove-destination "${sources##*:}/." "$target" ||
        die "the layer $chain was not copied to $target"
      snapshots soci commit "$chain" "$key"
    fi
    parent=$chain sources=${sources%:*}
  done
  ctr --namespace k8s.io content label "$config" "containerd.io/gc.ref.snapshot.soci=$parent" >/dev/null
}

# mount_folders OPTION: the directories of a snapshot, from ctr's mount command; one without parent is a bind mount.
mount_folders() { sed -n -e 's/^mount -t bind \([^ ]*\) .*/\1/p' -e "s/.*[ ,]$1=\([^, ]*\).*/\1/p"; }

verify() {
  [ "$containerd_restarts" -gt 0 ] || cri_answers || die "containerd's CRI plugin did not load"
  # containerd's client waits up to 3 s before it connects to a restarted daemon again, and fails every call meanwhile.
  tries=0
  until ctr --namespace k8s.io snapshots --snapshotter soci ls >/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || die "containerd does not reach the soci snapshotter"
    sleep 0.1
  done
  step=images
  carry_over "$directory"
  step=verify
  if [ -n "$pause_archive" ]; then
    ctr --namespace k8s.io images import --local --snapshotter soci --discard-unpacked-layers=false "$pause_archive" >/dev/null
    ctr --namespace k8s.io images label "$pause_image" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null
  fi
  # Unpacks the pause image under soci, if it is not, and runs it: what each new sandbox is going to need.
  canary=soci-cluster-canary-$transaction
  timeout 60 ctr --namespace k8s.io run --detach --null-io --snapshotter soci "$pause_image" "$canary" >/dev/null ||
    die "a container of $pause_image does not start under soci"
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
  } >"$directory/result.next" && sync "$directory/result.next" && mv -fT "$directory/result.next" "$directory/result"
}

# undo: the node's old files and daemons back. Called with the journal read and the lock held.
undo() {
  restore_files "$directory"
  systemctl daemon-reload || :
  if [ "$state" = restarting ]; then restart_containerd; fi
  case $snapshotter_was in
    active)
      # Back to the old daemon, unless containers came to depend on the new one meanwhile.
      if [ "$snapshotter_action" = restart ] && [ -z "$(lazy_users)" ]; then
        systemctl restart soci-snapshotter.service || :
      fi
      ;;
    *)
      timeout 60 systemctl stop soci-snapshotter.service 2>/dev/null || :
      systemctl reset-failed soci-snapshotter.service 2>/dev/null || :
      ;;
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
  # On a full disk the cause could not be written down.
  [ -n "$cause" ] || [ "$(stat -f -c %a "$directory")" -gt 16 ] || cause="no space left on $STATE"
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
  snapshotter_was=$(systemctl is-active soci-snapshotter.service || :)
  mkdir -p "$directory/old"
  each_file "$directory" save_old
  arm
  state=armed
  journal $state

  step=snapshotter
  wanted=soci
  each_file "$directory" swap
  systemctl daemon-reload
  start_snapshotter

  if [ "$containerd_restart" = 1 ]; then
    step=swap
    wanted=containerd
    each_file "$directory" swap
    step=restart
    state=restarting
    journal $state
    restart_containerd
  fi

  step=verify
  verify

  step=commit
  while read -r image; do
    ctr --namespace k8s.io images rm "$image" >/dev/null || :
  done <"$directory/images-to-pull-again"
  ln -sfn "$directory" "$STATE/current.next"
  mv -fT "$STATE/current.next" "$STATE/current"
  state=committed
  journal $state
  disarm
  report committed ''
  clear_canary
  for entry in "$STATE"/txn/*; do
    # One without a result belongs to another installer that waits for the lock.
    [ "$entry" = "$directory" ] || [ ! -e "$entry/result" ] || rm -rf "$entry"
  done
  # Nothing runs from another version now: the daemon was restarted into this one.
  forget_all_but "$PROGRAM/versions/$version" "$PROGRAM"/versions/*
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
    if [ "$old" = absent ]; then
      drop "$ROOT$path"
    elif [ "$(sha "$ROOT$path")" != "$old" ]; then
      put "$STATE/originals/$name" "$ROOT$path" "$mode" "$owner"
    fi
  done <"$STATE/originals/files.reversed"
}

# --- uninstall ---------------------------------------------------------------------------------------------------

# The containers that were created under soci; containerd cannot delete them once the snapshotter is gone.
soci_containers() {
  for container in $(ctr --namespace k8s.io containers ls -q 2>/dev/null); do
    ctr --namespace k8s.io containers info "$container" 2>/dev/null | grep -q '"Snapshotter": "soci"' && say "$container"
  done
  return 0
}

# Images whose layers exist only as soci snapshots: their blobs were never downloaded.
lazy_images() {
  ctr --namespace k8s.io images check 2>/dev/null | awk '/incomplete/ { print $1 }'
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
    users=$(lazy_users | tr '\n' ' ')
    [ -z "$users" ] || die "lazily loaded containers are running; drain the node first, or use --force: $users"
    [ ! -e "$STATE/current/files" ] || each_file "$STATE/current" check_not_drifted
  fi
  kubelet=$(systemctl is-active kubelet.service || :)
  [ "$kubelet" != active ] || systemctl stop kubelet.service
  for container in $(soci_containers); do
    ctr --namespace k8s.io tasks rm --force "$container" >/dev/null 2>&1 || :
    ctr --namespace k8s.io containers rm "$container" >/dev/null 2>&1 || :
  done
  for image in $(lazy_images); do ctr --namespace k8s.io images rm --sync "$image" >/dev/null 2>&1 || :; done
  remove_snapshots
  journal removing
  own_unit=1
  [ ! -e "$ROOT/etc/systemd/system/soci-snapshotter.service.d/50-soci-cluster.conf" ] || own_unit=0
  restore_originals
  # SIGINT, unlike systemd's SIGTERM, makes the daemon unmount what it served.
  systemctl kill --kill-whom=main --signal=INT soci-snapshotter.service 2>/dev/null || :
  timeout 30 systemctl stop soci-snapshotter.service 2>/dev/null || :
  systemctl daemon-reload
  timeout 90 systemctl restart containerd.service
  [ "$kubelet" != active ] || systemctl start kubelet.service
  remove_folders
  if [ "$own_unit" = 1 ]; then
    rm -rf "$ROOT${SOCKET%/*}"
    # The directory itself may be a mount point of the node, such as a fast local disk.
    find "$ROOT$DATA" -xdev -mindepth 1 -delete 2>/dev/null || say "$DATA is still in use; delete it after a reboot"
    rmdir "$ROOT$DATA" 2>/dev/null || :
  fi
  rm -rf "$STATE" "$PROGRAM"
  say "removed; containerd runs on the node's own configuration"
}

# Children first: a snapshot with a child cannot be removed, so go round until nothing is left or nothing moves.
remove_snapshots() {
  while :; do
    moved=0
    for key in $(ctr --namespace k8s.io snapshots --snapshotter soci ls 2>/dev/null | awk 'NR > 1 { print $1 }'); do
      if ctr --namespace k8s.io snapshots --snapshotter soci rm "$key" >/dev/null 2>&1; then moved=1; fi
    done
    [ "$moved" = 1 ] || return 0
  done
}

status() {
  read_journal
  say "journal: ${state:-none} ${transaction}"
  say "files:"
  [ ! -e "$STATE/current/files" ] || cut -f2,6 "$STATE/current/files"
  say "snapshotter: $(systemctl is-active soci-snapshotter.service || :)"
  say "containerd: $(systemctl is-active containerd.service || :)"
  say "lazily loaded containers: $(lazy_users | wc -l)"
}

verb=${1:-status}
[ $# -eq 0 ] || shift
case $verb in
  apply | boot | rollback | remove | status) "$verb" "$@" ;;
  users) lazy_users ;;
  *) die "usage: soci-host.sh apply DIR | boot | rollback ID | remove [--force] | status | users" ;;
esac
