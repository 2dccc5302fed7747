"""Where a model comes from: a name in, a local folder and its origin out; the one door to network and caches.

resolve("hf:tanganke/clip-vit-base-patch32_sun397").path
"""

from mass_serve.model_store.sources.resolved import Resolved
from mass_serve.model_store.sources.resolving import resolve
from mass_serve.model_store.sources.urls import cache_folder

__all__ = ["Resolved", "cache_folder", "resolve"]
