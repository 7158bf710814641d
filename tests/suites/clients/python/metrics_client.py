"""Reads the figures with PyPI's `prometheus_client`: names, types and labels are as it wants them."""

import http.client
import sys

from prometheus_client.parser import text_string_to_metric_families


def main(address):
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.status == 200, response.status
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    for name, kind in {
        "crieur_connections": "gauge",
        "crieur_connections_opened": "counter",
        "crieur_sessions_closed": "counter",
        "crieur_upgrades_rejected": "counter",
        "crieur_notifications": "counter",
        "crieur_deliveries": "counter",
        "crieur_deliveries_dropped": "counter",
        "crieur_notification_recipients": "histogram",
        "crieur_match_seconds": "histogram",
        "crieur_fan_out_seconds": "histogram",
        "crieur_loop_turn_seconds": "histogram",
        "crieur_loop_lag_seconds": "histogram",
        "crieur_ping_round_trip_seconds": "histogram",
        "crieur_tokens_refused": "counter",
        "crieur_peers_dead": "counter",
        "crieur_protocol_errors": "counter",
        "crieur_slow_consumers": "counter",
        "crieur_send_queue_bytes": "gauge",
        "crieur_subscriptions": "gauge",
        "crieur_log_lines_dropped": "counter",
        "crieur_build_info": "gauge",
        "process_start_time_seconds": "gauge",
        "process_resident_memory_bytes": "gauge",
        "process_open_fds": "gauge",
    }.items():
        assert families[name].type == kind, (name, families[name].type)
    roles = {sample.labels["role"] for sample in families["crieur_connections"].samples}
    assert roles == {"client", "publisher", "http", "handshake", "closing"}, roles
    results = {sample.labels["result"] for sample in families["crieur_notifications"].samples}
    assert results == {"delivered", "repeated", "invalid", "forbidden", "stranger", "rate_limited"}, results
    labels = set()
    for family in families.values():
        assert family.documentation and family.type != "unknown", family
        for sample in family.samples:
            labels |= set(sample.labels)
        if family.type == "histogram":
            check_histogram(family)
    assert labels <= {"role", "code", "reason", "result", "le", "version"}, labels


def check_histogram(family):
    values = {sample.name: sample.value for sample in family.samples}
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets) and [b[1] for b in buckets] == sorted(b[1] for b in buckets), buckets
    assert buckets[-1] == (float("inf"), values[f"{family.name}_count"]), buckets


main(sys.argv[1])
