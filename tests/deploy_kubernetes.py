"""Check the Kubernetes manifests without a cluster: kustomize builds them, their schemas accept them, and they refer to what exists."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import yaml
from deploy_tools import TOOLS, MissingToolError, settings_faults

SCHEMAS = TOOLS / "python" / "kubernetes_validate" / "kubernetes-json-schema" / "v1.34.0-local-strict" / "_definitions.json"


def kubernetes_faults(folder: Path) -> list[str]:
    """Return the faults of the overlay ``example`` and all that it is built from."""
    unlisted = [str(path.relative_to(folder)) for path in folder.rglob("*.yaml") if not _is_listed(path)]
    if unlisted:
        return [f"{name} is in no kustomization.yaml" for name in unlisted]
    if shutil.which("kubectl") is None:
        raise MissingToolError("kubectl")
    command = ["kubectl", "kustomize", str(folder / "example")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        return [done.stderr]
    objects = list(yaml.safe_load_all(done.stdout))
    found = [fault for one in objects for fault in _schema_faults(one)]
    return found or [*_pod_faults(objects), *_reference_faults(objects), *_settings_faults(objects)]


def _is_listed(path: Path) -> bool:
    if path.name == "kustomization.yaml":
        return True
    listing = yaml.safe_load((path.parent / "kustomization.yaml").read_text(encoding="utf-8"))
    return path.name in [*listing.get("resources", ()), *(patch.get("path") for patch in listing.get("patches", ()))]


@functools.cache
def _definitions() -> dict:
    if not SCHEMAS.is_file():
        raise MissingToolError("the schemas of Kubernetes (kubernetes-validate)")
    return json.loads(SCHEMAS.read_text(encoding="utf-8"))


@functools.cache
def _validator(group: str, version: str, kind: str):
    import jsonschema_rs

    wanted = {"group": group, "version": version, "kind": kind}
    names = [name for name, one in _definitions()["$defs"].items() if wanted in one.get("x-kubernetes-group-version-kind", ())]
    if not names:
        return None
    return jsonschema_rs.validator_for({**_definitions(), "$ref": f"#/$defs/{names[0]}"})


def _schema_faults(one: dict) -> list[str]:
    group, _, version = str(one.get("apiVersion", "")).rpartition("/")
    validator = _validator(group, version, str(one.get("kind")))
    if validator is None:
        return [f"{one.get('apiVersion')} {one.get('kind')} does not exist"]
    return [f"{_name(one)}: {error.message[:300]}" for error in validator.iter_errors(one)]


def _name(one: dict) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def _pods(objects: list[dict]) -> dict[str, dict]:
    """Return the pod templates by the name of their object."""
    return {_name(one): one["spec"]["template"] for one in objects if one["kind"] in {"Deployment", "StatefulSet", "Job"}}


def _pod_faults(objects: list[dict]) -> list[str]:
    """Return what the restricted Pod Security Standard, or a pod of this node, lacks."""
    faults = []
    for name, template in _pods(objects).items():
        pod = template["spec"]
        security = pod.get("securityContext", {})
        needed = {
            "runs as root": security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0,
            "has no seccomp profile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "gets a token of the cluster": pod.get("automountServiceAccountToken") is False,
        }
        for container in pod["containers"]:
            own = container.get("securityContext", {})
            mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
            needed |= {
                "may gain privileges": own.get("allowPrivilegeEscalation") is False,
                "has capabilities": own.get("capabilities") == {"drop": ["ALL"]},
                "has a writable root file system": own.get("readOnlyRootFilesystem") is True,
                "has no place for temporary files": "/tmp" in mounts.values(),
                "has no memory limit": "memory" in container.get("resources", {}).get("limits", {}),
                "mounts a volume that does not exist": set(mounts) <= {volume["name"] for volume in pod.get("volumes", ())},
                "has an image without a version": ":" in container["image"].rpartition("/")[2],
                "has no liveness probe": name.startswith("Job") or "livenessProbe" in container,
                "may use no more than one GPU": _gpus(container) == (1 if name == "Deployment alnnode-worker" else 0),
                "probes a port that it does not have": _probed(container) <= _ports(container),
            }
        faults += [f"{name} {fault}" for fault, holds in needed.items() if not holds]
    return faults


def _gpus(container: dict) -> int:
    return int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))


def _ports(container: dict) -> set[str]:
    return {port["name"] for port in container.get("ports", ())}


def _probed(container: dict) -> set[str]:
    probes = [container[key] for key in ("startupProbe", "livenessProbe", "readinessProbe") if key in container]
    return {probe[kind]["port"] for probe in probes for kind in ("httpGet", "tcpSocket") if kind in probe}


def _reference_faults(objects: list[dict]) -> list[str]:
    """Return the names, labels and ports that nothing has."""
    pods, names = _pods(objects), {(one["kind"], one["metadata"]["name"]) for one in objects}
    faults, chosen = [], Counter()
    for one in objects:
        for labels in _selectors(one):
            matching = [name for name, pod in pods.items() if labels.items() <= pod["metadata"]["labels"].items()]
            if not matching:
                faults.append(f"{_name(one)} selects no pod: {labels}")
            chosen.update((one["kind"], name) for name in matching)
        ports = {port for name in pods for container in pods[name]["spec"]["containers"] for port in _ports(container)}
        faults += [f"{_name(one)} uses an unknown port: {port}" for port in _used_ports(one) if port not in ports]
        target = one.get("spec", {}).get("scaleTargetRef")
        if target:
            scaled = [two for two in objects if _name(two) == f"{target['kind']} {target['name']}"]
            if not scaled or "replicas" in scaled[0]["spec"]:
                faults.append(f"{_name(one)} scales what does not exist, or what sets its own number of pods")
    deployments = {name for name in pods if name.startswith("Deployment")}
    faults += [f"{name} has no PodDisruptionBudget" for name in deployments if not chosen["PodDisruptionBudget", name]]
    faults += [f"{name} has no NetworkPolicy of its own" for name in deployments if chosen["NetworkPolicy", name] < 3]
    for name, pod in pods.items():
        used = {
            ("Secret", source["secretRef"]["name"])
            for container in pod["spec"]["containers"]
            for source in container["envFrom"]
        }
        used |= {("ConfigMap", volume["configMap"]["name"]) for volume in pod["spec"]["volumes"] if "configMap" in volume}
        used |= {
            ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        faults += [f"{name} needs {kind} {needed}" for kind, needed in used - names]
    return faults


def _selectors(one: dict) -> list[dict]:
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        return [spec["selector"]]
    if one["kind"] == "NetworkPolicy":
        return [spec["podSelector"].get("matchLabels", {})]
    return [spec["selector"]["matchLabels"]] if one["kind"] in {"Deployment", "PodDisruptionBudget"} else []


def _used_ports(one: dict) -> list[str]:
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        return [port["targetPort"] for port in spec["ports"]]
    rules = spec.get("ingress", ()) if one["kind"] == "NetworkPolicy" else ()
    return [port["port"] for rule in rules for port in rule.get("ports", ())]


def _settings_faults(objects: list[dict]) -> list[str]:
    """Return what the node finds wrong with its settings."""
    (text,) = [one["data"]["config.toml"] for one in objects if one["kind"] == "ConfigMap"]
    (secrets,) = [one["data"] for one in objects if one["kind"] == "Secret"]
    return settings_faults(text, {name: base64.b64decode(value).decode() for name, value in secrets.items()})
