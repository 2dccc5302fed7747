"""What each of several front ends may have of the limits in the settings, and what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mass_serve.server.settings import Settings, SettingsError

# Bounds on what all front ends hold together.
DIVIDED = (
    "queue_images",
    "queue_tokens",
    "max_held_bytes",
    "max_connections",
    "decode_workers",
    "answer_cache_bytes",
)
# A single request must fit, whatever the share is: its images, or texts of one token a character with the
# marks around each, and its body as it came, unpacked, parsed and decoded.
LEAST: Mapping[str, Callable[[Settings], int]] = {
    "queue_images": lambda settings: settings.max_images_per_request,
    "queue_tokens": lambda settings: settings.max_text_characters + 4 * settings.max_images_per_request,
    "max_held_bytes": lambda settings: 4 * settings.max_body_bytes,
}


def check_front_ends(settings: Settings) -> None:
    """Raises SettingsError for what is remembered of one request for the next, which may go elsewhere."""
    remembers = {
        "max_streams": settings.max_streams if "max_streams" in settings.model_fields_set else 0,
        "priors_half_life": settings.priors_half_life,
        "shadow_share": settings.shadow_share,
    }
    for name, value in remembers.items():
        if value:
            raise SettingsError(
                f"front_ends ({settings.front_ends}) and {name} ({value:g}) do not go together, as the next"
                " request may go to another front end; leave one of them out"
            )


def share_of(settings: Settings) -> Settings:
    """Returns the settings of one front end."""
    count = settings.front_ends
    shares = {name: -(-getattr(settings, name) // count) for name in DIVIDED}
    for name, least in LEAST.items():
        shares[name] = min(max(shares[name], least(settings)), getattr(settings, name))
    return settings.model_copy(
        update={
            **shares,
            "max_streams": 0,
            # A batch waits for one of each other front end, and the device's process looks after its own.
            "hang_timeout": settings.hang_timeout * (count + 1),
            # It is told of new revisions by the device's process, which polls.
            "store_poll_seconds": 0.0,
            # Chosen once, where the device is.
            "dtype": settings.engine_options.chosen_dtype,
        }
    )
