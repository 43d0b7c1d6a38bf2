"""Images built and containers run, where there is neither a registry nor a daemon: Buildah and Podman over a storage of the
suite's own, on a base made of Debian's packages by the script that a maintainer uses.

Owns `.cache/image` (the storage, Debian's packages unpacked, pip's downloads while building): `make clean` takes it away.
No container outlives the test that started it.

A container shares our network, so that it reaches the broker on loopback. In everything else it is as confined as the
product promises it may be: user 10001, a root file system that cannot be written, no capability, no way to get one.
"""

import json
import os
import shutil
import subprocess
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT, unavailable
from tests.observing import until

CACHE = ROOT / ".cache" / "image"
BASE = "localhost/evalsink-base:bookworm"
PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "podman": "podman", "runc": "runc"}
BUILD_TIMEOUT_S = 400
RUN_TIMEOUT_S = 120

CONFINED = (
    "--read-only",
    "--read-only-tmpfs=false",  # Podman's own kindness: /run, /var/tmp and more
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)
# What the machine that tests may lack: a daemon for the health check's clock, cgroup namespaces, the right to raise limits.
# And an end, should the suite be killed and not come to it.
_MODEST = (
    "--timeout=400",
    "--network=host",
    "--cgroupns=host",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
)


class Engine:
    """Buildah and Podman over one storage."""

    def __init__(self, folder=CACHE):
        if missing := [package for tool, package in PACKAGES.items() if not shutil.which(tool)]:
            unavailable(f"there is no {', '.join(missing)} (on Debian: apt-get install {' '.join(missing)})")
        if os.geteuid() != 0:
            unavailable("building and running images as these tests do it takes root")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        self._config = folder / "storage.conf"
        self.environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self._config),
            "TMPDIR": str(folder / "tmp"),
            "BUILDAH_ISOLATION": "chroot",
            # Podman asks systemd to run health checks, which is not everywhere; a test runs them itself.
            "DISABLE_HC_SYSTEMD": "true",
            "ENGINE": "buildah",
        }
        # On top of another overlay there is none; copying whole trees always works.
        for driver in ("overlay", "vfs"):
            self._config.write_text(
                f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n',
                "utf-8",
            )
            if self.call("buildah", "info").returncode == 0:
                # What did not change since the last time is not built again.
                self.environment["BUILDAH_LAYERS"] = str(driver == "overlay").lower()
                break

    def call(self, *command, timeout_s=RUN_TIMEOUT_S):
        """A process run to its end, whatever it ends with."""
        return subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )

    def done(self, *command, timeout_s=RUN_TIMEOUT_S):
        """What a process said that has to end well."""
        ended = self.call(*command, timeout_s=timeout_s)
        assert ended.returncode == 0, (
            f"{command}: {ended.returncode}\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"
        )
        return ended.stdout

    def podman(self, *arguments):
        """A call of Podman, not yet made. runc: crun refuses machines with both kinds of cgroups."""
        return ["podman", "--runtime=runc", "--cgroup-manager=cgroupfs", *arguments]

    def make_base(self):
        """The base, unless it is there."""
        if self.call("buildah", "inspect", "--type=image", BASE).returncode:
            self.done("deploy/image/base", timeout_s=BUILD_TIMEOUT_S)

    def build(self, tag, root=ROOT):
        """The process that built the checkout at `root` by its own script, whatever it ended with."""
        script = root / "deploy" / "image" / "build"
        ended = self.call(script, "--base", BASE, "--tag", tag, timeout_s=BUILD_TIMEOUT_S)
        self.call("buildah", "rm", "--all")  # what a build that failed leaves, mounted
        # What has no name is kept for a while: the layers of the next build may be the same.
        self.call(*self.podman("image", "prune", "--force", "--filter=until=24h"))
        return ended

    def inspect(self, image):
        """The image's configuration."""
        return json.loads(self.done("buildah", "inspect", "--type=image", image))["Docker"]["config"]

    def run(self, image, *command, options=()):
        """A container run to its end."""
        return self.call(*self.podman("run", "--rm", *CONFINED, *_MODEST, *options, image, *command))

    @contextmanager
    def running(self, image, *command, options=()):
        """A container that runs meanwhile."""
        name = f"evalsink-test-{uuid.uuid4().hex[:12]}"
        try:
            self.done(
                *self.podman(
                    "run", "--detach", f"--name={name}", *CONFINED, *_MODEST, *options, image, *command
                )
            )
            yield Container(self, name)
        finally:
            self.call(*self.podman("rm", "--force", "--time=0", "--volumes", name))


class Container:
    """One that runs."""

    def __init__(self, engine, name):
        self._engine, self.name = engine, name

    def _state(self):
        return json.loads(self._engine.done(*self._engine.podman("inspect", self.name)))[0]["State"]

    @property
    def pid(self):
        """Of its first process, as we see it."""
        return self._state()["Pid"]

    def said(self):
        """Its log so far."""
        ended = self._engine.call(*self._engine.podman("logs", self.name))
        return ended.stdout + ended.stderr

    def lines(self, action):
        """Its log lines of that action."""
        found = [
            json.loads(line)
            for line in self.said().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]
        return [line for line in found if line["action"] == action]

    def until(self, condition, what):
        """Wait for `condition`; fail at once with the log if the container ends first."""

        def step():
            if found := condition():
                return found
            assert self._state()["Status"] == "running", f"{what}: it ended:\n{self.said()}"
            return None

        return until(step, what, timeout_s=RUN_TIMEOUT_S, every_s=0.2)

    def run(self, *command):
        """A process beside its own, run to its end."""
        return self._engine.call(*self._engine.podman("exec", self.name, *command))

    def is_healthy(self):
        """Whether the image's own health check says so."""
        return self._engine.call(*self._engine.podman("healthcheck", "run", self.name)).returncode == 0

    def terminate(self):
        """SIGTERM, and its exit code. Podman would kill it after two minutes: 137."""
        self._engine.done(*self._engine.podman("stop", "--time=120", self.name), timeout_s=RUN_TIMEOUT_S + 30)
        return self._state()["ExitCode"]

    def children(self):
        """The processes that its first one has to reap: of each, by our number, the state ("Z": it did not)."""
        tasks = Path(f"/proc/{self.pid}/task")
        numbers = [number for task in tasks.iterdir() for number in (task / "children").read_text().split()]
        states = {}
        for number in numbers:
            with suppress(OSError):  # it has ended meanwhile, and is reaped
                states[int(number)] = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        return states
