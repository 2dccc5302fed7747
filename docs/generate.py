"""Writes into the pages what the program itself knows best, so that the pages cannot drift from it.

    python -m docs.generate            # writes
    python -m docs.generate --check    # ends with 1 where a page would change

A page marks such a section with `<!-- generated: NAME -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.block_formats import (
    block_formats_table,
    calibrated_formats_table,
    exact_times_table,
    other_formats_table,
    packed_speed_table,
    store_sizes_table,
)
from docs.command_line import command_sections
from docs.compiled_kernels import compiled_kernels_table
from docs.engine_times import engine_dense_table, engine_times_table
from docs.host_time import host_time_table
from docs.hot_path import hot_path_table
from docs.http_peers import http_peers_table
from docs.jobs import jobs_table
from docs.many_tasks import many_tasks_table
from docs.measured import (
    created_tasks_table,
    curves_table,
    dtypes_table,
    few_labels_table,
    groups_table,
    mixed_groups_table,
    separability_table,
)
from docs.merged_bases import merged_bases_table
from docs.merged_models import merged_models_table
from docs.on_ray import ray_measured_table, ray_settings_table
from docs.openapi import http_sections
from docs.rank_rules import allocation_table, growth_table, rank_rules_table
from docs.real_demo import real_alike_table, real_modes_table, real_sources_table, real_tasks_table
from docs.roofline import roofline_table
from docs.routing import early_layers_table, late_token_table, routing_table
from docs.scale import scale_replicas_table, scale_swap_table, scale_tasks_table
from docs.scaled_decoding import scaled_decoding_table
from docs.shrink_forms import shrink_forms_table
from docs.suites import (
    calibrated_table,
    certainty_table,
    demo_tasks_table,
    head_choices_table,
    near_duplicates_table,
    suite_modes_table,
    suites_table,
    unfamiliar_table,
)
from docs.tables import metrics_table, modes_table, settings_table
from docs.task_residence import task_residence_table
from docs.text_demo import (
    text_bytes_table,
    text_modes_table,
    text_routing_table,
    text_same_table,
    text_sources_table,
    text_tasks_table,
    text_unfamiliar_table,
)
from docs.text_speed import text_memory_table, text_seconds_table, text_speed_table
from docs.thin_first_pass import thin_first_pass_table, thin_first_pass_times_table

PAGES = Path(__file__).parent
SECTIONS: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "modes": modes_table,
    "metrics": metrics_table,
    "commands": command_sections,
    "http": http_sections,
    "jobs": jobs_table,
    "scale_replicas": scale_replicas_table,
    "scale_tasks": scale_tasks_table,
    "scale_swap": scale_swap_table,
    "ray_settings": ray_settings_table,
    "ray_measured": ray_measured_table,
    "rank_rules": rank_rules_table,
    "rank_allocation": allocation_table,
    "block_formats": block_formats_table,
    "calibrated_formats": calibrated_formats_table,
    "other_formats": other_formats_table,
    "store_sizes": store_sizes_table,
    "packed_speed": packed_speed_table,
    "scaled_decoding": scaled_decoding_table,
    "compiled_kernels": compiled_kernels_table,
    "roofline": roofline_table,
    "shrink_forms": shrink_forms_table,
    "host_time": host_time_table,
    "engine_dense": engine_dense_table,
    "engine_times": engine_times_table,
    "hot_path": hot_path_table,
    "http_peers": http_peers_table,
    "exact_times": exact_times_table,
    "growth": growth_table,
    "merged_bases": merged_bases_table,
    "merged_models": merged_models_table,
    "routing": routing_table,
    "late_token": late_token_table,
    "early_layers": early_layers_table,
    "thin_first_pass": thin_first_pass_table,
    "thin_first_pass_times": thin_first_pass_times_table,
    "demo_tasks": demo_tasks_table,
    "certainty": certainty_table,
    "curves": curves_table,
    "suites": suites_table,
    "suite_modes": suite_modes_table,
    "near_duplicates": near_duplicates_table,
    "head_choices": head_choices_table,
    "unfamiliar": unfamiliar_table,
    "calibrated": calibrated_table,
    "dtypes": dtypes_table,
    "few_labels": few_labels_table,
    "created_tasks": created_tasks_table,
    "groups": groups_table,
    "mixed_groups": mixed_groups_table,
    "separability": separability_table,
    "real_sources": real_sources_table,
    "real_tasks": real_tasks_table,
    "real_modes": real_modes_table,
    "real_alike": real_alike_table,
    "text_sources": text_sources_table,
    "text_tasks": text_tasks_table,
    "text_modes": text_modes_table,
    "text_unfamiliar": text_unfamiliar_table,
    "text_same": text_same_table,
    "text_bytes": text_bytes_table,
    "text_routing": text_routing_table,
    "task_residence": task_residence_table,
    "many_tasks": many_tasks_table,
    "text_speed": text_speed_table,
    "text_seconds": text_seconds_table,
    "text_memory": text_memory_table,
}
_MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def with_sections(page: str) -> str:
    """The text of a page with every marked section written anew. Raises KeyError for an unknown name."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{SECTIONS[found[2]]().strip()}\n\n{found[3]}", page)


def outdated(pages: Path = PAGES) -> dict[Path, str]:
    """The pages that differ from what the program says, each with the text that it should have."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(pages.glob("*.md"))}
    wanted = {path: with_sections(text) for path, text in texts.items()}
    return {path: text for path, text in wanted.items() if text != texts[path]}


def main() -> None:
    """Writes or checks all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; end with 1 where a page is outdated"
    )
    check = parser.parse_args().check
    changed = outdated()
    for path, text in changed.items():
        print(f"{path.relative_to(PAGES.parent)} is outdated" if check else f"writing {path.name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    sys.exit(1 if check and changed else 0)


if __name__ == "__main__":
    main()
