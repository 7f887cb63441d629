# --- heal: what a start of a daemon left broken -----------------------------------------------------------------------
#
# A daemon that starts mounts again what it served before. A layer that it cannot mount then (its registry is away or
# refuses, or the mode is another one) it does not try again, and nothing starts on it any more. containerd and the
# kubelet take the image for present all the same: its next pull finds the layers there and fetches nothing. So what
# does not start is forgotten by containerd, which makes the next pull a fresh one. And what a container had mounted
# died with the daemon that served it, whatever came back.

# After a boot the pull secrets of the node's pods are not in memory yet: they are waited for, once for each start of a
# daemon, and a restart brings back what they open.

# heal [--again]: once after each start of a daemon; with --again once more. The result, a line each, for the agent and
# for people:
#   forgotten IMAGE         its layers did not come back: the next pull is a fresh one
#   held IMAGE CONTAINER    its layers did not come back, and a running container is on them: nothing starts on it
#   broken CONTAINER        it runs, and what it had mounted is dead
# Fails when it could not look at everything: that start of the daemon is looked at again.
heal() {
  case ${1:-} in '' | --again) ;; *) die "usage: soci-host.sh heal [--again]" ;; esac
  [ -e "$STATE/current/plan.env" ] || return 0
  # Not with the lock held: a start of containerd waits for whoever holds it.
  read_plan "$STATE/current"
  await_containerd
  take_lock 300 "an install or an uninstall is at work"
  read_journal
  case $JOURNAL in
    committed) make_current "$STATE/txn/$TRANSACTION" ;;
    rolled-back) ;;
    *) return 0 ;;
  esac
  [ -e "$STATE/current/plan.env" ] || return 0
  read_plan "$STATE/current"
  if ! has_awaited_secrets && in_slot "$PLAN_slot" lacks_secrets; then
    leave_lock
    await_secrets
    heal "$@" # anything may have happened meanwhile
    return
  fi
  [ -z "${1:-}" ] || rm -f "$STATE"/healed-*
  in_each_slot heal_slot
}

# Whether they were read, or awaited in vain since this start of the daemon.
has_awaited_secrets() {
  [ -s "$SECRETS_READ" ] || [ -n "$HAS_AWAITED_SECRETS" ] ||
    in_slot "$PLAN_slot" started_as | grep -qxF -f "$STATE/awaited-secrets" 2>/dev/null
}

# lacks_secrets: whether layers of the selected slot may not have come back for want of a pull secret that the node had.
lacks_secrets() {
  local chains
  [ -s "$SECRET_HOSTS" ] && is_up || return 1
  look_afresh
  chains=$(look_at_chains | awk '{ print $2 }')
  [ -n "$chains" ] && images_on "$chains" | hosts_of_images | grep -qxF -f "$SECRET_HOSTS"
}

# As the agent has the names of registries.
hosts_of_images() {
  sed 's,/.*,,' | tr '[:upper:]' '[:lower:]' | sed 's,^\(registry-1\.\)\{0\,1\}docker\.io$,index.docker.io,' | sort -u
}

await_secrets() {
  local give_up
  say "pull secrets are awaited, for $SECRETS_SECONDS s at most" >&2
  give_up=$(($(now_ms) + SECRETS_SECONDS * 1000))
  until [ -s "$SECRETS_READ" ] || [ "$(now_ms)" -ge "$give_up" ]; do sleep 1; done
  HAS_AWAITED_SECRETS=yes
  in_slot "$PLAN_slot" started_as >"$STATE/awaited-secrets" || : # a full disk: the next heal waits again
}

await_containerd() {
  local give_up
  give_up=$(($(now_ms) + 60000))
  until containerd_answers; do
    [ "$(now_ms)" -lt "$give_up" ] || die "containerd does not answer"
    sleep 0.5
  done
}

# heal-later: for the unit of the daemon once it has come up, which must not wait for containerd.
heal_later() {
  note_start
  default_plan
  know_kind_of_older_plan
  [ ! -e "$STATE/current/plan.env" ] || read_plan "$STATE/current"
  # One that is at work looks for a later start of the daemon itself, before it ends.
  systemd-run --quiet --collect --no-block --unit="$HEAL_UNIT" --property=RuntimeMaxSec=900 \
    --property=After="$PLAN_containerd_unit soci-snapshotter.service soci-snapshotter-b.service" \
    "$PROGRAM/soci-host.sh" heal 2>/dev/null || :
}

