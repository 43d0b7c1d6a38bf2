"""Asking a worker's pages, and a Prometheus that scrapes them."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tests.conftest import unavailable
from tests.kafka_harness.broker import free_ports
from tests.monitoring.conftest import Scrape
from tests.observing import until

TIMEOUT_S = 20


def get(url):
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class Pages:
    """The pages of a worker."""

    def __init__(self, port=None):
        self.port = port or free_ports(1)[0]
        self.address = f"127.0.0.1:{self.port}"

    def status(self, path):
        return get(f"http://{self.address}{path}")[0]

    def json(self, path):
        return json.loads(get(f"http://{self.address}{path}")[1])

    def scrape(self):
        return Scrape(get(f"http://{self.address}/metrics")[1].decode())

    def is_ready(self):
        try:
            return self.status("/readyz") == 200
        except OSError:
            return False


def tool(name):
    """A program of the Debian package prometheus; skips without (fails in CI)."""
    if (path := shutil.which(name)) is None:
        unavailable(f"there is no `{name}` on the PATH (on Debian: apt-get install prometheus)")
    return path


def promtool(*arguments, stdin=None, cwd=None):
    """Exit code and all that it said."""
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
    )
    return done.returncode, done.stdout


class Prometheus:
    """A real one that scrapes every second."""

    def __init__(self, folder: Path, targets, *, rules=()):
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        folder.mkdir(exist_ok=True)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "evalsink", "static_configs": [{"targets": list(targets)}]}],
        }
        path = folder / "prometheus.yml"
        path.write_text(json.dumps(config), "utf-8")  # JSON is YAML
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={path}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self):
        def answers():
            assert self._process.poll() is None, Path(self._log.name).read_text()
            try:
                return get(f"{self.url}/-/ready")[0] == 200
            except OSError:
                return False

        until(answers, "Prometheus")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, path, **parameters):
        return json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")[1])

    def query(self, expression):
        """Labels, but for those of the target, to value."""
        answer = self.ask("query", query=expression)
        assert "success" == answer["status"], (expression, answer)
        return {
            frozenset(
                (name, value) for name, value in one["metric"].items() if name not in {"job", "instance"}
            ): float(one["value"][1])
            for one in answer["data"]["result"]
        }

    def number(self, expression):
        """The only value, None without one."""
        found = list(self.query(expression).values())
        assert len(found) <= 1, (expression, found)
        return found[0] if found else None
