"""PromQL that several panels are made of. `$instance` stands for the servers that are selected."""

from __future__ import annotations

HERE = '{instance=~"$instance"}'
CLASSIFYING = 'protocol!="other"'
LOADS = "mass_task_load_duration_seconds"


def rate(metric: str, by: str = "", where: str = "") -> str:
    """The rate of a counter over the selected servers, summed; `where` adds label matchers."""
    grouping = f" by ({by})" if by else ""
    matchers = f'instance=~"$instance"{", " + where if where else ""}'
    return f"sum{grouping} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram over the selected servers."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', labels, where)})"


def mean(histogram: str, by: str = "") -> str:
    """The mean of a histogram over the selected servers."""
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"


def buckets(histogram: str, where: str = "") -> str:
    """Returns what fell into each bucket between two points of the picture."""
    return rate(histogram + "_bucket", "le", where).replace("rate(", "increase(", 1)


def of_sets(at_most: str, more_than: str | None = None) -> str:
    """The share of the routed images whose expert set has a size above one bucket and up to another."""
    bucket = "mass_expert_set_size_bucket"
    within = rate(bucket, where=f'le="{at_most}"')
    if more_than is not None:
        below = rate(bucket, where=f'le="{more_than}"')
        within = f"({within} - {below})"
    return f"{within} / {rate('mass_expert_set_size_count')}"