# heal_slot: of the selected slot. It is over when the daemon that it began with is still the one that runs.
heal_slot() {
  local started found rounds
  rounds=0 started='' found=''
  while is_up && [ "$started" != "$(started_as)" ] && [ $rounds -lt 3 ]; do
    rounds=$((rounds + 1))
    started=$(started_as)
    look_afresh
    if is_healed "$started"; then
      found=$(still_broken)
    else
      found=$(heal_start)
      remember_healed "$started" "$found"
    fi
    say "$found" | grep '^forgotten ' || :
  done
  say "$found" | grep -e '^broken ' -e '^held ' || :
  ! say "$found" | grep -q '^unsure ' || die "containerd did not answer for everything on $SNAPSHOTTER"
}

is_up() { [ "$(systemctl is-active "$UNIT" || :)" = active ] && has_unit; }

# heal_start: what came of this start of the daemon, and what was done about it; "unsure" of what nobody could tell. An
# image of the other slot may start under the one in use, and is left alone.
heal_start() {
  local looked unavailable lost
  if [ "$SNAPSHOTTER" = "$PLAN_slot" ]; then
    ! is_forgetting || end_forgetting
    clear_cut_pulls
    looked=$(look_at_chains)
    say "$looked" | grep '^unsure ' || :
    unavailable=$(say "$looked" | sed -n 's/^unavailable //p')
    lost=$(say "$looked" | sed -n 's/^lost //p')
    [ -z "$lost" ] || heal_lost "$lost"
    if [ -n "$unavailable" ]; then heal_chains "$unavailable"; else rm -f "$STATE/restarted-for-held"; fi
  fi
  dead_containers
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

# remember_healed START FOUND: a start after which something is held or unsure is looked at again.
remember_healed() {
  rm -f "$STATE/healed-$SNAPSHOTTER"
  ! say "$2" | grep -q -e '^held ' -e '^unsure ' || return 0
  { say "start $1" && say "$2"; } >"$STATE/healed-$SNAPSHOTTER.next" || return 0 # a full disk: it is done again
  mv -fT "$STATE/healed-$SNAPSHOTTER.next" "$STATE/healed-$SNAPSHOTTER"
}

# look_at_chains: "unavailable CHAIN" for each chain on which something is to start, an image or a container, and nothing
# can; "lost CHAIN" where the daemon has no such layers at all, as after its store was wiped.
look_at_chains() {
  local chain number
  number=0
  chains_in_use | {
    while read -r chain; do
      number=$((number + 1))
      look_at_chain "$chain" "$number" &
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

# look_afresh: as look_at_containerd, without what an earlier look that was cut short left.
look_afresh() {
  await_connection "$SNAPSHOTTER"
  clear_keys "$SNAPSHOTTER" look >/dev/null 2>&1 || : # they would keep the layers for good
  look_at_containerd
}

# look_at_containerd: what it has, once a round. A list that fails is no empty one: what runs would be taken for ended.
#   HOLDERS   key and topmost chain of each snapshot of a container or an image volume; a pull's key has two words
#   PULLS     the keys of pulls
#   TASKS     container and process of each one that runs; after HOLDERS, so that none of those is missed
#   UNPACKED  configuration and topmost chain of each image that is unpacked under the slot's snapshotter
#   PARTS     of each index and manifest, digest and that of a part
#   NAMES     name and digest of each image
look_at_containerd() {
  local listed
  listed=$(snapshots_of "$SNAPSHOTTER" ls) || die "containerd does not list the snapshots of $SNAPSHOTTER"
  HOLDERS=$(say "$listed" | awk '$NF == "Active" && NF == 3 && $1 !~ /^(extract-|soci-cluster-)/ { print $1, $2 }')
  PULLS=$(say "$listed" | awk '$NF == "Active" && $1 ~ /^extract-/ { print $1 }')
  listed=$(ctr --namespace k8s.io tasks ls) || die "containerd does not list its tasks"
  TASKS=$(say "$listed" | awk 'NR > 1 && $NF != "STOPPED" { print $1, $2 }')
  listed=$(ctr --namespace k8s.io content ls) || die "containerd does not list its content"
  UNPACKED=$(say "$listed" | labels_of "containerd.io/gc.ref.snapshot.$SNAPSHOTTER=")
  PARTS=$(say "$listed" | labels_of containerd.io/gc.ref.content)
  listed=$(ctr --namespace k8s.io images ls) || die "containerd does not list its images"
  NAMES=$(say "$listed" | awk 'NR > 1 { print $1, $3 }')
}

# look_at_chain CHAIN NUMBER: asked as containerd asks it; the daemon then looks at every layer.
look_at_chain() {
  local key answer
  key=soci-cluster-look-$$-$2
  if answer=$(snapshots_of "$SNAPSHOTTER" prepare "$key" "$1" 2>&1); then
    snapshots_of "$SNAPSHOTTER" rm "$key" >/dev/null 2>&1 || :
    return 0
  fi
  case $(meaning_of "$answer") in
    unavailable) say "unavailable $1" ;;
    gone) say "lost $1" ;;
    unsure) say "unsure $1" ;;
  esac
}

