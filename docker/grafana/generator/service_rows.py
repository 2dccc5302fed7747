"""The rows about requests: what every HTTP service shows."""

from __future__ import annotations

from expressions import CLASSIFYING, HERE, buckets, quantile, rate
from panels import COUNT, IMAGES, REQUESTS, SECONDS, SHARE, TIMES, Panel, Row, falling, rising, stat

OVERVIEW = Row(
    "Overview",
    [
        stat(
            "Ready servers",
            "Servers that take requests now.",
            COUNT,
            [(f"sum(mass_ready{HERE})", "ready")],
            thresholds=falling(1),
        ),
        stat(
            "Requests",
            "Requests answered, over 5 minutes; probes and scrapes are not counted.",
            REQUESTS,
            [(f"sum(instance:mass_requests:rate5m{HERE})", "requests")],
        ),
        stat(
            "Failed requests, worst server",
            "Share of requests that got a 5xx, over 5 minutes.",
            SHARE,
            [(f"max(instance:mass_requests_errors:ratio_rate5m{HERE})", "failed")],
            thresholds=rising(0.001, 0.05),
        ),
        stat(
            "p99 latency, worst server",
            "99 % of the classifying requests take at most this, over 5 minutes.",
            SECONDS,
            [(f"max(instance:mass_request_duration_seconds:p99_5m{HERE})", "p99")],
            thresholds=rising(1, 2.5),
        ),
        stat(
            "Queue, fullest server",
            "Images that wait, as a share of the places. At 100 % requests get a 429.",
            SHARE,
            [(f"max(instance:mass_queue_fill:ratio{HERE})", "full")],
            thresholds=rising(0.5, 0.8),
        ),
        stat(
            "Firing alerts",
            "Of all servers. docker/monitoring.md says what each means and what to do.",
            COUNT,
            # Prometheus keeps no series while nothing fires, and that is zero.
            [('count(ALERTS{alertname=~"MassServe.+", alertstate="firing"}) or vector(0)', "firing")],
            thresholds=rising(1, 2),
        ),
        stat(
            "Images",
            "Images answered; a request may carry several.",
            IMAGES,
            [(rate("mass_images_total"), "images")],
            width=6,
        ),
        stat(
            "Tasks served",
            "Of the server that has loaded most.",
            COUNT,
            [(f"max(mass_tasks{HERE})", "tasks")],
            width=6,
        ),
        stat(
            "Shortest uptime",
            "Since the server that started last did so.",
            SECONDS,
            [(f"min(time() - process_start_time_seconds{HERE})", "uptime")],
            width=6,
        ),
        stat(
            "Version",
            "Of the servers; more than one while a new version is rolled out.",
            COUNT,
            [(f"count by (version) (mass_build_info{HERE})", "{{version}}")],
            width=6,
        ),
    ],
)

TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            "Requests by protocol",
            "`other` is the page, the description and unknown paths.",
            REQUESTS,
            [(rate("mass_requests_total", "protocol"), "{{protocol}}")],
            stacked=True,
        ),
        Panel(
            "Requests by status",
            "499 is a caller that hung up before its answer.",
            REQUESTS,
            [(rate("mass_requests_total", "code"), "{{code}}")],
            stacked=True,
        ),
        Panel(
            "Requests by what they ask",
            "One answer to each image, each task's, or one task for all images (same_task).",
            REQUESTS,
            [(rate("mass_questions_total", "answer"), "{{answer}}")],
            stacked=True,
        ),
        Panel(
            "Images by server",
            "Images answered. Servers behind one balancer should have about the same.",
            IMAGES,
            [(rate("mass_images_total", "instance"), "{{instance}}")],
        ),
        Panel(
            "Requests in progress",
            "Read, waiting, computed or being answered.",
            COUNT,
            [(f"mass_requests_in_progress{HERE}", "{{instance}}")],
        ),
    ],
)

LATENCY = Row(
    "Latency by stage",
    [
        Panel(
            "Request duration",
            "Classifying requests, from the headers to the end of the answer.",
            SECONDS,
            [
                (quantile(q, "mass_request_duration_seconds", where=CLASSIFYING), f"p{100 * q:.0f}")
                for q in (0.5, 0.9, 0.99)
            ],
        ),
        Panel(
            "Request duration by server",
            "Over 5 minutes; the alert MassServeLatencyHigh reads the p99.",
            SECONDS,
            [
                (f"instance:mass_request_duration_seconds:p99_5m{HERE}", "{{instance}} p99"),
                (f"instance:mass_request_duration_seconds:p50_5m{HERE}", "{{instance}} p50"),
            ],
            thresholds=rising(1, 2.5),
        ),
        Panel(
            "p99 by protocol",
            "How long all but the slowest 1 % take. There is no line while a protocol is not used.",
            SECONDS,
            [(quantile(0.99, "mass_request_duration_seconds", "protocol"), "{{protocol}}")],
        ),
        Panel(
            "p99 by task",
            "Of requests that the task has answered, from the end of the body to the result. Tasks beyond the"
            " first 100 are one line.",
            SECONDS,
            [(quantile(0.99, "mass_task_request_duration_seconds", "task"), "{{task}}")],
        ),
        Panel(
            "Request durations",
            "How many classifying requests took how long.",
            SECONDS,
            [(buckets("mass_request_duration_seconds", CLASSIFYING), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Mean time by stage",
            "Decode and queue per request, the others per batch; over 5 minutes.",
            SECONDS,
            [(f"avg by (stage) (instance_stage:mass_stage_duration_seconds:mean5m{HERE})", "{{stage}}")],
            stacked=True,
        ),
        Panel(
            "p99 by stage, worst server",
            "Decode and queue per request, the others per batch; over 5 minutes.",
            SECONDS,
            [(f"max by (stage) (instance_stage:mass_stage_duration_seconds:p99_5m{HERE})", "{{stage}}")],
        ),
    ],
)

ERRORS = Row(
    "Errors",
    [
        Panel(
            "Server errors",
            "A 500 is a defect; 503 and 504 come with overload and restarts.",
            REQUESTS,
            [(rate("mass_requests_total", "code", 'code=~"5.."'), "{{code}}")],
        ),
        Panel(
            "Callers' errors",
            "Bad requests, unknown tasks, wrong keys, too much at once.",
            REQUESTS,
            [(rate("mass_requests_total", "code", 'code=~"4.."'), "{{code}}")],
        ),
        Panel(
            "Refused or given up",
            "Requests by reason.",
            REQUESTS,
            [(rate("mass_rejected_total", "reason"), "{{reason}}")],
            width=8,
        ),
        Panel(
            "Refused or late, worst server",
            "Share of the requests, over 5 minutes: what two alerts read.",
            SHARE,
            [
                (
                    "max by (reason) (instance_reason:mass_rejected:ratio_rate5m"
                    '{instance=~"$instance", reason=~"queue_full|deadline"})',
                    "{{reason}}",
                )
            ],
            width=8,
            thresholds=rising(0.005, 0.01),
        ),
        Panel(
            "Use of the error budget",
            "Failed requests as a multiple of the 0.1 % that the objective allows: all servers.",
            TIMES,
            [
                ("job:mass_requests_errors:ratio_rate1h / 0.001", "{{job}}, an hour"),
                ("job:mass_requests_errors:ratio_rate6h / 0.001", "{{job}}, 6 hours"),
            ],
            width=8,
            thresholds=rising(6, 14.4),
        ),
    ],
)
