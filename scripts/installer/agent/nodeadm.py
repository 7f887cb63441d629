"""nodeadm writes containerd's configuration at every boot of AL2023 on EKS, so it is told our keys, too.

Sources: nodeadm's documentation of NodeConfig and amazon-eks-ami's change log. AMIs from v20251023 on read
the directory below; to an older one the file means nothing, and there the boot unit puts ours back.
"""

import json

from . import containerd_config
from .slots import FIRST, OUR_MARK, Slot

DROP_IN = "/etc/eks/nodeadm.d/50-soci-cluster.yaml"
PROGRAM = "/usr/bin/nodeadm"
DOCUMENT = """\
{mark}; removed by `soci-host.sh remove`.
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  containerd:
    config: |
{config}"""


def render(table: containerd_config.Path, slot: Slot = FIRST) -> str:
    """The NodeConfig whose TOML nodeadm merges into its own template, for the slot in use.

    ``table`` is where this containerd keeps its image keys: by the name of the table, nodeadm chooses between
    its templates of schema 2 and 3.
    """
    tables: dict[containerd_config.Path, list[str]] = {}
    # The first slot's snapshotter stays known: what was created under it could not be deleted otherwise.
    maps_ids = table == containerd_config.CRI_2
    keys = {
        key: value
        for one in (FIRST, slot)
        for key, value in containerd_config.wanted(table, one, maps_ids=maps_ids).items()
    }
    for key, value in keys.items():
        tables.setdefault(key[:-1], []).append(f"{key[-1]} = {json.dumps(value)}")
    lines = [
        line for header, keys in tables.items() for line in (f"[{'.'.join(map(_quoted, header))}]", *keys)
    ]
    return DOCUMENT.format(mark=OUR_MARK, config="".join(f"      {line}\n" for line in lines))


def _quoted(part: str) -> str:
    return json.dumps(part) if "." in part else part
