# --- files of the node, and the records: journal, plan, manifest, the node's own files --------------------------------

say() { printf '%s\n' "$*"; }

die() {
  CAUSE=$*
  say "$*" >&2
  exit 1
}

sha() {
  local sum
  if [ -f "$1" ]; then
    sum=$(sha256sum <"$1")
    say "${sum%% *}"
  else
    say absent
  fi
}

# Milliseconds since boot; the kernel's clock, which no time service can move.
now_ms() {
  local uptime
  read -r uptime _ </proc/uptime
  say $((${uptime%.*} * 1000 + 1${uptime#*.}0 - 1000))
}

# enter STEP: what is at work now, and when it began. What is said goes to the journal of the unit.
enter() {
  STEP=$1
  STEPS="$STEPS $1:$(now_ms)"
  say "step $1"
}

# take_lock SECONDS WHY: one change of the node at a time.
take_lock() {
  exec 9>"$STATE/lock"
  flock -w "$1" 9 || die "$2"
}

leave_lock() { exec 9>&-; }

# put SOURCE TARGET MODE OWNER: TARGET becomes SOURCE in one step: wholly old or wholly new, also after a power cut.
# A failure on the way leaves TARGET as it was, also where the shell does not end at one.
put() {
  local folder temporary
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

# append_line LINE FILE: unless it is there, and for good.
append_line() {
  if ! grep -qxF "$1" "$2" 2>/dev/null; then
    say "$1" >>"$2"
    sync "$2"
  fi
}

# Every file that is ours alone begins with the same words, but for those in our own folder.
is_ours() {
  case $1 in /opt/soci-cluster/*) return 0 ;; esac
  head -n 1 "$ROOT$1" 2>/dev/null | grep -q '^# Written by SociCluster'
}

# A unit of ours is in place, and what it starts has to stay.
is_called() { grep -rqs '^# Written by SociCluster' "$ROOT/etc/systemd/system"; }

# journal STATE: as soon as the file says so, it is so.
journal() {
  printf 'state=%s\ntransaction=%s\nsnapshotter_was=%s\nkubelet_was=%s\n' \
    "$1" "$TRANSACTION" "$SNAPSHOTTER_WAS" "$KUBELET_WAS" >"$STATE/journal.next" &&
    put "$STATE/journal.next" "$STATE/journal" 0600 0:0 &&
    rm -f "$STATE/journal.next" &&
    JOURNAL=$1
}

read_journal() {
  local key value
  JOURNAL='' TRANSACTION='' SNAPSHOTTER_WAS='' KUBELET_WAS=''
  [ -f "$STATE/journal" ] || return 0
  while IFS='=' read -r key value; do
    case $key in
      state) JOURNAL=$value ;;
      transaction) TRANSACTION=$value ;;
      snapshotter_was) SNAPSHOTTER_WAS=$value ;;
      kubelet_was) KUBELET_WAS=$value ;;
    esac
  done <"$STATE/journal"
}

# read_plan DIR: what the agent decided, as PLAN_<key>, and its slot selected. Lines key=value, never run as code: only
# a key with a default is taken.
read_plan() {
  local key value
  default_plan
  while IFS='=' read -r key value; do
    case $key in
      '' | *[!a-z_]*) ;;
      *) if eval "[ -n \"\${PLAN_$key+set}\" ]"; then eval "PLAN_$key=\$value"; fi ;;
    esac
  done <"$1/plan.env"
  [ -n "$PLAN_containerd_unit" ] || know_kind_of_older_plan
  if [ -n "$PLAN_containerd_address" ]; then export CONTAINERD_ADDRESS="$PLAN_containerd_address"; fi
  if [ -n "$PLAN_path" ]; then export PATH="$PLAN_path"; fi
  CONTAINERD=$PLAN_containerd_program
  select_slot "$PLAN_slot"
}

default_plan() {
  PLAN_slot=soci PLAN_slot_is_new=0 PLAN_is_switch=0 PLAN_snapshotter_action=none PLAN_deadline_seconds=400
  PLAN_containerd_unit='' PLAN_containerd_restart=0 PLAN_containerd_address='' PLAN_path=''
  PLAN_containerd_program='' PLAN_containerd_config='' PLAN_containerd_dump=''
  PLAN_kubelet_unit='' PLAN_pause_image='' PLAN_pause_archive='' PLAN_pause_import=0
}

# Version 0.1 did not write down what depends on the kind of node, and its pause_archive was only for the install itself.
know_kind_of_older_plan() {
  PLAN_containerd_unit=containerd.service PLAN_kubelet_unit=kubelet.service PLAN_pause_archive=/etc/eks/pause.tar
}

# each_file DIR COMMAND ARGUMENT...: COMMAND DIR ARGUMENT... runs for every line of DIR's manifest, with its fields as
# FILE_ROLE, FILE_PATH and so on. DIR is a transaction, or the node's originals, whose lines have no new-sha256.
each_file() {
  local directory command
  directory=$1 command=$2
  shift 2
  while IFS="$TAB" read -r FILE_ROLE FILE_PATH FILE_MODE FILE_OWNER FILE_OLD FILE_NEW FILE_NAME; do
    read_older_line "$directory"
    "$command" "$directory" "$@"
  done <"$directory/files"
}

# Version 0.1 wrote `soci` or `containerd` in place of the role, and originals without one: path mode owner old name.
read_older_line() {
  case $FILE_ROLE in
    /*)
      FILE_NAME=$FILE_OLD FILE_NEW=-
      FILE_OLD=$FILE_OWNER FILE_OWNER=$FILE_MODE FILE_MODE=$FILE_PATH FILE_PATH=$FILE_ROLE FILE_ROLE=soci
      ;;
  esac
  case $FILE_ROLE:$FILE_PATH in
    soci:*/soci-cluster-boot.service | soci:*/containerd.service.d/*) FILE_ROLE=recovery ;;
    soci:/etc/eks/nodeadm.d/*) FILE_ROLE=generator ;;
    soci:*) FILE_ROLE=daemon ;;
    containerd:*) if grep -qF "$TAB/etc/eks/nodeadm.d/" "$1/files"; then FILE_ROLE=generated; else FILE_ROLE=shared; fi ;;
  esac
}

# has_role ROLE...: whether the current line has one of them.
has_role() {
  case " $* " in *" $FILE_ROLE "*) ;; *) return 1 ;; esac
}

# shellcheck disable=SC2086 # a list
is_shared() { has_role $AFTER_DAEMON; }

# field DIR PATH NAME: of the line about PATH in DIR's manifest; nothing when there is no such line.
field() { [ ! -e "$1/files" ] || each_file "$1" print_field "$2" "$3"; }

print_field() { [ "$FILE_PATH" != "$2" ] || eval "say \"\$FILE_$3\""; }

# shared_path DIR: where containerd's configuration is.
shared_path() { each_file "$1" print_shared_path; }

print_shared_path() { ! is_shared || say "$FILE_PATH"; }

original_sum() { field "$STATE/originals" "$FILE_PATH" OLD; }

# put_new DIR: the file of the current line as the transaction DIR wants it.
put_new() {
  if [ "$FILE_NEW" = absent ]; then
    drop "$ROOT$FILE_PATH"
  else
    put "$1/new/$FILE_NAME" "$ROOT$FILE_PATH" "$FILE_MODE" "$FILE_OWNER"
  fi
}

# restore_from FOLDER: the file of the current line as it was; FOLDER has its content.
restore_from() {
  rm -f "$ROOT$FILE_PATH.soci-cluster-new" # of a put that was cut short
  if [ "$FILE_OLD" = absent ]; then
    drop "$ROOT$FILE_PATH"
  elif [ "$(sha "$ROOT$FILE_PATH")" != "$FILE_OLD" ]; then
    put "$1/$FILE_NAME" "$ROOT$FILE_PATH" "$FILE_MODE" "$FILE_OWNER"
  fi
}

# remove_folders STATE-DIRECTORY
remove_folders() {
  local folder
  [ -f "$1/originals/folders" ] || return 0
  # In a directory that an earlier install made, a later one may have made another: that one goes first.
  sort -r "$1/originals/folders" | while read -r folder; do rmdir "$ROOT$folder" 2>/dev/null || :; done
}

# make_current DIR: the committed transaction is the one to look at from now on. The journal comes first: when it says
# so and this was cut short, whoever takes the lock next does it.
make_current() {
  ln -sfn "$1" "$STATE/current.next" && mv -fT "$STATE/current.next" "$STATE/current"
}

# The agent staged a file of zeros: room for the rollback and the result, should the disk run full meanwhile.
free_reserved() { rm -f "$1/reserve"; }

# The programs that no daemon's unit names any more. Not those that no process runs from: a daemon may be about to
# be started again.
forget_versions() {
  local folder
  # The names with a dot are what an agent was unpacking when it was killed.
  for folder in "$PROGRAM"/versions/* "$PROGRAM"/versions/.[0-9]*; do
    in_each_slot names_version "${folder##*/}" | grep -q . || rm -rf "$folder"
  done
}

names_version() { grep -lsF "/versions/$1/" "$ROOT$UNIT_FILE" "$ROOT$ADOPTION" || :; }
