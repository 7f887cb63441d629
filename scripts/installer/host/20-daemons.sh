# --- containerd and the snapshotter's daemons -------------------------------------------------------------------------

# A daemon that accepts and never answers must not keep the rollback from its end. `timeout` runs the program.
ctr() { timeout -k 1 60 ctr "$@"; }

# snapshots_of SNAPSHOTTER ARGUMENT...
snapshots_of() {
  local snapshotter
  snapshotter=$1
  shift
  ctr --namespace k8s.io snapshots --snapshotter "$snapshotter" "$@"
}

# The program that containerd's unit starts now; if that is a wrapper, the program that was recorded at the install.
containerd_of_unit() {
  local program
  program=$(systemctl show "$PLAN_containerd_unit" --property=ExecStart | sed -n 's/.*path=\([^ ;]*\).*/\1/p')
  case ${program##*/} in containerd) ;; *) program=$PLAN_containerd_program ;; esac
  say "$program"
}

restart_containerd() {
  local started restarted tries
  started=$(now_ms)
  RESTARTS=$((RESTARTS + 1))
  timeout 90 systemctl restart "$PLAN_containerd_unit" || {
    [ $? -ne 124 ] || die "containerd did not stop and start within 90 s: $(systemctl show "$PLAN_containerd_unit" -p SubState)"
    die "containerd did not start: $(last_words "$PLAN_containerd_unit")"
  }
  restarted=$(now_ms)
  tries=0
  until cri_answers; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || die "containerd is active but its CRI plugin did not load"
    sleep 0.1
    restarted=$(now_ms)
  done
  DOWN_MS=$((restarted - started))
}

containerd_answers() { timeout 5 ctr --connect-timeout 2s version >/dev/null 2>&1; }

# containerd reports itself started also when its CRI plugin failed to load.
cri_answers() {
  ctr plugins ls 2>/dev/null | awk '
    $1 == "io.containerd.grpc.v1" && $2 == "cri" || $1 == "io.containerd.cri.v1" { seen = 1; if ($NF != "ok") bad = 1 }
    END { exit !seen || bad }'
}

# What containerd makes of its configuration as it is on the disk.
dump_configuration() {
  if [ -e "$ROOT$PLAN_containerd_config" ]; then
    "$CONTAINERD" --config "$ROOT$PLAN_containerd_config" config dump
  else
    "$CONTAINERD" config default
  fi
}

snapshotter_in_dump() {
  awk '{ gsub(/["'\'']/, "") }
    $1 ~ /^\[/ { found = $1 == "[plugins.io.containerd.cri.v1.images]" || $1 == "[plugins.io.containerd.grpc.v1.cri.containerd]" }
    found && $1 == "snapshotter" { print $3 }'
}

# The directory of hosts.toml in a dump; containerd separates several by colons.
hosts_in_dump() {
  awk '$1 == "config_path" && length($3) > 2 { gsub(/["'\'']/, "", $3); sub(/:.*/, "", $3); print $3; exit }'
}

root_in_dump() {
  awk '/^[ \t]*\[/ { exit } $1 == "root" { gsub(/["'\'']/, "", $3); print $3; exit }'
}

# with_proxies COMMAND ARGUMENT...: through the proxies that containerd runs with, wherever it has them from.
with_proxies() (
  local process name value
  process=$(systemctl show "$PLAN_containerd_unit" --property=MainPID --value) || process=0
  for name in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    value=$(tr '\0' '\n' 2>/dev/null <"/proc/$process/environ" | sed -n "s/^$name=//p") || value=''
    [ -z "$value" ] || export "$name=$value"
  done 2>/dev/null
  exec "$@"
)

# A gRPC call, not only an open socket: with socket activation systemd accepts before the daemon is there.
# A daemon that has no snapshot yet answers with an error of its own.
daemon_answers() {
  local answer
  answer=$(timeout 5 ctr --connect-timeout 1s --address "$SOCKET" --namespace k8s.io snapshots ls 2>&1) && return
  case $answer in *"bucket does not exist"*) return 0 ;; esac
  return 1
}

# start_daemon ACTION: start, restart or none; then wait until it answers.
start_daemon() {
  local give_up
  if [ "$1" != none ]; then
    timeout 300 systemctl "$1" "$UNIT" || die "$UNIT did not start: $(last_words "$UNIT")"
  fi
  give_up=$(($(now_ms) + 60000))
  until daemon_answers; do
    [ "$(now_ms)" -lt "$give_up" ] || die "$UNIT does not answer on its socket: $(last_words "$UNIT")"
    sleep 0.1
  done
}

# SIGINT, unlike systemd's SIGTERM, makes the daemon unmount what it served.
stop_daemon() {
  systemctl kill --signal=INT "$UNIT" 2>/dev/null || :
  timeout 60 systemctl stop "$UNIT" 2>/dev/null || :
  systemctl reset-failed "$UNIT" 2>/dev/null || :
}

has_unit() { [ -e "$ROOT$UNIT_FILE" ] || [ -e "$ROOT$ADOPTION" ]; }

# await_connection SNAPSHOTTER: containerd's client waits up to 3 s before it connects to a restarted daemon again, and
# fails every call meanwhile. A daemon that accepts and never answers takes all of a call's time.
await_connection() {
  local tries give_up
  tries=0
  give_up=$(($(now_ms) + 60000))
  until snapshots_of "$1" ls >/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] && [ "$(now_ms)" -lt "$give_up" ] || die "containerd does not reach the snapshotter $1"
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

# The units whose journal tells why an install failed, as options of journalctl.
journal_options() {
  say "-u $PLAN_containerd_unit"
  in_each_slot unit_option
}

unit_option() { say "-u $UNIT"; }
