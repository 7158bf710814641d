"""Shows that the Prometheus rules and the Grafana dashboard of docs/deploy work.

`promtool` checks the files and runs the unit tests of the rules. Then a Prometheus scrapes two servers with the configuration
of docs/deploy/prometheus, one of which has a Redis, while clients subscribe, resume and publish. All that the dashboard and
the rules name must exist, every query of the dashboard must have a number, and a publisher without its token must ring the
alert that is about that, and no other.

A part of `tests/suites/packages/run`. Needs Debian's prometheus and redis-server; logs are in target/monitoring.
"""

import contextlib
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import harness

sys.path.append(str(Path(__file__).resolve().parent.parent / "redis"))
import database  # noqa: E402

DEPLOY = harness.ROOT / "docs" / "deploy"
RULES = DEPLOY / "prometheus" / "crieur.rules.yml"
RULES_TEST = DEPLOY / "prometheus" / "crieur.rules.test.yml"
CONFIGURATION = DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARD = DEPLOY / "grafana" / "crieur.json"
FOLDER = harness.target_dir() / "monitoring"
PROGRAM = harness.target_dir() / "release" / "crieur"

NOTIFICATION = '{"channel":"monitored"}'
# A name of a metric with the labels that a query wants.
SELECTOR = re.compile(r"\b((?:crieur|process)_\w+|up)\b(\{[^}]*\})?")
# What Grafana fills in; the interval has room for a few scrapes.
VARIABLES = {"$instance": ".*", "$__rate_interval": "3s"}
SCRAPE_INTERVAL = "200ms"
ANSWER_SECONDS_MAX = 10
DATA_SECONDS_MAX = 30


def check(_full):
    began = time.monotonic()
    for program, package in (("promtool", "prometheus"), ("redis-server", "redis-server")):
        if shutil.which(program) is None:
            harness.install_debian_package(package, "--no-install-recommends")
    check_files()
    dashboard = json.loads(DASHBOARD.read_text())
    check_layout(dashboard["panels"])
    queries = dashboard_queries(dashboard)
    harness.cargo_build("--bin", "crieur")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with contextlib.ExitStack() as running:
        servers = [Server("alone", running), Server("with-redis", running)]
        prometheus = Prometheus([server.address for server in servers], running)
        wait_for_numbers(prometheus, queries, servers)
        check_names(prometheus, queries)
        check_alerts(prometheus, servers[0])
    seconds = time.monotonic() - began
    alerts = len(alert_names())
    return f"packages: monitoring: {alerts} alerts, {len(queries)} queries of the dashboard: passed in {seconds:.0f} s"


def check_files():
    """That promtool finds nothing wrong, and that each alert has a test in which it fires, and one in which it doesn't."""
    promtool("check", "config", CONFIGURATION)
    promtool("test", "rules", RULES_TEST)
    tests = RULES_TEST.read_text()
    for alert in alert_names():
        fires = re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels:", tests)
        is_quiet = re.search(rf"alertname: {alert}, exp_alerts: \[\]", tests)
        if not (fires and is_quiet):
            raise harness.Failure(f"{RULES_TEST.name} lacks a test of {alert}: one in which it fires, one in which not")