# meaning_of ANSWER: of a snapshotter that refuses: the daemon's own word on a layer, a key that is gone, or nothing.
meaning_of() {
  case $1 in
    *'layer "'*'" unavailable'*) say unavailable ;;
    *'not found'* | *'does not exist'*) say gone ;;
    *) say unsure ;;
  esac
}

# heal_chains CHAINS: bring them back where that is possible, else free and forget what nothing runs on.
heal_chains() {
  local held
  held=$(held_images "$1")
  if started_without_secret_of "$1" && may_be_restarted; then
    start_daemon restart # which mounts the layers again
    return
  fi
  if [ -n "$held" ] && may_be_restarted && is_time_for_held && registry_answers "$held"; then
    remember_held
    start_daemon restart
    return
  fi
  free_chains "$1"
  [ -z "$held" ] || say "$held"
  forget "$(images_on "$1" | grep -vxF "$(say "$held" | awk '{ print $2 }')" || :)"
}

# heal_lost CHAINS: what is whole in containerd's content is unpacked anew, and the other images are pulled anew.
heal_lost() {
  local images incomplete
  images=$(images_on "$1")
  incomplete=$(incomplete_images | grep -xF -e "$images" | grep -vxF -e "$PLAN_pause_image" || :) # no kubelet pulls that
  forget_records "$({
    say "$1" | sed 's/^/lost /'
    say "$UNPACKED" | sed 's/^/unpacked /'
  } | awk '$1 == "lost" { lost[$2] } $1 == "unpacked" && $3 in lost { print $2 }')"
  forget "$incomplete"
}

# started_without_secret_of CHAINS: whether one of their images has a pull secret that was read after the daemon's start.
started_without_secret_of() {
  local read started host
  read -r read 2>/dev/null <"$SECRETS_READ" || return 1
  case $read in '' | *[!0-9]*) return 1 ;; esac
  started=$(start_of_daemon) && [ "$started" -lt "$read" ] || return 1
  for host in $(images_on "$1" | hosts_of_images); do
    [ ! -s "$SECRETS/$host" ] || return 0
  done
  return 1
}

# forget IMAGES
forget() {
  local image
  [ -n "$1" ] || return 0
  started_as >"$STATE/forgets" || : # a full disk
  # Synchronously: layers that linger would be taken for good by the next pull.
  # shellcheck disable=SC2086 # names of images have no blanks
  timeout 60 ctr --namespace k8s.io images rm --sync $1 >/dev/null || die "containerd does not forget $1"
  for image in $1; do say "forgotten $image"; done
  end_forgetting
}

# The daemon remembers that it found no index of what was forgotten, and would have it pulled whole.
end_forgetting() {
  ! may_be_restarted || start_daemon restart
  rm -f "$STATE/forgets"
}

# Whether a heal after this start of the daemon was cut short while it forgot images.
is_forgetting() { started_as | grep -qxF -f "$STATE/forgets" 2>/dev/null; }

# Whether nothing reads from the daemon, and no pull needs it, which may take longer than it is to the next restart.
may_be_restarted() {
  local living
  [ -z "$PULLS" ] && ! is_pulling_in_parallel || return 1
  living=$(living_mounts) || return 1
  [ -z "$living" ]
}

# images_on CHAINS: all names of the images that are unpacked to these chains: those of any manifest or index with such a
# configuration, and the kubelet's own, which is the digest of the configuration.
images_on() {
  {
    say "$1" | sed 's/^/chain /'
    say "$UNPACKED" | sed 's/^/unpacked /'
    say "$PARTS" | sed 's/^/part /'
    say "$NAMES" | sed 's/^/name /'
  } | awk '
    $1 == "chain" { chains[$2] }
    $1 == "unpacked" && $3 in chains { wanted[$2] }
    $1 == "part" { whole[++parts] = $2; part[parts] = $3 }
    $1 == "name" { digest[$2] = $3 }
    END {
      for (round = 1; round <= 2; round++) # a manifest has a configuration, an index has manifests
        for (i = 1; i <= parts; i++) if (part[i] in wanted) wanted[whole[i]]
      for (name in digest) if (digest[name] in wanted || name in wanted) print name
    }' | sort
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
    # The kernel knows of one that containerd has only just started.
    *) is_running "$1" || grep -qF "/$1/rootfs " "${MOUNTINFO:-/proc/self/mountinfo}" ;;
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

