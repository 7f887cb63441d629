# --- heal: what a start of a daemon left broken -----------------------------------------------------------------------
#
# A daemon that starts mounts again what it served before. A layer that it cannot mount then (its registry is away or
# refuses, or the mode is another one) it does not try again, and nothing starts on it any more. containerd and the
# kubelet take the image for present all the same: its next pull finds the layers there and fetches nothing. So what
# does not start is forgotten by containerd, which makes the next pull a fresh one. And what a container had mounted
# died with the daemon that served it, whatever came back.

# heal [--again]: once after each start of a daemon; with --again once more. The result, a line each, for the agent and
# for people:
#   forgotten IMAGE         its layers did not come back: the next pull is a fresh one
#   held IMAGE CONTAINER    its layers did not come back, and a running container is on them: nothing starts on it
#   broken CONTAINER        it runs, and what it had mounted is dead
# Fails when it could not look.
heal() {
  case ${1:-} in '' | --again) ;; *) die "usage: soci-host.sh heal [--again]" ;; esac
  [ -d "$STATE" ] || return 0
  take_lock 300 "an install or an uninstall is at work"
  read_journal
  case $JOURNAL in
    committed) make_current "$STATE/txn/$TRANSACTION" ;;
    rolled-back) ;;
    *) return 0 ;;
  esac
  [ -e "$STATE/current/plan.env" ] || return 0
  read_plan "$STATE/current"
  [ -z "${1:-}" ] || rm -f "$STATE"/healed-*
  in_each_slot heal_slot
}

# heal-later: for the unit of the daemon, which must not wait for containerd.
heal_later() {
  default_plan
  know_kind_of_older_plan
  [ ! -e "$STATE/current/plan.env" ] || read_plan "$STATE/current"
  # One that is at work looks for a later start of the daemon itself, before it ends.
  systemd-run --quiet --collect --no-block --unit="$HEAL_UNIT" --property=After="$PLAN_containerd_unit" \
    "$PROGRAM/soci-host.sh" heal 2>/dev/null || :
}

# heal_slot: of the selected slot. It is over when the daemon that it began with is still the one that runs.
heal_slot() {
  local started found rounds
  rounds=0 started='' found=''
  while { [ "$(systemctl is-active "$UNIT" || :)" = active ] && has_unit; } && [ "$started" != "$(started_as)" ] && [ $rounds -lt 3 ]; do
    rounds=$((rounds + 1))
    started=$(started_as)
    await_connection "$SNAPSHOTTER"
    look_at_containerd
    if is_healed "$started"; then
      found=$(still_broken)
    else
      found=$(heal_start)
      remember_healed "$started" "$found"
    fi
    say "$found" | grep '^forgotten ' || :
  done
  say "$found" | grep -e '^broken ' -e '^held ' || :
}

# heal_start: what came of this start of the daemon, and what was done about it.
heal_start() {
  local broken
  broken=$(broken_chains)
  [ -z "$broken" ] || heal_chains "$broken"
  dead_containers | sed 's/^/broken /'
}

# Of what was found before: what still runs.
still_broken() {
  local word container
  while read -r word container; do
    [ "$word" != broken ] || ! is_running "$container" || say "broken $container"
  done <"$STATE/healed-$SNAPSHOTTER"
}

# What each start of the daemon changes.
started_as() { systemctl show "$UNIT" --property=InvocationID --value; }

is_healed() { grep -qxF "start $1" "$STATE/healed-$SNAPSHOTTER" 2>/dev/null; }

# remember_healed START FOUND: nothing is remembered of a start after which images are still held: they are tried again.
remember_healed() {
  rm -f "$STATE/healed-$SNAPSHOTTER"
  case "
$2" in *"
held "*) return 0 ;; esac
  { say "start $1" && say "$2"; } >"$STATE/healed-$SNAPSHOTTER.next" || return 0 # a full disk: it is done again
  mv -fT "$STATE/healed-$SNAPSHOTTER.next" "$STATE/healed-$SNAPSHOTTER"
}

# The chains on which something is to start, images and containers, and nothing can.
broken_chains() {
  local chain number
  number=0
  chains_in_use | {
    while read -r chain; do
      number=$((number + 1))
      can_start_on "$chain" "$number" || say "$chain" &
      [ $((number % 8)) -ne 0 ] || wait
    done
    wait
  }
}

# What images are unpacked to, by containerd's own label on their configuration, and what containers are made on.
chains_in_use() {
  {
    say "$UNPACKED" | awk '{ print $2 }'
    say "$HOLDERS" | awk '{ print $2 }'
  } | sort -u | grep . || :
}

