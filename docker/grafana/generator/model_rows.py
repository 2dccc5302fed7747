"""The rows about what is computed: routing, batches, expert sets, memory, revisions."""

from __future__ import annotations

from expressions import HERE, LOADS, buckets, mean, of_sets, rate
from panels import (
    ANSWERS,
    BATCHES,
    BYTES,
    COUNT,
    IMAGES,
    SECONDS,
    SETS,
    SHARE,
    TASKS_ASKED,
    Panel,
    Row,
    falling,
    rising,
)

ROUTING = Row(
    "Routing per task",
    [
        Panel(
            "Images by winning task",
            "Images answered, by the task whose head won.",
            IMAGES,
            [(rate("mass_images_total", "task"), "{{task}}")],
            stacked=True,
        ),
        Panel(
            "Share of the tasks",
            "Of the images answered by all servers, over 5 minutes.",
            SHARE,
            [("job_task:mass_images:share5m", "{{task}}")],
            stacked=True,
            highest=1,
        ),
        Panel(
            "Images routed to a task's experts",
            "An image counts for every task of its expert set. Callers that name one task are not routed.",
            IMAGES,
            [(rate("mass_routed_images_total", "task"), "{{task}}")],
        ),
        Panel(
            "Fallbacks",
            "Share of routed images for which no task was above the threshold: all servers, 30 minutes.",
            SHARE,
            [("job:mass_routing_fallback:ratio_rate30m", "{{job}}")],
            thresholds=rising(0.1, 0.2),
        ),
        Panel(
            "Unrouted images by winning task",
            "Images that no task covers, by the task that came nearest. None where the store sets no bound.",
            IMAGES,
            [(rate("mass_unrouted_images_total", "task"), "{{task}}")],
            stacked=True,
        ),
        Panel(
            "Share unrouted",
            "Share of routed images that no task covers: all servers, 30 minutes.",
            SHARE,
            [("job:mass_unrouted_images:ratio_rate30m", "{{job}}")],
            thresholds=rising(0.1, 0.2),
        ),
    ],
)

