"""Every file of deploy/ passes its check, and its check refuses it when a fault is planted."""

import shutil
from pathlib import Path

import pytest
from deploy_checks import faults
from deploy_tools import MissingToolError

ROOT = Path(__file__).parents[3]
FILES = sorted(
    str(path.relative_to(ROOT / "deploy"))
    for path in (ROOT / "deploy").rglob("*")
    if path.is_file() and path.name not in {"README.md", "secrets.env"}
)
UNIT_FAULTS = [
    ("CapabilityBoundingSet=\nAmbientCapabilities=\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n", ""),
    ("UMask=0077", "UMask=0099"),
    ("User=alnnode\n", ""),
]
# Of each file: a text, and the fault that takes its place.
FAULTS = [
    ("Containerfile.listener", "USER 10001:10001\n", ""),
    ("Containerfile.listener", "HEALTHCHECK", "# HEALTHCHECK"),
    ("Containerfile.listener", "--require-hashes -r requirements-listener.lock", "celery"),
    ("Containerfile.worker", "AS build", "AS build\nRUN cd /tmp && sudo ls"),
    ("Containerfile.worker", "FROM docker.io/library/python:3.12-slim\n", "FROM docker.io/library/python\n"),
    ("Containerfile.worker", "-r requirements-worker.lock", "-r requirements-listener.lock"),
    ("compose.yaml", "read_only: true", "read_only: maybe"),
    ("compose.yaml", "read_only: true", "read_only: false"),
    ("compose.yaml", "healthcheck:  # both", "healthchek:  # both"),
    (
        "compose.yaml",
        "migrate: {condition: service_completed_successfully}",
        "migrat: {condition: service_completed_successfully}",
    ),
    ("compose.yaml", "127.0.0.1:8042:8042", "8042:8042"),
    ("compose.yaml", "requirepass $$", "maxmemory $$"),
    ("config.compose.toml", 'kind = "cstore"', 'kind = "cstor"'),
    ("secrets.env.example", "alnnode:change-me@", "alnnode:changed@"),
    ("haproxy/haproxy.cfg", "balance leastconn", "balance leastcon"),
    ("haproxy/haproxy.cfg", "11112 check", "11112"),
    ("haproxy/haproxy.cfg", "tcp-request connection reject if !senders", ""),
    ("prometheus/prometheus.yaml", "scrape_interval", "scrape_intervall"),
    ("prometheus/alnnode.rules.yaml", "> 1800", "> 18000"),
    ("prometheus/alnnode.rules.yaml", "min by (worker)", "min by worker"),
    ("prometheus/alnnode.rules.test.yaml", "alertname: AlnnodeDiskFills", "alertname: AlnnodeDiskFull"),
    ("grafana/alnnode.json", "alnnode_oldest_job_seconds", "alnnode_oldest_job_minutes"),
    ("grafana/alnnode.json", '"title"', '"titel"'),
    *[(f"systemd/{name}.service", *fault) for name in ("alnnode", "alnnode-web") for fault in UNIT_FAULTS[:1]],
    *[(f"systemd/{name}.service", *fault) for name in ("alnnode-listener", "alnnode-worker") for fault in UNIT_FAULTS[1:]],
    ("kubernetes/base/kustomization.yaml", "  - web.yaml\n", ""),
    ("kubernetes/base/kustomization.yaml", "    includeTemplates: true", "    includeTemplates: false"),
    ("kubernetes/base/namespace.yaml", "kind: Namespace", "kind: Namespaces"),
    ("kubernetes/base/storage.yaml", "name: alnnode-data", "name: data"),
    ("kubernetes/base/config.toml", "data_dir", "data_folder"),
    ("kubernetes/base/migrate.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    ("kubernetes/base/migrate.yaml", "backoffLimit: 10", "backofLimit: 10"),
    ("kubernetes/base/listener.yaml", "targetPort: dicom", "targetPort: dicon"),
    ("kubernetes/base/listener.yaml", "runAsNonRoot: true", "runAsNonRoot: false"),
    ("kubernetes/base/web.yaml", "limits: {memory: 4Gi}", "limits: {}"),
    ("kubernetes/base/web.yaml", "port: http}", "port: https}"),
    ("kubernetes/base/worker.yaml", "livenessProbe", "livenesProbe"),
    ("kubernetes/base/worker.yaml", "drop: [ALL]", "drop: [NET_RAW]"),
    ("kubernetes/base/disruption.yaml", "app.kubernetes.io/name: alnnode-web", "app.kubernetes.io/name: web"),
    ("kubernetes/base/autoscaling.yaml", "kind: Deployment, name: alnnode-worker", "kind: Deployment, name: worker"),
    ("kubernetes/base/network.yaml", "port: dicom", "port: dicomtls"),
    ("kubernetes/gpu/kustomization.yaml", "  - path: worker.yaml", "  - path: workers.yaml"),
    ("kubernetes/gpu/worker.yaml", 'limits: {nvidia.com/gpu: "1"}', "limits: {}"),
    ("kubernetes/example/kustomization.yaml", "../gpu", "../cpu"),
    ("kubernetes/example/secrets.env.example", "ALNNODE__DATABASE__URL", "ALNNODE_DATABASE_URL"),
]


def found(deploy: Path, name: str) -> list[str]:
    try:
        return faults(deploy, name)
    except MissingToolError as missing:
        pytest.skip(f"TOOL MISSING: {missing}; run `make deploy-tools`")


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(ROOT / "deploy", root / "deploy")
    (root / "alnnode").symlink_to(ROOT / "alnnode")
    return root / "deploy"


# The example of Kubernetes is built from all other manifests, and the tests of the alerts check the alerts.
CHECKED_WITH_OTHERS = ("kubernetes/base/", "kubernetes/gpu/", "kubernetes/example/secrets", "prometheus/alnnode.rules.yaml")


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(CHECKED_WITH_OTHERS)])
def test_a_file_passes_its_check(name: str) -> None:
    assert found(ROOT / "deploy", name) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"), FAULTS, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(copied: Path, name: str, text: str, fault: str) -> None:
    path = copied / name
    sound = path.read_text(encoding="utf-8")
    assert text in sound
    path.write_text(sound.replace(text, fault), encoding="utf-8")
    try:
        assert found(copied, name) != []
    finally:
        path.write_text(sound, encoding="utf-8")


def test_every_file_has_a_planted_fault() -> None:
    assert {name for name, *_ in FAULTS} == set(FILES)


def test_a_file_without_a_check_is_refused() -> None:
    assert faults(ROOT / "deploy", "README.md") == ["README.md has no check"]