def promtool(*words):
    command = ["promtool", *map(str, words)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode != 0:
        raise harness.Failure(f"{' '.join(command)}:\n{ended.stdout}{ended.stderr}")


def alert_names():
    return re.findall(r"(?m)^ +- alert: (\w+)$", RULES.read_text())


def rule_expressions():
    return re.findall(r"(?m)^ +expr: (.+)$", RULES.read_text())


def check_layout(panels):
    """That each panel has a number and a place of its own, in the width that there is."""
    taken = {}
    for panel in panels:
        place, title = panel["gridPos"], panel["title"]
        if place["x"] + place["w"] > 24:
            raise harness.Failure(f"the dashboard: {title} is beyond the right edge")
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        for cell in [*cells, panel["id"]]:
            if cell in taken:
                raise harness.Failure(f"the dashboard: {title} is where {taken[cell]} is, or has its number")
            taken[cell] = title


def dashboard_queries(dashboard):
    """The queries by what they are for, as Grafana would send them."""
    queries = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            if "$" in text:
                raise harness.Failure(f"the dashboard: {panel['title']}: a variable that there is not: {text}")
            queries[f"panel {panel['id']}, {panel['title']}, {target['refId']}"] = text
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            series = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            queries[f"the variable {variable['name']}"] = f"count by ({series[2]}) ({series[1]})"
    return queries


def wait_for_numbers(prometheus, queries, servers):
    """Until each query has a number, while the servers have something to do."""
    until = time.monotonic() + DATA_SECONDS_MAX
    missing = queries
    while missing:
        if time.monotonic() > until:
            lines = "\n".join(f"{what}: {query}" for what, query in missing.items())
            raise harness.Failure(f"no number in {DATA_SECONDS_MAX} s for\n{lines}")
        for server in servers:
            server.be_busy()
        missing = {what: query for what, query in missing.items() if not has_number(prometheus.query(query))}


def has_number(result):
    return any(math.isfinite(float(sample["value"][1])) for sample in result)


def check_names(prometheus, queries):
    """That all metrics, labels and their values are there that the queries and the rules name."""
    expressions = [*queries.values(), *rule_expressions()]
    selectors = {(name, labels) for text in expressions for name, labels in SELECTOR.findall(text)}
    for name, labels in sorted(selectors):
        # What a rule leaves out must be there too: `result!="completed"`.
        wanted = name + labels.replace("!=", "=")
        if not prometheus.ask("series", {"match[]": wanted}):
            raise harness.Failure(f"no server has {wanted}")


def check_alerts(prometheus, server):
    ringing = prometheus.ringing()
    if ringing:
        raise harness.Failure(f"all is well, and these ring: {ringing}")
    server.refuse()
    until = time.monotonic() + DATA_SECONDS_MAX
    while not (ringing := prometheus.ringing()):
        if time.monotonic() > until:
            raise harness.Failure("a publisher was refused, and nothing rings")
        time.sleep(0.1)
    if ringing != {"CrieurPublisherForbidden"}:
        raise harness.Failure(f"a publisher was refused, and these ring: {ringing}")


class Server:
    """A crieur, with a subscriber that stays."""

    def __init__(self, name, running):
        token_file = FOLDER / f"{name}.token"
        subprocess.run([PROGRAM, "keygen", "publish", token_file], check=True, stdout=subprocess.DEVNULL)
        self.options = ["--token-file", token_file]
        flags = ["--listen", "127.0.0.1:0", "--ping-interval", "0.5", "--publish-token-file", token_file]
        if name == "with-redis":
            redis = database.Database("monitoring")
            running.callback(redis.clean_up)
            flags += ["--redis", redis.url]
        self.address = running.enter_context(harness.server([PROGRAM, *flags], FOLDER / f"{name}.log"))
        self.url = f"ws://{self.address}/"
        self.id = json.loads(self.publish(self.options))["id"]
        running.enter_context(self.subscriber([]))

    def publish(self, options):
        command = [PROGRAM, "publish", "--url", self.url, *options, NOTIFICATION]
        return subprocess.run(command, check=True, capture_output=True, timeout=ANSWER_SECONDS_MAX).stdout

    @contextlib.contextmanager
    def subscriber(self, options):
        command = [PROGRAM, "subscribe", "--url", self.url, *options, "monitored"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()

    def be_busy(self):
        """A client comes back for what it has missed, and hears what is published."""
        with self.subscriber(["--since", self.id]) as subscriber:
            self.publish(self.options)
            if not subscriber.stdout.readline():
                raise harness.Failure(f"a subscriber of {self.url} got nothing")

    def refuse(self):
        """Publishes without the token."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.publish([])
            raise harness.Failure(f"{self.url} lets everybody publish")


class Prometheus:
    """One with the configuration of the document, but for its interval and its targets."""

    def __init__(self, addresses, running):
        text = CONFIGURATION.read_text()
        targets = ", ".join(f"'{address}'" for address in addresses)
        for old, new in (("15s", SCRAPE_INTERVAL), ("'127.0.0.1:8000'", targets)):
            if old not in text:
                raise harness.Failure(f"{CONFIGURATION.name} has no {old}")
            text = text.replace(old, new)
        (FOLDER / "prometheus.yml").write_text(text)
        shutil.copy(RULES, FOLDER)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        log = running.enter_context((FOLDER / "prometheus.log").open("w"))
        process = subprocess.Popen(
            ["prometheus", f"--config.file={FOLDER}/prometheus.yml", f"--storage.tsdb.path={FOLDER}/data",
             f"--web.listen-address={self.address}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        running.callback(process.wait)
        running.callback(process.terminate)
        until = time.monotonic() + ANSWER_SECONDS_MAX
        while not self.is_ready():
            if time.monotonic() > until or process.poll() is not None:
                raise harness.Failure(f"Prometheus does not start, see {FOLDER}/prometheus.log")
            time.sleep(0.05)

    def is_ready(self):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1).status == 200
        return False

    def ask(self, what, parameters):
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS_MAX) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise harness.Failure(f"{url}: {error.read().decode()}") from error

    def query(self, text):
        return self.ask("query", {"query": text})["result"]

    def ringing(self):
        """The alerts that fire or are about to. Every rule must have been evaluated."""
        rules = [rule for group in self.ask("rules", {})["groups"] for rule in group["rules"]]
        if {rule["name"] for rule in rules} != set(alert_names()):
            raise harness.Failure(f"Prometheus has other rules: {rules}")
        for rule in rules:
            if rule["health"] != "ok":
                raise harness.Failure(f"a rule is {rule['health']}: {rule}")
        return {rule["name"] for rule in rules if rule["state"] != "inactive"}