COEFFICIENTS = Row(
    "Coefficient distribution",
    [
        Panel(
            "Top coefficient",
            "How sure the router was: the largest coefficient of each routed image.",
            COUNT,
            [(buckets("mass_routing_top_coefficient"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Mean top coefficient",
            "Of all servers. The alert MassServeRoutingDrift compares half an hour with the day before.",
            COUNT,
            [
                ("job:mass_routing_top_coefficient:mean30m", "{{job}}, 30 minutes"),
                ("job:mass_routing_top_coefficient:mean1d", "{{job}}, a day"),
            ],
            highest=1,
        ),
    ],
)

SET_SIZES = Row(
    "Set sizes",
    [
        Panel(
            "Tasks in an expert set",
            "Share of the routed images by the size of their set. Larger sets cost more.",
            SHARE,
            [
                (of_sets("1.0"), "1 task"),
                (of_sets("2.0", "1.0"), "2 tasks"),
                (of_sets("+Inf", "2.0"), "3 or more"),
            ],
            stacked=True,
            highest=1,
        ),
        Panel(
            "Mean set size",
            "Tasks in the expert set of a routed image.",
            COUNT,
            [(mean("mass_expert_set_size"), "tasks")],
        ),
    ],
)

BATCHING = Row(
    "Batching and queue",
    [
        Panel(
            "Images waiting",
            "Admitted and not yet on the device, and how many there may be; of texts their tokens.",
            COUNT,
            [
                (f"mass_queue_depth{HERE}", "{{instance}} waiting"),
                (f"mass_queue_capacity{HERE}", "{{instance}} places"),
            ],
        ),
        Panel(
            "Queue, mean of 5 minutes",
            "As a share of the places: what the alert MassServeQueueNearlyFull reads.",
            SHARE,
            [(f"avg_over_time(instance:mass_queue_fill:ratio{HERE}[5m])", "{{instance}}")],
            thresholds=rising(0.5, 0.8),
            highest=1,
        ),
        Panel(
            "Batch sizes",
            "How many batches had how many images, or texts.",
            COUNT,
            [(buckets("mass_batch_size"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Tokens in a batch",
            "How many batches of texts had how many tokens.",
            COUNT,
            [(buckets("mass_batch_tokens"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Segments in a batch",
            "How many batches had how many different expert sets.",
            COUNT,
            [(buckets("mass_batch_segments"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Mean batch",
            "Images and different expert sets in it.",
            COUNT,
            [(mean("mass_batch_size"), "images"), (mean("mass_batch_segments"), "expert sets")],
        ),
        Panel(
            "Batches",
            "Run on the device.",
            BATCHES,
            [(rate("mass_batch_size_count", "instance"), "{{instance}}")],
        ),
    ],
)

CACHE = Row(
    "Cache",
    [
        Panel(
            "Hit ratio",
            "Share of the expert sets that were found ready, over 15 minutes.",
            SHARE,
            [(f"instance:mass_set_cache_hits:ratio_rate15m{HERE}", "{{instance}}")],
            width=6,
            thresholds=falling(0.5, 0.8),
            highest=1,
        ),
        Panel(
            "Sets found and computed",
            "Each batch asks once for each of its sets.",
            SETS,
            [(rate("mass_set_cache_hits_total"), "found"), (rate("mass_set_cache_misses_total"), "computed")],
            width=6,
        ),
        Panel(
            "Segments by form",
            "Low-rank or materialised. Under adaptive execution this is what the cost model chose.",
            SETS,
            [(rate("mass_segments_total", "form"), "{{form}}")],
            width=6,
        ),
        Panel(
            "Size",
            "Memory of the sets that are kept; the bound is the setting set_cache_bytes.",
            BYTES,
            [(f"mass_set_cache_bytes{HERE}", "{{instance}}")],
            width=6,
        ),
        Panel(
            "Tasks found and read",
            "Whose weights were in memory, and were read again: see the setting resident_task_bytes.",
            TASKS_ASKED,
            [
                (rate("mass_resident_task_hits_total"), "found"),
                (rate("mass_resident_task_misses_total"), "read"),
            ],
        ),
        Panel(
            "Tasks in memory",
            "Weights of tasks; the bound is the setting resident_task_bytes.",
            BYTES,
            [(f"mass_resident_task_bytes{HERE}", "{{instance}}")],
        ),
        Panel(
            "Answers known already",
            "To inputs that came again, and those that were computed: none without answer_cache_bytes.",
            ANSWERS,
            [
                (rate("mass_answer_cache_hits_total"), "known"),
                (rate("mass_answer_cache_misses_total"), "computed"),
            ],
        ),
        Panel(
            "Answers in memory",
            "Kept for inputs that come again; the bound is the setting answer_cache_bytes.",
            BYTES,
            [(f"mass_answer_cache_bytes{HERE}", "{{instance}}")],
        ),
    ],
)

MEMORY = Row(
    "Memory",
    [
        Panel(
            "Tensors by kind",
            "On the device, of all servers selected.",
            BYTES,
            [(f"sum by (kind) (mass_device_memory_bytes{HERE})", "{{kind}}")],
            stacked=True,
        ),
        Panel(
            "Resident memory",
            "Of the process, beside what the alert MassServeMemoryHigh allows.",
            BYTES,
            [
                (f"process_resident_memory_bytes{HERE}", "{{instance}}"),
                (
                    f"2 * sum by (instance) (mass_device_memory_bytes{HERE}) + 4 * 1024 ^ 3",
                    "{{instance}} alert",
                ),
            ],
        ),
        Panel(
            "CPU", "Cores in use.", COUNT, [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")]
        ),
        Panel(
            "Open files",
            "Connections too. At the limit the server accepts none.",
            COUNT,
            [(f"process_open_fds{HERE}", "{{instance}}")],
        ),
    ],
)

STORE = Row(
    "Store revisions",
    [
        Panel(
            "Tasks and revisions",
            "How many servers have loaded this revision of the task.",
            COUNT,
            [(f"count by (task, revision) (mass_task_loaded{HERE} == 1)", "{{task}} {{revision}}")],
            kind="table",
            value_name="Servers",
        ),
        Panel(
            "Failed loads",
            "In 15 minutes. The revision before serves on.",
            COUNT,
            [(f"increase(mass_task_load_failures_total{HERE}[15m])", "{{instance}}")],
            thresholds=rising(1, 2),
        ),
        Panel(
            "Loads",
            "Since the server started; the first is the start itself.",
            COUNT,
            [(f"{LOADS}_count{HERE}", "{{instance}}")],
        ),
        Panel(
            "Mean time of a load",
            "Since the server started, from reading the store to taking over.",
            SECONDS,
            [(f"{LOADS}_sum{HERE} / {LOADS}_count{HERE}", "{{instance}}")],
        ),
    ],
)
