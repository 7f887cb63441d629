#!/bin/sh
# Stand-in for AL2023's nodeadm, for what the tests need of it: `config` writes containerd's configuration from the
# template as at the first boot, `run` merges the TOML of /etc/eks/nodeadm.d into it and starts containerd and the
# kubelet, which are not enabled by themselves there. Like nodeadm it takes the template by the tables it is given.
set -eu
template=/etc/eks/template.toml
config=/etc/containerd/config.toml

merged() {
  cat /etc/eks/nodeadm.d/*.yaml 2>/dev/null | sed -n 's/^      //p' | tr "'" '"' >/run/nodeadm.toml
  awk -v drop_in=/run/nodeadm.toml '
    function table(line) { gsub(/^[ \t]+|[ \t]+$/, "", line); gsub(/\047/, "\"", line); return line }
    BEGIN { while ((getline line < drop_in) > 0) if (line ~ /^\[/) header = line; else keys[header] = keys[header] line "\n" }
    { print }
    table($0) in keys { printf "%s", keys[table($0)]; delete keys[table($0)] }
    END { for (header in keys) printf "\n%s\n%s", header, keys[header] }' $template
}

case $1 in
  config) cp $template $config ;;
  run)
    merged >$config.nodeadm
    mv $config.nodeadm $config
    systemctl restart containerd.service kubelet.service
    ;;
esac
