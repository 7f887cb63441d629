# --- files of the node, and the records: journal, plan, manifest, the node's own files --------------------------------

say() { printf '%s\n' "$*"; }

die() {
  say "$*" >&2
  exit 1
}

sha() {
  if [ -f "$1" ]; then
    sum=$(sha256sum <"$1")
    say "${sum%% *}"
  else
    say absent
  fi
}

# Milliseconds since boot; the kernel's clock, which no time service can move.
now_ms() {
  read -r uptime _ </proc/uptime
  say $((${uptime%.*} * 1000 + 1${uptime#*.}0 - 1000))
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

# Every file of a slot that is ours begins with the same words.
is_ours() { head -n 1 "$ROOT$1" 2>/dev/null | grep -q '^# Written by SociCluster'; }

# journal STATE: the one fact that a later boot trusts.
journal() {
  printf 'state=%s\ntransaction=%s\nsnapshotter_was=%s\nkubelet_was=%s\n' \
    "$1" "$transaction" "$snapshotter_was" "$kubelet_was" >"$STATE/journal.next" &&
    put "$STATE/journal.next" "$STATE/journal" 0600 0:0 &&
    rm -f "$STATE/journal.next"
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

# read_plan DIR: what the agent decided; plain key=value lines, never run as code.
read_plan() {
  snapshotter_action=none containerd_restart=0 pause_image='' pause_archive='' deadline_seconds=400 copy_seconds=0
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
      copy_seconds) copy_seconds=$value ;;
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

# each_file DIR COMMAND: COMMAND runs for every line of the manifest, with its fields as variables.
each_file() {
  while IFS="$TAB" read -r group path mode owner old new name; do
    "$2" "$1"
  done <"$1/files"
}

original_sum() { awk -F "$TAB" -v path="$path" '$1 == path { print $4 }' "$STATE/originals/files"; }

# nodeadm writes containerd's file anew at each boot, with the keys of our NodeConfig: nobody's work is in it.
is_generated() { [ "$group" = containerd ] && cut -f2 "$STATE/current/files" | grep -qxF /etc/eks/nodeadm.d/50-soci-cluster.yaml; }

# put_new DIR: the file of the current line as the transaction DIR wants it.
put_new() {
  if [ "$new" = absent ]; then drop "$ROOT$path"; else put "$1/new/$name" "$ROOT$path" "$mode" "$owner"; fi
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

# restore_original PATH: one file as it was before the first install.
restore_original() {
  while IFS="$TAB" read -r path mode owner old name; do
    [ "$path" != "$1" ] || restore_from "$STATE/originals"
  done <"$STATE/originals/files"
}

# remove_folders STATE-DIRECTORY
remove_folders() {
  [ -f "$1/originals/folders" ] || return 0
  while read -r folder; do rmdir "$ROOT$folder" 2>/dev/null || :; done <"$1/originals/folders"
}

# make_current DIR: the committed transaction is the one to look at from now on. The journal comes first: when it says
# so and this was cut short, whoever takes the lock next does it.
make_current() {
  ln -sfn "$1" "$STATE/current.next" && mv -fT "$STATE/current.next" "$STATE/current"
}

# The agent staged a file of zeros: room for the way back and the result, should the disk run full meanwhile.
free_reserved() { rm -f "$1/reserve"; }

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
