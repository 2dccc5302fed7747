"""What operators see: health, metrics, logs, traces and the page."""
