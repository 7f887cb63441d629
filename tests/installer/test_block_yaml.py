"""The reader of Kubernetes' own files, compared with PyYAML where that reads the same schema."""

import json

import pytest
import yaml
from agent import block_yaml

KUBEADM = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==
    server: https://10.0.0.1:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: system:node:worker-1
  name: system:node:worker-1@kubernetes
current-context: system:node:worker-1@kubernetes
kind: Config
preferences: {}
users:
- name: system:node:worker-1
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
"""
EKS = """\
---
apiVersion: v1
kind: Config
users:
  - name: kubelet
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1beta1
        command: aws
        args:
          - "eks"
          - 'get-token'
          - "--cluster-name"
          - "it's \\"mine\\""   # a comment
        env: null
"""
PROVIDERS = """\
# written by the cloud
kind: CredentialProviderConfig
providers:
  -
    name: acr-credential-provider
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    defaultCacheDuration: 10m
    matchImages:
    - "*.azurecr.io"
    - '*.azurecr.cn'
    - registry.corp:5000/team#1
    args:
    - /etc/kubernetes/azure.json
    - -v
    - --registry-mirror=mcr.microsoft.com:abcd.azurecr.io
    env: [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]
    isOn: true
    count: 12
  - name: second   # and last
    matchImages: []
"""


@pytest.mark.parametrize("text", [KUBEADM, EKS, PROVIDERS, "", "a: b\n", "- a\n- - b\n  - c\n-\n  d: 1\n"])
def test_the_files_of_kubernetes_are_read_as_yaml_reads_them(text: str) -> None:
    assert block_yaml.load(text) == yaml.safe_load(text)


def test_json_is_read() -> None:
    assert block_yaml.load(json.dumps(yaml.safe_load(PROVIDERS), indent=2)) == yaml.safe_load(PROVIDERS)


@pytest.mark.parametrize(
    "text",
    [
        "a: &anchor b\nc: *anchor\n",
        "a: !!binary b\n",
        "a: |\n  text\n",
        "a: >-\n  text\n",
        "a: {b: c}\n",
        "a: [b,\n  c]\n",
        "a: b\n---\nc: d\n",
        "a: b\n c: d\n",
        "a: b\na: c\n",
        "a:\n\tb: c\n",
        'a: "open\n',
        "a: b: c\n",
        "a: b\n  folded\n",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        block_yaml.load(text)


def test_a_refusal_shows_no_value() -> None:
    with pytest.raises(ValueError, match="not understood") as refused:
        block_yaml.load("token: &x s3cr3t\n")
    assert "s3cr3t" not in str(refused.value)