# look_at_containerd: what it has, once a round. A list that fails is no empty one: what runs would be taken for ended.
#   TASKS     container and process of each one that runs
#   HOLDERS   key and topmost chain of each snapshot of a container or an image volume; a pull's key has two words
#   UNPACKED  configuration and topmost chain of each image that is unpacked under the slot's snapshotter
#   NAMES     name and digest of each image
look_at_containerd() {
  local listed
  listed=$(ctr --namespace k8s.io tasks ls) || die "containerd does not list its tasks"
  TASKS=$(say "$listed" | awk 'NR > 1 && $NF != "STOPPED" { print $1, $2 }')
  listed=$(snapshots_of "$SNAPSHOTTER" ls) || die "containerd does not list the snapshots of $SNAPSHOTTER"
  HOLDERS=$(say "$listed" | awk '$NF == "Active" && NF == 3 && $1 !~ /^(extract-|soci-cluster-)/ { print $1, $2 }')
  listed=$(ctr --namespace k8s.io content ls) || die "containerd does not list its content"
  UNPACKED=$(say "$listed" | awk -v label="containerd.io/gc.ref.snapshot.$SNAPSHOTTER=" '
    { count = split($NF, labels, ","); for (i = 1; i <= count; i++)
      if (index(labels[i], label) == 1) print $1, substr(labels[i], length(label) + 1) }')
  listed=$(ctr --namespace k8s.io images ls) || die "containerd does not list its images"
  NAMES=$(say "$listed" | awk 'NR > 1 { print $1, $3 }')
}

# can_start_on CHAIN NUMBER: asked as containerd asks it; the daemon then looks at every layer. Another failure than its
# own word on a layer says nothing.
can_start_on() {
  local key answer
  key=soci-cluster-look-$$-$2
  answer=$(snapshots_of "$SNAPSHOTTER" prepare "$key" "$1" 2>&1) || :
  snapshots_of "$SNAPSHOTTER" rm "$key" >/dev/null 2>&1 || :
  case $answer in *'layer "'*'" unavailable'*) return 1 ;; esac
}

# heal_chains CHAINS: bring them back where that is possible, else free and forget what nothing runs on.
heal_chains() {
  local held
  held=$(held_images "$1")
  if [ -n "$held" ] && [ -z "$(living_mounts)" ] && registry_answers "$held" && may_restart_again; then
    start_snapshotter restart # which mounts the layers again, and breaks nothing that is not broken
    return
  fi
  free_chains "$1"
  [ -z "$held" ] || say "$held"
  forget "$(images_on "$1" | grep -vxF "$(say "$held" | awk '{ print $2 }')" || :)"
}

# forget IMAGES
forget() {
  local image
  [ -n "$1" ] || return 0
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $1 >/dev/null || die "containerd does not forget $1"
  for image in $1; do say "forgotten $image"; done
  # This daemon remembers that it found no index of them, and would have them pulled whole.
  [ -n "$(living_mounts)" ] || start_snapshotter restart
}

# images_on CHAINS: all names of the images that are unpacked to these chains.
images_on() {
  local configuration chain
  say "$UNPACKED" | while read -r configuration chain; do
    say "$1" | grep -qxF -e "$chain" || continue
    # The kubelet's own name of the image is the digest of its configuration.
    say "$NAMES" | awk -v id="$configuration" '
      { digest[$1] = $2 }
      END { for (name in digest) if (id in digest && digest[name] == digest[id]) print name }'
  done | sort -u
}

# free_chains CHAINS: the snapshots of containers that do not run. Their records stay: by them the kubelet finds the logs.
free_chains() {
  local key chain
  say "$HOLDERS" | while read -r key chain; do
    if say "$1" | grep -qxF -e "$chain" && ! is_in_use "$key"; then
      snapshots_of "$SNAPSHOTTER" rm "$key" >/dev/null 2>&1 </dev/null || :
    fi
  done
}

# held_images CHAINS: "held IMAGE CONTAINER" for each image on which something runs.
held_images() {
  local key chain image
  say "$HOLDERS" | while read -r key chain; do
    if say "$1" | grep -qxF -e "$chain" && is_in_use "$key"; then
      for image in $(images_on "$chain" </dev/null); do say "held $image $(container_of "$key")"; done
    fi
  done
}