# "broken CONTAINER" for each that runs and has lazily loaded layers from an earlier start of the daemon.
dead_containers() {
  local daemon layers key
  daemon=$(start_of_daemon) || return 0
  layers=$(lazy_layers)
  say "$HOLDERS" | while read -r key _; do
    ! started_before "$(container_of "$key")" "$daemon" || look_at_container "$key" "$layers" </dev/null
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

# look_at_container KEY LAYERS: when the daemon does not know its layers, they were lazily loaded: it knows all others.
look_at_container() {
  local answer layer
  if answer=$(snapshots_of "$SNAPSHOTTER" mounts / "$1" 2>&1); then
    answer=:$(say "$answer" | tr ' ,=' ':::'):
    for layer in $2; do
      case $answer in *":$layer:"*) say "broken $(container_of "$1")" && return ;; esac
    done
    return 0
  fi
  case $(meaning_of "$answer") in
    unavailable) say "broken $(container_of "$1")" ;;
    unsure) say "unsure $1" ;;
  esac
}

# The lazily loaded mounts that a restart of the daemon would break: those of this start of it.
living_mounts() {
  local daemon mounts mount container status
  daemon=$(start_of_daemon) || daemon=0
  mounts=$(lazy_mounts) || die "the mounts of containers cannot be read"
  for mount in $mounts; do
    container=${mount%/*}
    container=${container##*/}
    case $mount in
      # It may have been mounted after its pod began: only one that cannot be read is dead.
      */image-volumes/*)
        status=0
        timeout 5 ls "$mount" >/dev/null 2>&1 || status=$?
        case $status in 0 | 124) ;; *) continue ;; esac
        ;;
      *) ! started_before "$container" "$daemon" || continue ;;
    esac
    say "$mount"
  done
}

# A registry that answers may refuse the daemon all the same: each restart in vain doubles the pause before the next.
is_time_for_held() {
  read_held
  # After a reboot the clock begins anew.
  [ "$(now_ms)" -lt "$HELD_LAST" ] || [ "$(now_ms)" -gt $((HELD_LAST + HELD_PAUSE)) ]
}

remember_held() {
  local pause
  pause=$((HELD_PAUSE * 2))
  [ $pause -gt 0 ] || pause=$((${HELD_SECONDS% *} * 1000))
  [ $pause -lt $((${HELD_SECONDS#* } * 1000)) ] || pause=$((${HELD_SECONDS#* } * 1000))
  say "$(now_ms) $pause" >"$STATE/restarted-for-held"
}

# read_held: when the daemon was last restarted for a held image, and the pause since then; 0 for never.
read_held() {
  HELD_LAST='' HELD_PAUSE=''
  read -r HELD_LAST HELD_PAUSE 2>/dev/null <"$STATE/restarted-for-held" || :
  case $HELD_LAST:$HELD_PAUSE in
    : | :* | *: | *[!0-9:]*) HELD_LAST=0 HELD_PAUSE=0 ;; # a full disk leaves an empty file
  esac
}

# registry_answers HELD: whether the registry of the first of these images says anything. Asked without credentials, and
# beside the kubelet's images: what it says does not matter.
registry_answers() {
  local image hosts answer status
  image=$(say "$1" | awk '$2 !~ /^sha256:/ { print $2; exit }')
  [ -n "$image" ] || return 1
  hosts=$(dump_configuration 2>/dev/null | hosts_in_dump)
  status=0
  answer=$(with_proxies timeout 10 ctr --namespace "$ASKING" content fetch --metadata-only ${hosts:+--hosts-dir "$hosts"} "$image" 2>&1) || status=$?
  ctr --namespace "$ASKING" images rm --sync "$image" >/dev/null 2>&1 || :
  ctr namespaces rm "$ASKING" >/dev/null 2>&1 || :
  case $status in 0) return ;; 124) return 1 ;; esac
  case $answer in *'dial tcp'* | *timeout* | *deadline* | *'no such host'*) return 1 ;; esac
}
