"""The settings of a cluster on EKS and of its only node group, as far as the guards read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    enabled: bool = True
    image: str = "public.ecr.aws/soci-workshop-examples/tensorflow_gpu:latest"


@dataclass(frozen=True)
class Shape:
    kubernetes_version: str = "1.36"
    mode: str = "lazy"
    state: str = "present"
    vpc_id: str = ""
    subnet_ids: tuple[str, ...] = ()
    public_subnet_ids: tuple[str, ...] = ()
    private_subnet_ids: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    release_url: str = "https://github.com/awslabs/soci-snapshotter/releases/download"
    installer_image: str = "public.ecr.aws/docker/library/python:3.13-alpine"
    sample_workload: Sample = Sample()
    eks_cluster_options: Mapping[str, Any] = field(default_factory=dict)
    node_groups: Mapping[str, Any] = field(default_factory=dict)
    instance_types: tuple[str, ...] = ("m6i.xlarge",)
    ami_type: str = ""
    node_count: int = 2
    require_nodes: bool = True
    node_subnet_ids: tuple[str, ...] = ()
    volume_gib: int = 100
    volume_type: str = "gp3"
    volume_iops: int = 0
    volume_throughput: int = 600
    instance_store: bool = True
    eks_node_group_options: Mapping[str, Any] = field(default_factory=dict)
