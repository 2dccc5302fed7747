"""The row about inputs that are judged together: splits, streams, and priors that traffic has taught."""

from __future__ import annotations

from expressions import HERE, rate
from panels import COUNT, REQUESTS, SHARE, Panel, Row

STREAMS_PER_SECOND = "suffix: streams/s"

GROUPS = Row(
    "Inputs judged together",
    [
        Panel(
            "Said to be of one task, and not",
            "Requests with same_task, or of a stream, and those whose inputs contradict it and are split.",
            REQUESTS,
            [
                (rate("mass_questions_total", where='answer="same_task"'), "asked"),
                (rate("mass_split_requests_total"), "split"),
            ],
        ),
        Panel(
            "Streams remembered",
            "The bound is the setting max_streams.",
            COUNT,
            [(f"mass_streams{HERE}", "{{instance}}")],
        ),
        Panel(
            "Streams forgotten",
            "Begun anew, because their task has changed, and dropped, because there are too many.",
            STREAMS_PER_SECOND,
            [
                (rate("mass_streams_began_anew_total"), "begun anew"),
                (rate("mass_streams_dropped_total"), "dropped"),
            ],
        ),
        Panel(
            "Learned priors",
            "How likely each task is by the traffic so far; nothing unless priors_half_life is set.",
            SHARE,
            [(f"avg by (task) (mass_learned_prior{HERE})", "{{task}}")],
            stacked=True,
            highest=1,
        ),
    ],
)
