"""What was seen over time: as a table, a plot in text, an SVG; and whether it grows."""

import dataclasses
import statistics

# Memory may rise by so much from the first to the last third of what follows the warm-up, and so much
# by the slope of all of it.
GROWTH_KIB_MAX = 1024
# Descriptors that belong to no connection; none should come.
DESCRIPTOR_GROWTH_MAX = 2


@dataclasses.dataclass
class Sample:
    """The server at a moment, and what was measured since the one before."""

    second: float
    memory_kib: int
    descriptors: int
    # Those that no connection accounts for.
    spare_descriptors: int
    connections: int
    queue_bytes: int
    cpu_percent: float
    deliveries: int
    latencies_ms: list


HEAD = (
    f"{'s':>5}{'conns':>7}{'memory KiB':>12}{'descriptors':>13}{'spare':>7}{'queued B':>11}{'CPU %':>7}"
    f"{'deliveries/s':>14}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}"
)


def line(samples, seconds):
    """Some samples together: the highest of what varies, the last of what stands."""
    last = samples[-1]
    latencies = sorted(latency for sample in samples for latency in sample.latencies_ms)
    cpu = statistics.mean(sample.cpu_percent for sample in samples)
    deliveries = sum(sample.deliveries for sample in samples) / seconds
    return (
        f"{last.second:>5.0f}{last.connections:>7}{max(sample.memory_kib for sample in samples):>12}"
        f"{last.descriptors:>13}{last.spare_descriptors:>7}{max(sample.queue_bytes for sample in samples):>11}"
        f"{cpu:>7.0f}{deliveries:>14.0f}{quantile(latencies, 0.5):>9.2f}{quantile(latencies, 0.99):>9.2f}"
        f"{quantile(latencies, 1):>9.2f}"
    )


def quantile(values, share):
    """Of values in order."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


def growth(samples, warm_up_seconds):
    """What has grown that mustn't, and how much memory has."""
    steady = [sample for sample in samples if sample.second >= warm_up_seconds]
    if len(steady) < 12:
        return [f"only {len(steady)} samples after the warm-up"], 0, 0
    third = len(steady) // 3
    early, late = steady[:third], steady[-third:]
    wrong = []
    rise = statistics.median(sample.memory_kib for sample in late) - statistics.median(
        sample.memory_kib for sample in early
    )
    slope, _ = statistics.linear_regression(
        [sample.second for sample in steady], [sample.memory_kib for sample in steady]
    )
    by_slope = slope * (steady[-1].second - steady[0].second)
    for what, kib in (("from the first to the last third", rise), ("by its slope", by_slope)):
        if kib > GROWTH_KIB_MAX:
            wrong.append(f"memory grows: {kib:.0f} KiB {what}, allowed are {GROWTH_KIB_MAX}")
    spare = statistics.median(sample.spare_descriptors for sample in late) - min(
        sample.spare_descriptors for sample in samples
    )
    if spare > DESCRIPTOR_GROWTH_MAX:
        wrong.append(f"descriptors grow: {spare:.0f} more than connections account for")
    return wrong, rise, by_slope


def plot(title, points, *, width=72, height=8):
    """Points of (x, y) as lines of text; y from 0."""
    width = min(width, len(points))
    columns = [[] for _ in range(width)]
    x_max = max(x for x, _ in points) or 1
    for x, y in points:
        columns[min(width - 1, int(x / x_max * width))].append(y)
    # A sample that came late leaves a column to the one before.
    tops = [max(column) if column else None for column in columns]
    tops = [top if top is not None else before for top, before in zip(tops, [None, *tops])]
    y_max = max(y for _, y in points) or 1
    lines = [f"{title}, up to {y_max:.0f}, over {x_max:.0f} s"]
    for row in range(height, 0, -1):
        cells = ""
        for top in tops:
            # Eighths of this row that are filled.
            filled = 0 if top is None else round(top / y_max * height * 8) - (row - 1) * 8
            cells += " ▁▂▃▄▅▆▇█"[max(0, min(8, filled))]
        lines.append(f"{y_max * row / height:>9.0f} │{cells.rstrip()}")
    lines.append(f"{0:>9} └{'─' * width}")
    return "\n".join(lines)


def svg(path, samples):
    """Memory, descriptors, queues and latency, one above the other."""
    series = [
        ("memory, KiB", [sample.memory_kib for sample in samples]),
        ("descriptors", [sample.descriptors for sample in samples]),
        ("queued, bytes", [sample.queue_bytes for sample in samples]),
        ("latency p99, ms", [quantile(sorted(sample.latencies_ms), 0.99) for sample in samples]),
    ]
    width, height, gap = 800, 120, 40
    x_max = samples[-1].second or 1
    parts = []
    for number, (name, values) in enumerate(series):
        top, y_max = number * (height + gap) + 20, max(values) or 1
        points = " ".join(
            f"{sample.second / x_max * width:.1f},{top + height * (1 - value / y_max):.1f}"
            for sample, value in zip(samples, values)
        )
        parts.append(f'<text x="0" y="{top - 5}">{name}, up to {y_max:.0f}</text>')
        parts.append(f'<rect x="0" y="{top}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>')
        parts.append(f'<polyline points="{points}" fill="none" stroke="#06c"/>')
    total = len(series) * (height + gap)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>\n'
    )