# is_in_use KEY: whether something runs on a snapshot: a container, or a pod that has it mounted as an image volume.
is_in_use() {
  case $1 in
    /*) awk -v mount="$1" '$5 == mount { found = 1 } END { exit !found }' "${MOUNTINFO:-/proc/self/mountinfo}" ;;
    *) is_running "$1" ;;
  esac
}

# container_of KEY: an image volume is its pod's: .../image-volumes/<sandbox>/<image>.
container_of() {
  local pod
  case $1 in
    /*) pod=${1%/*} && say "${pod##*/}" ;;
    *) say "$1" ;;
  esac
}

# pid_of CONTAINER: of one that runs.
pid_of() { say "$TASKS" | awk -v id="$1" '$1 == id { print $2 }'; }

is_running() { [ -n "$(pid_of "$1")" ]; }

# The running containers that have lazily loaded layers from an earlier start of the daemon.
dead_containers() {
  local daemon layers key
  daemon=$(start_of_daemon) || return 0
  layers=$(lazy_layers)
  say "$HOLDERS" | while read -r key _; do
    if started_before "$(container_of "$key")" "$daemon" && is_lazy "$key" "$layers" </dev/null; then container_of "$key"; fi
  done | sort -u
}

# started_before CONTAINER TICKS
started_before() {
  local pid ticks
  pid=$(pid_of "$1")
  [ -n "$pid" ] && ticks=$(start_of "$pid") && [ "$ticks" -lt "$2" ]
}

start_of_daemon() { start_of "$(systemctl show "$UNIT" --property=MainPID --value)"; }

# start_of PID: the ticks since the machine's boot at which it was started; no time service can move them.
start_of() {
  local line
  read -r line 2>/dev/null <"/proc/$1/stat" || return
  # The name of the program, in parentheses, may have blanks.
  # shellcheck disable=SC2086 # words
  set -- ${line##*) }
  say "${20}"
}

# is_lazy KEY LAYERS: when the daemon does not know its layers, they were lazily loaded: it knows all others.
is_lazy() {
  local mounts layer
  mounts=$(snapshots_of "$SNAPSHOTTER" mounts / "$1" 2>/dev/null) || return 0
  for layer in $2; do
    case ":$(say "$mounts" | tr ' ,=' ':::'):" in *":$layer:"*) return 0 ;; esac
  done
  return 1
}

# The lazily loaded mounts that a restart of the daemon would break: those of this start of it.
living_mounts() {
  local daemon mount container
  daemon=$(start_of_daemon) || daemon=0
  for mount in $(lazy_mounts); do
    container=${mount%/*}
    container=${container##*/}
    case $mount in
      # It may have been mounted after its pod began: only one that cannot be read is dead.
      */image-volumes/*) timeout 5 ls "$mount" >/dev/null 2>&1 || continue ;;
      *) ! started_before "$container" "$daemon" || continue ;;
    esac
    say "$mount"
  done
}

# may_restart_again: a registry that answers may refuse the daemon all the same. Writes down that it is restarted now.
may_restart_again() {
  local last=0
  [ ! -e "$STATE/restarted-for-held" ] || read -r last <"$STATE/restarted-for-held"
  # After a reboot the clock begins anew.
  [ "$last" -eq 0 ] || [ "$(now_ms)" -lt "$last" ] || [ "$(now_ms)" -gt $((last + HELD_SECONDS * 1000)) ] || return 1
  now_ms >"$STATE/restarted-for-held"
}

# registry_answers HELD: whether the registry of the first of these images says anything. Asked without credentials, and
# beside the kubelet's images: what it says does not matter.
registry_answers() {
  local image hosts answer status
  image=$(say "$1" | awk '$2 !~ /^sha256:/ { print $2; exit }')
  [ -n "$image" ] || return 1
  hosts=$(dump_configuration 2>/dev/null | awk '$1 == "config_path" && length($3) > 2 { gsub(/["'\'']/, "", $3); print $3; exit }')
  hosts=${hosts%%:*}
  status=0
  answer=$(timeout 10 ctr --namespace "$ASKING" content fetch --metadata-only ${hosts:+--hosts-dir "$hosts"} "$image" 2>&1) || status=$?
  ctr --namespace "$ASKING" images rm --sync "$image" >/dev/null 2>&1 || :
  ctr namespaces rm "$ASKING" >/dev/null 2>&1 || :
  case $status in 0) return ;; 124) return 1 ;; esac
  case $answer in *'dial tcp'* | *timeout* | *deadline* | *'no such host'*) return 1 ;; esac
}
